"""dlrun profile: where the time of a training step goes, and what would make it shorter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.commands.figures import bytes_text, count_text, table
from dlrun.commands.offers import CONFIG_FLAGS, options, overrides
from dlrun.commands.words import own_words, whole
from dlrun.errors import UsageError

if TYPE_CHECKING:
    from dlrun.profiling import Operator, Profile

HELP = """\
dlrun profile [OVERRIDES] [steps=50] [out=FOLDER]    where a training step's time goes; trains and records nothing

  dlrun profile model=cnn data=mnist
  dlrun profile experiment=cifar10_resnet trainer.precision=bf16
  dlrun profile model=mlp data.batch_size=4096 steps=200
  dlrun profile data=image_folder data.path=photos out=profiles/photos

OVERRIDES are those of `dlrun train`. Some steps are done, a few seconds in all: shown are the phases of a step, the
operators that take longest, operations per second beside what this machine can do at most, and which settings would
make it faster, each with the number that says so. The trace of torch's profiler is for https://ui.perfetto.dev;
profile.json beside it holds all numbers.

  steps=N       at most so many in each measurement
  out=FOLDER    for trace.json and profile.json; default outputs/profiles/<time>_<name>
"""

FLAGS = CONFIG_FLAGS
OPTIONS = {"steps": ("50",), "out": ()}
ROWS = 12  # of the table of operators


def run(arguments: list[str]) -> int:
    """Profile, print and write. Returns: the exit code."""
    from dlrun.commands.train import parse_arguments
    from dlrun.config.compose import compose

    own, others = own_words(arguments, OPTIONS)
    steps = whole(own, "steps", 1) or 50
    words = parse_arguments(others)
    if words.multirun or words.cfg or words.info or words.hydra_help:
        raise UsageError(
            "dlrun profile measures one run: leave out -m, --cfg, --info and --hydra-help, and give one value for each "
            "key."
        )
    refuse_file(own.get("out"))
    composed = compose(
        words.overrides, config_path=words.config_path, config_name=words.config_name, config_dir=words.config_dir
    )
    name = str(composed.config.get("name", "")).replace("/", "-")
    folder = Path(own.get("out") or f"outputs/profiles/{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}")
    # The profiler's library writes to the terminal that it has begun, and that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from dlrun.profiling import profile
    from dlrun.runs.files import write_json

    found = profile(composed.config, steps, folder)
    write_json(folder / "profile.json", found.to_dict())
    show(found)
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from overrides(typed, current)
    if "." not in current:
        yield from options(OPTIONS, current)


def refuse_file(out: str | None) -> None:
    """Now, not when everything has been measured. Raises: UsageError if there cannot be a folder of that name."""
    path = Path(out or ".").absolute()
    taken = next((at for at in (path, *path.parents) if at.exists()), path)
    if not taken.is_dir():
        raise UsageError(f"out={out} cannot be made: {taken.name} is a file; give another folder.")


def show(p: Profile) -> None:
    """Print a profile."""
    from rich.console import Console

    from dlrun.profiling.advice import suggestions

    out = Console(highlight=False)
    out.print(
        f"[bold]{p.name}[/] · {p.batch_size} examples a step · {p.device} · {p.precision}"
        + ("" if p.on_gpu else f" · {p.threads} thread{'s' * (p.threads > 1)}"),
        soft_wrap=True,
    )
    total = sum(p.phases.values()) or 1.0
    out.print(
        table(
            "a step" if not p.captured else f"a step, taken apart ({p.eager_seconds * 1e3:.4g} ms; captured below)",
            ["phase", "ms", "share"],
            [[name, f"{value * 1e3:.3f}", f"{value / total:.1%}"] for name, value in p.phases.items()],
        )
    )
    device = "on the GPU" if p.on_gpu else "on the CPU"
    out.print(operators(f"operators, by their own time {device}", p.trace.operators))
    if p.trace.kernels:
        out.print(operators("kernels", p.trace.kernels))
    for label, text in totals(p):
        out.print(f"[bold]{label:<11}[/] {text}", soft_wrap=True)
    found = suggestions(p)
    for suggestion in found:
        words = f"  [bold]{suggestion.words}[/]" if suggestion.words else ""
        out.print(f"[bold]→[/] {suggestion.why}:{words}" if words else f"[bold]→[/] {suggestion.why}", soft_wrap=True)
    if not found:
        out.print("[bold]→[/] no setting is seen that would make it faster")
    out.print(f"[bold]{'trace':<11}[/] {p.trace_file}", soft_wrap=True)


def operators(title: str, rows: Sequence[Operator]) -> Any:
    """A table of the operators that take longest."""
    total = sum(row.seconds for row in rows) or 1.0
    cells = [
        [row.name, f"{row.seconds * 1e3:.3f}", f"{row.seconds / total:.1%}", f"{row.calls:.4g}"] for row in rows[:ROWS]
    ]
    rest = rows[ROWS:]
    if rest:
        left = sum(row.seconds for row in rest)
        cells.append(
            [
                f"{len(rest)} others",
                f"{left * 1e3:.3f}",
                f"{left / total:.1%}",
                f"{sum(row.calls for row in rest):.4g}",
            ]
        )
    return table(title, ["", "ms a step", "share", "calls a step"], cells)


def totals(p: Profile) -> list[tuple[str, str]]:
    """One line for each figure of the whole step."""
    kind = "captured" if p.captured else "undisturbed"
    lines = [("step", f"{p.step_seconds * 1e3:.4g} ms, {p.samples_per_second:,.0f} samples/s ({p.steps} {kind} steps)")]
    if p.flops is not None:
        lines.append(
            (
                "arithmetic",
                f"{count_text(p.flops)}FLOP a step, {p.rate / 1e9:,.4g} GFLOP/s: {p.rate / p.peak:.0%} of the "
                f"{p.peak / 1e9:,.4g} that matrix products in {p.precision} reach here",
            )
        )
    if p.on_gpu:
        lines.append(
            (
                "GPU",
                f"idle {p.idle:.0%}; {p.trace.launches:.4g} launches and {p.trace.waits:.3g} waits of the host a step",
            )
        )
    if p.by_threads:
        each = ", ".join(f"{count}: {seconds * 1e3:.4g} ms" for count, seconds in p.by_threads.items())
        lines.append(("threads", each))
    if p.larger is not None:
        lines.append(("batch", f"{p.larger[0]} examples a step: {p.larger[1]:.2f} times as many samples/s"))
    whose = "of the GPU" if p.on_gpu else "of the process"
    lines.append(("memory", f"{bytes_text(p.memory_bytes)} {whose} at most, of {bytes_text(p.memory_total)}"))
    return lines
