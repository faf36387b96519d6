"""The settings that belong to no part, as the typed objects they describe."""

from __future__ import annotations

from dlrun.build.calling import Part
from dlrun.config import schema
from dlrun.errors import ConfigError
from dlrun.optim.rules import ParameterGroups

COMMON_DATA = set(schema.Data.__dataclass_fields__)
TRAINER_GROUPS = {
    "clip": schema.Clip,
    "gradient_noise": schema.GradientNoise,
    "sam": schema.Sam,
    "lookahead": schema.Lookahead,
    "swa": schema.Swa,
    "penalty": schema.Penalty,
    "distill": schema.Distill,
    "early_stopping": schema.EarlyStopping,
}


def trainer_settings(config: Part) -> schema.Trainer:
    """`trainer` as the typed object it describes."""
    values = dict(config["trainer"])
    for name, group in TRAINER_GROUPS.items():
        if values.get(name) is not None:
            values[name] = group(**values[name])
    settings = schema.Trainer(**{**values, "clip": values.get("clip") or schema.Clip()})
    if settings.compile and settings.checkpoint_activations:
        raise ConfigError(
            "trainer.checkpoint_activations=true does nothing with trainer.compile=true, which decides for itself what "
            "is computed twice; drop one."
        )
    return settings


def data_settings(config: Part) -> schema.Data:
    """The settings in `data` that every data set shares."""
    return schema.Data(**{key: value for key, value in config["data"].items() if key in COMMON_DATA})


def parameter_rules(config: Part) -> ParameterGroups:
    """`optimizer.param_groups` as the typed object it describes."""
    return ParameterGroups(**(config["optimizer"].get("param_groups") or {}))
