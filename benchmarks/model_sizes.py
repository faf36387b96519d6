"""Parameters and multiply-adds of every model of conf/, at its usual input; writes the table of docs/models.md.

    python benchmarks/model_sizes.py docs/models.md

Counted on the model as dlrun builds it, without storage (PyTorch's meta device), by torch.utils.flop_counter: the
matrix products and convolutions of one forward pass of one example.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

from dlrun import build, planning
from dlrun.config.compose import compose
from dlrun.config.location import CONF
from dlrun.contracts import Batch, DataSpec, Kind, Task
from dlrun.errors import ContractError

START, END = "<!-- sizes: written by benchmarks/model_sizes.py -->", "<!-- end of sizes -->"


def image(side: int, classes: int, channels: int = 3) -> DataSpec:
    return DataSpec("images", Task.CLASSIFICATION, Kind.IMAGE, (channels, side, side), classes)


INPUTS = {
    "MNIST": image(28, 10, channels=1),
    "CIFAR-10": image(32, 10),
    "ImageNet": image(224, 1000),
    "reconstruction of MNIST": DataSpec("images", Task.RECONSTRUCTION, Kind.IMAGE, (1, 28, 28), 784),
    "64 of 65 characters, next": DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (64,), 65, vocabulary_size=65),
    "96 hours of 7 series, next 96 of one": DataSpec(
        "series", Task.FORECASTING, Kind.SEQUENCE, (96, 7), 96, horizon=96, target_columns=(6,), season=24
    ),
    "20 of 100 words to 20 of 30 characters": DataSpec(
        "pairs", Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (20,), 30, vocabulary_size=100, padding=0, target_length=20
    ),
    "1024 of 50257 byte pairs, next": DataSpec(
        "text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (1024,), 50257, vocabulary_size=50257
    ),
    "100 of 37000 byte pairs to 100": DataSpec(
        "pairs",
        Task.SEQUENCE_TO_SEQUENCE,
        Kind.TOKENS,
        (100,),
        37000,
        vocabulary_size=37000,
        padding=0,
        target_length=100,
    ),
}
FIRST = {
    "gpt": "64 of 65 characters, next",
    "llama": "64 of 65 characters, next",
    "transformer": "64 of 65 characters, next",
    "char_lstm": "64 of 65 characters, next",
    "gpt2": "1024 of 50257 byte pairs, next",
    "transformer_base": "100 of 37000 byte pairs to 100",
}
IMAGENET = re.compile(
    r"resnet(18|34|50|101|152|50d)$|resnext50|densenet(121|169|201)|alexnet|googlenet|vgg|mobilenet|vit_b|torchvision|timm"
)
CIFAR = re.compile(r"cnn|resnet|densenet|inception|separable|mixer")


def usual(model: str) -> list[str]:
    """The names of the inputs to try, the usual one first."""
    by_name = "ImageNet" if IMAGENET.search(model) else "CIFAR-10" if CIFAR.search(model) else "MNIST"
    first = FIRST.get(model, by_name)
    return [first, *(name for name in INPUTS if name != first)]


def measure(model: str) -> tuple[str, int, int] | None:
    """(input, parameters, multiply-adds), None for a wrapper of an absent library."""
    config = compose([f"model={model}"]).config
    for name in usual(model):
        try:
            return name, *count(config, INPUTS[name], "meta")
        except NotImplementedError:  # packed sequences want to know the lengths
            return name, *count(config, INPUTS[name], "cpu")
        except ContractError as error:
            print(f"{model} with {name}: {error}", file=sys.stderr)
    return None


def count(config: dict[str, Any], spec: DataSpec, device: str) -> tuple[int, int]:
    """(parameters, multiply-adds) of the model for one example."""
    with torch.device(device):
        built = build.build_model({**config, "init": None}, spec)
        kind = torch.long if spec.kind is Kind.TOKENS else torch.float32
        given = torch.ones(1, *spec.shape, dtype=kind)
        both = (given, torch.ones(1, spec.target_length, dtype=torch.long))
        batch = Batch(both if spec.task is Task.SEQUENCE_TO_SEQUENCE else given, torch.zeros(1))
        return sum(p.numel() for p in built.parameters()), planning.multiply_adds(built, batch)


def source(model: str) -> str:
    """The first sentence at the head of the model's YAML."""
    lines = (CONF / "model" / f"{model}.yaml").read_text().splitlines()
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    return re.split(r"(?<!et al)\. (?=[A-Z])", " ".join(head))[0].removesuffix(".")


def main(page: Path) -> None:
    names = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if not path.stem.startswith("_"))
    rows = ["| `model=` | what it is, source | input | parameters | multiply-adds |", "|---|---|---|---:|---:|"]
    for model in names:
        found = measure(model)
        if found is not None:
            rows.append(f"| `{model}` | {source(model)} | {found[0]} | {found[1]:,} | {found[2]:,} |")
    text = page.read_text()
    before, _, rest = text.partition(START)
    page.write_text(f"{before}{START}\n" + "\n".join(rows) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
