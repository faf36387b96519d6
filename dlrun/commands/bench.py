"""dlrun bench: what this machine can do, in figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.commands.figures import bytes_text, count_text, figure, table
from dlrun.commands.offers import DEVICES, options
from dlrun.commands.words import own_words
from dlrun.config.check import device_problem
from dlrun.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from dlrun.benching import Figures

HELP = """\
dlrun bench [--quick] [device=auto] [json=FILE]    this machine's figures, and what follows for settings

  dlrun bench
  dlrun bench --quick                  fewer sizes, shorter measurements
  dlrun bench device=cpu json=machine.json

Memory, matrix products by number format, the cost of a call, transfers to a GPU, convolution, attention, decoding of
JPEG, and dlrun's own training steps by number of threads. Nothing else should run meanwhile.
"""

FLAGS = ("--quick",)
OPTIONS = {"device": DEVICES, "json": ()}


def run(arguments: list[str]) -> int:
    """Measure, print and write. Returns: the exit code."""
    own, others = own_words(arguments, OPTIONS)
    unknown = [word for word in others if word != "--quick"]
    if unknown:
        near = did_you_mean(unknown[0].partition("=")[0], [*OPTIONS, "--quick"])
        raise UsageError(f"dlrun bench does not know '{unknown[0]}': it takes --quick, device and json=FILE.{near}")
    device, file = own.get("device", "auto"), own.get("json")
    if (problem := device_problem("device", device)) is not None:
        raise UsageError(problem)
    if file is not None:
        path = Path(file)
        if not path.absolute().parent.is_dir():
            raise UsageError(f"json={file} cannot be written: there is no folder {path.parent}; make it first.")
        if not path.name or path.is_dir():
            raise UsageError(f"json={file} is no name of a file; write json=bench.json, say.")
    from rich.console import Console

    from dlrun.benching import bench
    from dlrun.runs.files import write_json

    console = Console(highlight=False)
    with Console(stderr=True).status("measuring") as status:
        figures = bench(device, quick="--quick" in others, said=status.update)
    if file is not None:
        write_json(Path(file), figures.to_dict())
    show(figures, console)
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from options(OPTIONS, current)


def show(f: Figures, out: Console) -> None:
    """Print the figures."""
    from dlrun.benching import consequences

    m = f.machine
    name = m["name"] if m["device"].startswith("cuda") else m["processor"]
    numbers = f"{m['cores']} cores · {m['threads']} threads · torch {m['torch']} · dlrun {m['dlrun']}"
    out.print(f"[bold]{m['device']}[/] {name} · {numbers}", soft_wrap=True)
    sizes = list(next(iter(f.products.values())))
    out.print(
        table(
            "matrix products, GFLOP/s",
            ["n x n", *map(str, sizes)],
            [[name, *(figure(rate / 1e9) for rate in by_size.values())] for name, by_size in f.products.items()],
        )
    )
    out.print(table("training steps of dlrun, samples/s", ["", *map(_threads, f.copy)], _rows(f.training)))
    out.print(table("the rest", ["", ""], rest(f)))
    for why, words in consequences(f):
        out.print(f"[bold]→[/] {why}" + (f":  [bold]{words}[/]" if words else ""), soft_wrap=True)


def rest(f: Figures) -> list[list[str]]:
    """What is one number each."""
    return [
        *(
            [f"copy in memory{', ' + _threads(count) if count else ''}", f"{bytes_text(rate)}/s"]
            for count, rate in f.copy.items()
        ),
        *([name, f"{bytes_text(rate)}/s"] for name, rate in f.transfer.items()),
        ["smallest operation", f"{f.call_seconds * 1e6:.3g} µs"],
        ["reading one number", f"{f.wait_seconds * 1e6:.3g} µs"],
        *([f"convolution 3 x 3, {name}", f"{count_text(rate)}FLOP/s"] for name, rate in f.convolution.items()),
        ["attention, 256 tokens", f"{count_text(f.attention)}FLOP/s"],
        ["picking images of 32 x 32", f"{figure(f.gather)} /s"],
        *([f"decoding JPEG of {size} x {size}, one core", f"{figure(rate)} /s"] for size, rate in f.jpeg.items()),
    ]


def _rows(training: Mapping[str, Mapping[int, float]]) -> list[list[str]]:
    return [[name, *(figure(rate) for rate in by_threads.values())] for name, by_threads in training.items()]


def _threads(count: int) -> str:
    return {0: "samples/s", 1: "1 thread"}.get(count, f"{count} threads")
