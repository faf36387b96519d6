"""Plain values as YAML, as OmegaConf writes and reads it, by the C library behind yaml: ten times as fast."""

from typing import Any

import yaml  # type: ignore[import-untyped]

# What OmegaConf reads as true or false, without quotes; numbers it knows more of than YAML does, such as 1e-3.
BOOLEANS = {"y", "yes", "n", "no", "true", "false", "on", "off"}


def yaml_text(content: Any) -> str:
    """Mappings, lists, numbers and texts as YAML that OmegaConf reads back as they were."""
    text: str = yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes texts that would be read as something else, and never writes a value as a reference to an equal one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    quoted = text.lower() in BOOLEANS or _is_number(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _text)
