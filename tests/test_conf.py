"""Every YAML of conf/ composes with the defaults, passes the check, is built, and does its work once."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from dlrun import build
from dlrun.config import schema
from dlrun.config.check import SUPPLIED
from dlrun.config.compose import compose
from dlrun.config.location import CONF, NOT_CHOICES
from dlrun.config.overrides import OWN_COMMAND
from dlrun.config.signatures import signature_of
from dlrun.contracts import IGNORED, Batch, DataSpec, Kind, Splits, Task
from dlrun.engine.loaders import Preparation
from dlrun.engine.seeding import seed_everything
from dlrun.errors import ContractError, DataError
from dlrun.optim.rules import ParameterGroups
from tests.samples import SAMPLES, sample, write_files

FILES = [path for path in CONF.glob("*/*.yaml") if not path.stem.startswith("_")]
OTHERS = (*OWN_COMMAND, *NOT_CHOICES)
CHOICES = sorted((path.parent.name, path.stem) for path in FILES if path.parent.name not in OTHERS)
REGRESSION = {"mse", "mae", "huber", "quantile"}  # losses of numbers
LARGE = 5_000_000  # parameters from which a model is built without storage


def composed(*words: str) -> dict[str, Any]:
    return compose([*words, "trainer.device=cpu"]).config


def small(splits: Splits, count: int = 4) -> Batch:
    """The first training examples, ready for a model."""
    batch = splits.train.take(torch.arange(min(count, len(splits.train))))
    return Preparation(splits.spec, (), 0, torch.device("cpu"))(batch, 0)


def loss_of(config: dict[str, Any], splits: Splits, model: nn.Module, batch: Batch) -> Tensor:
    return build.build_loss(config, splits)(model(*batch.arguments), batch.targets)


def works(splits: Splits, config: dict[str, Any]) -> None:
    """Data, model and loss fit one another, and every weight learns."""
    seed_everything(0)
    learns(config, splits, build.build_model(config, splits.spec, inputs_of(splits)))


def inputs_of(splits: Splits) -> Callable[[int], Any]:
    """What an initialisation is offered."""
    cpu = torch.device("cpu")
    return build.inputs_for(splits, Preparation(splits.spec, (), 0, cpu), cpu)


def learns(config: dict[str, Any], splits: Splits, model: nn.Module) -> None:
    loss = loss_of(config, splits, model, small(splits))
    assert torch.isfinite(loss)
    trained = [p for p in model.parameters() if p.requires_grad]
    if trained:
        loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


def is_consistent(splits: Splits) -> None:
    """The spec says what the examples are."""
    spec: DataSpec = splits.spec
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    for examples in (splits.train, splits.val, splits.test):
        assert examples is not None
        assert len(examples) > 0
        batch = examples.take(torch.arange(min(4, len(examples))))
        inputs = batch.arguments[0]
        assert tuple(inputs.shape[1:]) == spec.shape
        if spec.kind is Kind.TOKENS:
            assert inputs.dtype == torch.int64
            assert 0 <= int(inputs.min()) <= int(inputs.max()) < spec.vocabulary_size
        if batch.targets.is_floating_point():
            assert tuple(batch.targets.shape[1:]) == (spec.num_outputs,)
        else:
            counted = batch.targets[batch.targets != IGNORED]
            assert batch.targets.dtype == torch.int64
            assert 0 <= int(counted.min()) <= int(counted.max()) < spec.num_outputs
    assert len(spec.class_names) in (0, spec.num_outputs)
    if spec.kind is Kind.VECTOR:
        # Standardised on the training split, except features that are constant or 0 and 1.
        assert splits.train.take(torch.arange(len(splits.train))).inputs.abs().mean() < 2


class Reader(nn.Module):
    """The least that reads any data: a linear map of the input, or of each token before a target."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.by_token = spec.task in (Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE)
        self.tokens = max(spec.vocabulary_size, spec.num_outputs) if spec.kind is Kind.TOKENS else 0
        self.output = nn.Linear(self.tokens or spec.num_features, spec.num_outputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        if not self.tokens:
            return self.output(inputs[0].flatten(1))
        counts = nn.functional.one_hot(inputs[-1], self.tokens).float()
        return self.output(counts if self.by_token else counts.mean(1))


def published_or_skip(name: str) -> None:
    """Skip the published data sets that are not on this machine."""
    from dlrun.data.vision import SOURCES

    if name in SOURCES:
        root, source = os.environ.get("DLRUN_DATA"), SOURCES[name]
        if root is None:
            pytest.skip(f"DLRUN_DATA does not name a folder with {name}")
        if not all((Path(root) / source.folder / file).is_file() for file in source.files):
            pytest.skip(f"there is no {name} in DLRUN_DATA={root}")


def data(name: str, tmp_path: Path) -> None:
    published_or_skip(name)
    config = composed(f"data={name}", *write_files(name, tmp_path))
    splits = data_or_skip(config)
    assert splits.spec.name == name
    is_consistent(splits)
    seed_everything(0)
    learns(config, splits, Reader(splits.spec))


def data_or_skip(config: dict[str, Any]) -> Splits:
    """The data; skip those that are read from DLRUN_DATA where that names nothing."""
    try:
        return build.build_data(config)
    except DataError as error:
        source = (CONF / "data" / f"{config['data']['name']}.yaml").read_text()
        if "DLRUN_DATA" in os.environ or "DLRUN_DATA" not in source:
            raise
        pytest.skip(f"its files are not at hand: {error}")


def model(name: str, tmp_path: Path) -> None:
    """The model works on the first sample that it accepts; a large one is only built, without storage."""
    config = composed(f"model={name}")
    refusals = []
    for shape in SAMPLES:
        splits = sample(shape)
        try:
            with torch.device("meta"):
                size = sum(p.numel() for p in build.build_model({**config, "init": None}, splits.spec).parameters())
        except ContractError as refusal:
            refusals.append(str(refusal))
            continue
        if size < LARGE:
            works(splits, config)
        return
    raise AssertionError("\n".join(refusals))


def optimizer(name: str, tmp_path: Path) -> None:
    if name == "pytorch_optimizer":
        pytest.importorskip(name)
    config = composed(f"optimizer={name}", "data=iris", "model.widths=[8]", "model.norm=batch")
    splits = build.build_data(config)
    seed_everything(0)
    net = build.build_model(config, splits.spec)
    made = build.build_optimizer(config, net)
    before = [p.detach().clone() for p in net.parameters()]

    def closure() -> Tensor:
        made.zero_grad()
        loss = loss_of(config, splits, net, small(splits))
        loss.backward()
        return loss

    first = closure()
    for _ in range(3):
        made.step(closure)
    assert closure() < first
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def scheduler(name: str, tmp_path: Path) -> None:
    config = composed(f"scheduler={name}", "optimizer=sgd", "optimizer.lr=0.5")
    net = nn.Linear(3, 2)
    made = build.build_optimizer(config, net)
    schedule = build.build_schedule(config, made, total_steps=100, steps_per_epoch=5, higher_is_better=True)
    rates = []
    for step in range(100):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step()
        if step % 5 == 4:
            schedule.on_metric(0.5)
    assert max(rates) == pytest.approx(0.5)
    assert min(rates) >= 0
    assert (len(set(rates)) == 1) == (name == "constant")


def loss(name: str, tmp_path: Path) -> None:
    config = composed(f"loss={name}", f"data={'linear' if name in REGRESSION else 'iris'}")
    works(build.build_data(config), config)


def augment(name: str, tmp_path: Path) -> None:
    config = composed(f"augment={name}", "data=digits")
    splits = build.build_data(config)
    batch = splits.train.take(torch.arange(64))
    made = build.build_augment(config, splits.spec)
    once, again = (Preparation(splits.spec, made, 0, torch.device("cpu"))(batch, step=7) for _ in range(2))
    plain = small(splits, 64)
    assert torch.equal(once.inputs, again.inputs)
    assert once.inputs.shape == plain.inputs.shape
    assert torch.isfinite(once.inputs).all()
    assert torch.equal(once.inputs, plain.inputs) == (name == "none")


def init(name: str, tmp_path: Path) -> None:
    blocks = ("model.widths=[16,16]", "model.residual=true", "model.norm=layer")
    if name == "from_checkpoint":
        torch.save({"output.bias": torch.ones(10)}, tmp_path / "weights.pt")
        blocks += (f"init.path={tmp_path / 'weights.pt'}",)
    if name == "whitening":
        blocks = ("model=whitened_cnn", "model.widths=[8,8]")
    if name == "gpt2":
        blocks = ("model=transformer", "model.width=16")
    config = composed(f"init={name}", "data=digits", *blocks)
    splits = build.build_data(config)
    seed_everything(0)
    net = build.build_model(config, splits.spec, inputs_of(splits))
    seed_everything(0)
    untouched = build.build_model({**config, "init": None}, splits.spec)
    pairs = zip(net.parameters(), untouched.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs) == (name == "default")


def trainer(name: str, tmp_path: Path) -> None:
    settings = build.trainer_settings(composed(f"trainer={name}"))
    assert settings.epochs >= 1
    assert isinstance(settings.clip, schema.Clip)


def callbacks(name: str, tmp_path: Path) -> None:
    config = composed(f"callbacks={name}")
    assert len(build.build_callbacks(config)) == len(config.get("callbacks") or {})


def logger(name: str, tmp_path: Path) -> None:
    config = composed(f"logger={name}")
    made = build.build_loggers(config, str(tmp_path), 0)
    assert len(made) == len(config.get("logger") or {})
    for item in made:
        item.log({"step": 1, "epoch": 0.5, "time": 0.1, "train/loss": 1.0})
        item.close()


def experiment(name: str, tmp_path: Path) -> None:
    config = composed(f"experiment={name}")
    data_name = config["data"]["name"]
    published_or_skip(data_name)
    if files := write_files(data_name, tmp_path):
        config = composed(f"experiment={name}", *files)
    works(data_or_skip(config), config)


BUILDERS: dict[str, Callable[[str, Path], None]] = {
    "data": data,
    "model": model,
    "optimizer": optimizer,
    "scheduler": scheduler,
    "loss": loss,
    "augment": augment,
    "init": init,
    "trainer": trainer,
    "callbacks": callbacks,
    "logger": logger,
    "experiment": experiment,
}


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=["=".join(choice) for choice in CHOICES])
def test_every_choice_is_built_and_works(group: str, name: str, tmp_path: Path):
    BUILDERS[group](name, tmp_path)


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=["=".join(choice) for choice in CHOICES])
def test_every_choice_says_what_it_is_and_lists_every_argument(group: str, name: str):
    """Only keys that a YAML lists are completed in a shell."""
    path = CONF / group / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    parts = [part for part in (node, *node.values()) if isinstance(part, dict) and "_target_" in part]
    for part in parts:
        if not part["_target_"].startswith("dlrun."):
            continue
        signature = signature_of(part["_target_"])
        assert signature is not None
        given = (
            SUPPLIED.get(group, set())
            | {"folder", "start_step"}
            | set(list(signature.parameters)[: group == "scheduler"])
        )
        listed = {key for key in part if not key.startswith("_")}
        assert set(signature.parameters) - given <= listed


@pytest.mark.parametrize(
    ("path", "defaults"),
    [
        ("trainer/default", schema.Trainer()),
        ("data/_common", schema.Data()),
        ("scheduler/_common", schema.Scheduler()),
    ],
)
def test_conf_repeats_the_defaults_of_the_schema(path: str, defaults: Any):
    assert OmegaConf.to_container(OmegaConf.load(CONF / f"{path}.yaml")) == dataclasses.asdict(defaults)


def test_conf_repeats_the_defaults_of_parameter_groups():
    node = OmegaConf.to_container(OmegaConf.load(CONF / "optimizer" / "_common.yaml"))
    assert isinstance(node, dict)
    defaults = dataclasses.asdict(ParameterGroups())
    assert node == {"param_groups": {**defaults, "no_decay": list(defaults["no_decay"])}}
