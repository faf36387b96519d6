"""Any model with any data, in fp32 and bf16: it trains and resumes exactly, or is refused with a sentence.

Beside the tests below, `DLRUN_MATRIX=cells.json pytest tests/test_matrix.py -k every_choice` takes a model of every
kind with every data set that is at hand (or those of `DLRUN_MATRIX_DATA=digits,iris`), and writes what became of each.
"""

import copy
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from dlrun import assembly, build
from dlrun.config.compose import compose
from dlrun.config.location import CONF
from dlrun.contracts import Splits
from dlrun.engine.training import Training
from dlrun.errors import DlrunError
from tests.samples import SAMPLES, sample, write_files

PRECISIONS = ("fp32", "bf16")
# As small as shows the same: the step of a large model on a CPU takes seconds.
SMALL = {
    "alexnet": ["model.head_widths=[16,16]"],
    "vgg11": ["model.head_widths=[16]"],
    "whitened_cnn": ["model.widths=[8,8,8]"],
    "densenet": ["model.blocks=[2,2]", "model.stem_width=8"],
    "resnet": ["model.blocks=[1,1]", "model.width=8", "model.stem_width=8"],
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


@functools.cache
def families() -> list[str]:
    """One model per factory, by the shortest name: presets differ in sizes, not in kind."""
    shortest: dict[str, str] = {}
    for name in sorted(choices("model"), key=lambda name: (len(name), name)):
        shortest.setdefault(OmegaConf.load(CONF / "model" / f"{name}.yaml")["_target_"], name)
    return sorted(shortest.values())


def begin(config: dict[str, Any]) -> Training:
    return assembly.prepare_training(assembly.assemble(config), lambda record: None, ())


def one_step(training: Training) -> torch.Tensor:
    training.model.train()
    batch = next(iter(training.loader.epoch(0, training.step % training.loader.steps_per_epoch)))
    loss = training.train_step(batch)
    training.step += 1
    return loss


def outcome(config: dict[str, Any], resuming: bool = True) -> str:
    """What becomes of a cell: `trained`, `evaluated` (nothing to learn), or the sentence of the refusal.

    Raises: whatever else happens.
    """
    try:
        training = begin(config)
    except DlrunError as refusal:
        sentence = str(refusal)
    else:
        return trains(config, training, resuming)
    assert len(sentence) > 20
    assert "\n" not in sentence
    return sentence


def trains(config: dict[str, Any], training: Training, resuming: bool) -> str:
    """A step has a finite loss and moves weights; a second one is the same after a resume, to the bit."""
    if training.total_steps == 0:
        assert all(value == value for value in training.validate(training.model).values())
        return "evaluated"
    before = [p.detach().clone() for p in training.model.parameters()]
    assert torch.isfinite(one_step(training))
    assert any(not torch.equal(p, q) for p, q in zip(training.model.parameters(), before, strict=True))
    if resuming:
        state = copy.deepcopy(training.state_dict())
        expected = one_step(training)
        again = begin(config)
        again.load_state_dict(state)
        assert torch.equal(one_step(again), expected)
        pairs = zip(again.model.parameters(), training.model.parameters(), strict=True)
        assert all(torch.equal(p, q) for p, q in pairs)
    return "trained"


@functools.cache
def prepared(model: str, *words: str) -> dict[str, Any]:
    """Five examples a batch: none of the samples then leaves a batch of one."""
    small = ["data.batch_size=5", "trainer.device=cpu", "scheduler.warmup=0", "trainer.max_steps=4"]
    return compose([f"model={model}", *words, *small]).config


@pytest.mark.parametrize("data", [name for name in SAMPLES if name not in ("images", "large_images")])
def test_every_family_trains_on_every_shape_of_data_or_says_why_not(data: str, monkeypatch: pytest.MonkeyPatch):
    """In bf16 one step must do: convolutions in it are ten times slower on most CPUs."""
    splits = sample(data)
    monkeypatch.setattr(build, "build_data", lambda config: splits)
    trained = 0
    for model in families():
        config = copy.deepcopy(prepared(model, *SMALL.get(model, [])))
        for precision in PRECISIONS:
            config["trainer"]["precision"] = precision
            try:
                trained += outcome(config, resuming=precision == "fp32") == "trained"
            except Exception as error:
                raise AssertionError(f"model={model} on {data}, {precision}") from error
    assert trained >= 2


@pytest.mark.skipif("DLRUN_MATRIX" not in os.environ, reason="takes long; DLRUN_MATRIX=FILE.json runs it")
def test_every_choice_of_model_with_every_choice_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cells: dict[str, str] = {}
    build_data = build.build_data
    wanted = os.environ.get("DLRUN_MATRIX_DATA", "")
    for data in wanted.split(",") if wanted else choices("data"):
        (tmp_path / data).mkdir()
        words = [f"data={data}", *write_files(data, tmp_path / data)]
        try:
            splits = build_data(compose(words).config)
        except DlrunError as error:
            cells[data] = f"not at hand: {error}"
            continue
        splits = Splits(splits.train.subset(torch.arange(8)), splits.spec, *few(splits))
        monkeypatch.setattr(build, "build_data", lambda config, splits=splits: splits)
        for model in families():
            config = copy.deepcopy(prepared(model, *words, *SMALL.get(model, [])))
            for precision in PRECISIONS:
                config["trainer"]["precision"] = precision
                try:
                    found = outcome(config)
                except Exception as error:
                    found = f"FAILED {type(error).__name__}: {error}"
                cells[f"{model} {data} {precision}"] = found
                print(model, data, precision, found[:100], flush=True)
    Path(os.environ["DLRUN_MATRIX"]).write_text(json.dumps(cells, indent=1))
    assert not [cell for cell, found in cells.items() if found.startswith("FAILED")]


def few(splits: Splits) -> list[Any]:
    return [part.subset(torch.arange(min(4, len(part)))) for part in (splits.val, splits.test) if part is not None]
