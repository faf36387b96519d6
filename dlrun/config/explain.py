"""What Hydra and OmegaConf raise, said again in one sentence with the key, what was given and what is allowed."""

import re

import yaml  # type: ignore[import-untyped]
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from dlrun.config.overrides import listed, options
from dlrun.errors import ConfigError, did_you_mean

# Beside its own, Hydra raises YAMLError for a file that is no YAML, ValueError or OSError for one that is no mapping,
# TypeError for mappings where choices are meant.
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, OSError)


def translate(error: BaseException, loader: ConfigLoader) -> ConfigError:
    """One of `HYDRA_ERRORS` as one sentence."""
    for source in (error, error.__cause__):
        if isinstance(source, ConfigError):
            return source
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(str(error.missing_cfg_file), loader)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return ConfigError(
            f"{mark.name} is not YAML: {error.problem} in line {mark.line + 1}, column {mark.column + 1}."
        )
    text = " ".join(str(error).split())
    inner = error.__cause__ or error.__context__
    if text.startswith("Error merging override ") and inner is not None:
        reason = re.sub("^field '.*' is not Optional$", "null is not allowed", first_line(inner))
        return ConfigError(f"{text.removeprefix('Error merging override ')}: {reason}.")
    if not text and inner is not None:
        return explain_value(inner)
    if "Multiple values for" in text:
        group = text.split("Multiple values for ", 1)[1].split(".")[0]
        return ConfigError(f"{group} is chosen twice; keep one of them.")
    if text.startswith("Invalid loaded object type"):
        return ConfigError(f"a chosen YAML file must hold keys and values, and holds {text.rsplit(': ')[-1]}.")
    return ConfigError(text.rstrip(".") + ".")


def explain_value(error: BaseException) -> ConfigError:
    """What went wrong with the value of one key, an interpolation mostly."""
    if isinstance(error.__cause__, ConfigError):
        return error.__cause__
    key = getattr(error, "full_key", None)
    text = first_line(error)
    if isinstance(error, InterpolationResolutionError):
        # "KeyError raised while resolving interpolation: "Environment variable 'X' not found""
        text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text).strip('"')
    return ConfigError(f"{f'{key}: ' if key else ''}{text}.")


def first_line(error: BaseException) -> str:
    """The first line of a message, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _no_such_choice(missing: str, loader: ConfigLoader) -> ConfigError:
    group, _, choice = missing.rpartition("/")
    if not group:
        known = [name for name in loader.get_group_options("") if not name.startswith("_")]
        near = did_you_mean(choice, known)
        return ConfigError(f"--config-name {choice}: there is no such file, only {', '.join(known) or 'none'}.{near}")
    return ConfigError(
        f"{group}={choice}: must be {listed(group, loader)}.{did_you_mean(choice, options(group, loader))}"
    )
