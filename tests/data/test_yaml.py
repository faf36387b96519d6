"""Every data YAML lists exactly the arguments of its factory, so that all of them are completed and checked."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import dlrun

CONF = Path(dlrun.__file__).parent.parent / "conf" / "data"
CHOICES = sorted(path.stem for path in CONF.glob("[!_]*.yaml"))


def test_there_are_choices():
    assert {"digits", "moons", "mnist", "image_folder", "csv"} <= set(CHOICES)


@pytest.mark.parametrize("choice", CHOICES)
def test_keys_are_the_factory_s_arguments(choice: str):
    path = CONF / f"{choice}.yaml"
    config = OmegaConf.load(path)
    assert path.read_text().startswith("# ")
    assert config.name == choice
    module, function = config["_target_"].rsplit(".", 1)
    arguments = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    common = OmegaConf.load(CONF / "_common.yaml")
    # A factory that splits by itself asks for common keys, such as val_fraction, by their names.
    assert set(config) - {"_target_", "name"} - set(common) == set(arguments) - set(common)
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in arguments.values())
