"""From configuration to one object at a time; every contract of contracts.py is checked here.

Nothing below knows Hydra, OmegaConf or dlrun.config: functions take plain arguments, and these modules give them.
"""

from dlrun.build.fit import check_fit, check_smallest_batch
from dlrun.build.metrics import answers_in, build_all_metrics, build_metrics, build_scores, choose_monitor
from dlrun.build.optimizing import build_optimizer, build_schedule
from dlrun.build.parts import (
    build_augment,
    build_callbacks,
    build_data,
    build_loggers,
    build_loss,
    build_model,
    check_loggers,
    inputs_for,
)
from dlrun.build.settings import data_settings, parameter_rules, trainer_settings

__all__ = [
    "answers_in",
    "build_all_metrics",
    "build_augment",
    "build_callbacks",
    "build_data",
    "build_loggers",
    "build_loss",
    "build_metrics",
    "build_model",
    "build_optimizer",
    "build_schedule",
    "build_scores",
    "check_fit",
    "check_loggers",
    "check_smallest_batch",
    "choose_monitor",
    "data_settings",
    "inputs_for",
    "parameter_rules",
    "trainer_settings",
]
