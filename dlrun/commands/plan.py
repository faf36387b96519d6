"""dlrun plan: what `dlrun train` with the same words would do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dlrun.commands.offers import CONFIG_FLAGS, overrides
from dlrun.errors import UsageError
from dlrun.startup import loading

if TYPE_CHECKING:
    from dlrun.planning import Plan

HELP = """\
dlrun plan [OVERRIDES]         what would run; trains and writes nothing

  dlrun plan model=cnn data=mnist
  dlrun plan optimizer=sgd scheduler=onecycle scheduler.warmup=2ep

Shows the configuration, the data's splits, every layer with its shape and parameters, the steps, the course of the
learning rate, the optimizer's parameter groups, and the memory a step takes. OVERRIDES are those of `dlrun train`.
"""

FLAGS = CONFIG_FLAGS
ROWS, COLUMNS = 8, 60
BLOCKS = " ▁▂▃▄▅▆▇█"


def run(arguments: list[str]) -> int:
    """Print the plan. Returns: the exit code."""
    from dlrun.commands.train import parse_arguments
    from dlrun.config.compose import compose

    words = parse_arguments(arguments)
    if words.multirun or words.cfg or words.info:
        raise UsageError("dlrun plan shows one run: leave out -m, --cfg and --info, and give one value for each key.")
    composed = compose(
        words.overrides, config_path=words.config_path, config_name=words.config_name, config_dir=words.config_dir
    )
    with loading():
        from dlrun.planning import plan

    show(plan(composed.config))
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    yield from overrides(typed, current)


def show(found: Plan) -> None:
    """Print a plan."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

    out = Console(highlight=False)
    config = found.assembly.config
    tree = Tree(f"[bold]{config.get('name', 'configuration')}[/]")
    grow(tree, {key: value for key, value in config.items() if key != "name"})
    out.print(tree)
    a, t = found.assembly, found.training
    out.print("\n[bold]data[/]", a.spec.name, f"{a.spec.kind.plural} of shape {a.spec.shape}", a.spec.task.value)
    out.print("  ", ", ".join(f"{name} {len(getattr(a.splits, name)):,}" for name in ("train", "val", "test")))
    table = Table(box=box.SIMPLE_HEAD, title=model_line(found), title_justify="left")
    for name, side in (("layer", "left"), ("type", "left"), ("output", "left"), ("parameters", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for layer in found.layers:
        table.add_row(
            layer.name, layer.kind, str(layer.shape or ""), f"{layer.parameters:,}" if layer.parameters else ""
        )
    out.print(table)
    per_epoch = t.loader.steps_per_epoch
    out.print(
        f"[bold]steps[/] {t.total_steps:,}: {t.total_steps / per_epoch:g} epochs of {per_epoch:,}; validation every "
        f"{t.eval_every:,}, monitored: {t.monitor} ({'higher' if t.higher_is_better else 'lower'} is better)",
        soft_wrap=True,
    )
    out.print(f"[bold]device[/] {a.device}  [bold]precision[/] {a.precision.name}")
    for note in found.assembly.notes:
        out.print(note, soft_wrap=True)
    if found.lrs:
        out.print(f"\n[bold]learning rate[/] {min(found.lrs):.3g} to {max(found.lrs):.3g}")
        out.print("\n".join(curve(found.lrs)))
    out.print("[bold]parameter groups[/]")
    for line in found.groups:
        out.print("  ", line)
    parts = ", ".join(f"{name} {size(count)}" for name, count in found.memory.items() if count and name != "peak")
    out.print(f"[bold]memory[/] {parts}; {size(found.memory['peak'])} at most at one time in a step", soft_wrap=True)


def model_line(found: Plan) -> str:
    """How large the model is and how much work an example."""
    return f"model: {found.assembly.parameters:,} parameters, {count(found.multiply_adds)} multiply-adds an example"


def grow(tree: Any, node: Any) -> None:
    """Add a configuration to a rich tree."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            grow(tree.add(f"[bold]{key}[/]"), value)
        else:
            from rich.markup import escape

            tree.add(f"{key}: {escape(str(value))}" if value is not None else f"[dim]{key}: null[/]")


def curve(values: list[float]) -> list[str]:
    """A chart of `values` in block characters, from 0 to the largest, one row of axis labels."""
    width = min(COLUMNS, len(values))
    points = [values[int((i + 0.5) * len(values) / width)] for i in range(width)]
    top = max(values) or 1.0
    rows = []
    for row in range(ROWS - 1, -1, -1):
        cells = [BLOCKS[max(0, min(8, round((value / top * ROWS - row) * 8)))] for value in points]
        label = f"{top:9.3g}" if row == ROWS - 1 else f"{0:9d}" if row == 0 else " " * 9
        rows.append(f"{label} {''.join(cells)}")
    return [*rows, f"{'step':>9} 1{len(values):>{max(width - 1, 1)},}"]


def count(number: int) -> str:
    """A count for people: 1.82 G."""
    for unit, scale in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number}"


def size(count: int) -> str:
    """Bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
