"""Calling what the configuration names. The only caller of hydra.utils.instantiate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dlrun.errors import ContractError, DlrunError

Part = Mapping[str, Any]


def factory_of(key: str, node: Part) -> Callable[..., Any]:
    """A callable with the arguments of the configuration bound.

    Always a partial that is called in a second step: hydra.utils.instantiate would take a DataSpec, a dataclass, or a
    list of parameter groups among its arguments for configuration and rebuild them.
    """
    try:
        made = instantiate(OmegaConf.create({**node, "_partial_": True}), _convert_="all")
    except HydraException as error:
        raise _explain(key, node, error.__cause__ or error) from error
    assert callable(made)
    return made  # type: ignore[no-any-return]


def call(key: str, node: Part, factory: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    try:
        return factory(*positional, **named)
    except (DlrunError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _explain(key, node, error) from error


def parameters_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of the callable behind a partial, bound ones included."""
    function = factory.func if isinstance(factory, partial) else factory
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def default_of(parameters: Mapping[str, inspect.Parameter], name: str, otherwise: float) -> Any:
    parameter = parameters.get(name)
    return otherwise if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) < 400 else text[:400] + " …"


def _explain(key: str, node: Part, error: BaseException) -> DlrunError:
    """What a part's factory raised, as one sentence."""
    if isinstance(error, DlrunError):
        return error
    return ContractError(f"{key}: {node.get('_target_')} cannot be built: {one_line(error)}.")
