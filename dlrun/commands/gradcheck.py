"""dlrun gradcheck: whether a configuration's gradients are those of its loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dlrun.commands.offers import options, overrides
from dlrun.commands.words import own_words, real, whole
from dlrun.errors import UsageError
from dlrun.startup import loading

if TYPE_CHECKING:
    from dlrun.diagnostics.gradcheck import Checked

HELP = """\
dlrun gradcheck [OVERRIDES] [coordinates=5]    compare backpropagation with finite differences; trains nothing

  dlrun gradcheck model=cnn data=digits
  dlrun gradcheck model=mlp model.norm=batch norm=train
  dlrun gradcheck --config-dir mine model=my_model coordinates=20

OVERRIDES are those of `dlrun train`. For some numbers θ of every parameter tensor, drawn by the seed, the gradient is
set beside (L(θ + ε) - L(θ - ε)) / 2ε in float64, dropout off, on 16 examples of the first batch. Shown is the largest
relative error of each tensor. Exit code 1 if one is above the tolerance.

  coordinates=N      of each tensor; all where it has fewer
  epsilon=1e-5       ε; rounding makes smaller ones worse, the loss's curve larger ones
  tolerance=1e-6     the largest relative error that passes
  norm=eval|train    batch norm by its running statistics, or by the batch
"""

FLAGS = ("--config-dir",)
OPTIONS = {"coordinates": ("5",), "epsilon": ("1e-5",), "tolerance": ("1e-6",), "norm": ("eval", "train")}


def run(arguments: list[str]) -> int:
    """Check and print. Returns: the exit code."""
    from dlrun.commands.train import parse_arguments
    from dlrun.config.compose import compose

    own, others = own_words(arguments, OPTIONS)
    coordinates = whole(own, "coordinates", 1) or 5
    epsilon, tolerance = real(own, "epsilon", zero=False), real(own, "tolerance", zero=False)
    norm = own.get("norm", "eval")
    if norm not in ("train", "eval"):
        raise UsageError(f"norm must be eval or train, got '{norm}'.")
    words = parse_arguments(others)
    if words.multirun or words.cfg or words.info or words.hydra_help:
        raise UsageError("dlrun gradcheck checks one run: leave out -m, --cfg, --info and --hydra-help.")
    composed = compose(
        words.overrides, config_path=words.config_path, config_name=words.config_name, config_dir=words.config_dir
    )
    with loading():
        from dlrun.diagnostics.gradcheck import EPSILON, TOLERANCE, gradcheck
    found = gradcheck(
        composed.config,
        coordinates=coordinates,
        epsilon=epsilon or EPSILON,
        norm="train" if norm == "train" else "eval",
    )
    limit = tolerance or TOLERANCE
    show(found, limit, norm)
    return int(not all(item.passes(limit) for item in found))


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from overrides(typed, current)
    if "." not in current:
        yield from options(OPTIONS, current)


def show(found: Sequence[Checked], tolerance: float, norm: str) -> None:
    """Print a table, the worst tensor last."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    made = Table(box=box.SIMPLE_HEAD)
    for name in ("parameter", "shape", "checked", "error", "autograd", "difference", ""):
        made.add_column(name, justify="left" if name in ("parameter", "shape", "") else "right", no_wrap=True)
    for item in sorted(found, key=lambda item: item.error):
        sign = "[green]✔[/]" if item.passes(tolerance) else "[red]✘[/]"
        kinks = f" +{item.kinks} kinks" if item.kinks else ""
        sides = f"{item.autograd:.4g}", f"{item.difference:.4g}"
        shape = "x".join(map(str, item.shape))
        made.add_row(item.name, shape, f"{item.coordinates}{kinks}", f"{item.error:.1e}", *sides, sign)
    out.print(made)
    failed = [item for item in found if not item.passes(tolerance)]
    checked = sum(item.coordinates for item in found)
    where = f"{checked} numbers of {len(found)} tensors, float64, dropout off, batch norm by " + (
        "the batch" if norm == "train" else "its running statistics"
    )
    if failed:
        out.print(f"[red]{len(failed)} of {len(found)} tensors fail[/] (relative error above {tolerance:g}): {where}")
    else:
        out.print(f"[green]the gradients agree[/] (relative error at most {tolerance:g}): {where}")
