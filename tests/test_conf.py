"""Every YAML of conf/ composes with the defaults, passes the check, is built, and does its work once."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from dlrun import build
from dlrun.config import schema
from dlrun.config.check import SUPPLIED
from dlrun.config.compose import compose
from dlrun.config.location import CONF
from dlrun.config.signatures import signature_of
from dlrun.contracts import Batch, DataSpec, Kind, Splits, Task
from dlrun.engine.loaders import Preparation
from dlrun.engine.seeding import seed_everything
from dlrun.optim.rules import ParameterGroups

CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if not path.stem.startswith("_"))
REGRESSION = {"mse", "mae", "huber", "quantile"}  # losses of numbers
IMAGES_ONLY = {"cnn", "lenet5"}


def composed(*words: str) -> dict[str, Any]:
    return compose([*words, "trainer.device=cpu"]).config


def small(splits: Splits, count: int = 16) -> Batch:
    """The first training examples, ready for a model."""
    batch = splits.train.take(torch.arange(min(count, len(splits.train))))
    return Preparation(splits.spec, (), 0, torch.device("cpu"))(batch, 0)


def loss_of(config: dict[str, Any], splits: Splits, model: nn.Module, batch: Batch) -> Tensor:
    return build.build_loss(config, splits)(model(*batch.arguments), batch.targets)


def works(splits: Splits, config: dict[str, Any]) -> None:
    """Data, model and loss fit one another, and every weight learns."""
    seed_everything(0)
    model = build.build_model(config, splits.spec)
    loss = loss_of(config, splits, model, small(splits))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def is_consistent(splits: Splits) -> None:
    """The spec says what the examples are."""
    spec: DataSpec = splits.spec
    for examples in (splits.train, splits.val, splits.test):
        assert examples is not None
        assert len(examples) == len(examples.targets) > 0
        batch = examples.take(torch.arange(min(4, len(examples))))
        assert tuple(batch.inputs.shape[1:]) == spec.shape
        if spec.task is Task.CLASSIFICATION:
            assert batch.targets.dtype == torch.int64
            assert 0 <= int(examples.targets.min()) <= int(examples.targets.max()) < spec.num_outputs
        else:
            assert tuple(examples.targets.shape[1:]) == (spec.num_outputs,)
    assert len(spec.class_names) in (0, spec.num_outputs)
    if spec.kind is Kind.VECTOR:
        # Standardised on the training split, except features that are constant or 0 and 1.
        assert splits.train.take(torch.arange(len(splits.train))).inputs.abs().mean() < 2


def write_files(name: str, folder: Path) -> list[str]:
    """Files for the data sets that read the user's own, and the words that name them."""
    if name == "csv":
        rows = [f"{i % 7},{['red', 'green', ''][i % 3]},{'yes' if i % 2 else 'no'}" for i in range(40)]
        (folder / "table.csv").write_text("\n".join(["size,colour,ripe", *rows]))
        return [f"data.path={folder / 'table.csv'}", "data.target=ripe"]
    if name == "image_folder":
        cache = folder / "cache"
        folder = folder / "photos"
        for label in ("cat", "dog"):
            (folder / label).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (20, 16), (10 * i, 255 * (label == "dog"), 30)).save(folder / label / f"{i}.png")
        return [f"data.path={folder}", "data.size=28", f"data.cache={cache}"]
    return []


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
    splits = build.build_data(config)
    assert splits.spec.name == name
    is_consistent(splits)
    works(splits, config)


def model(name: str, tmp_path: Path) -> None:
    words = ["data=iris"]
    if name in IMAGES_ONLY:
        words = ["data=image_folder", *write_files("image_folder", tmp_path)]
    config = composed(f"model={name}", *words)
    works(build.build_data(config), config)


def optimizer(name: str, tmp_path: Path) -> None:
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
    config = composed(f"init={name}", "data=digits", *blocks)
    splits = build.build_data(config)
    seed_everything(0)
    net = build.build_model(config, splits.spec)
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
    target = config["data"]["_target_"].rpartition(".")[2]
    published_or_skip(target)
    works(build.build_data(config), config)


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
