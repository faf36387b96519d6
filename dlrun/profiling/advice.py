"""What the numbers of a profile suggest: each a sentence with the number behind it, and the words to type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dlrun.profiling import Profile

DATA_SHARE = 0.15  # of a step: data take so much time that it is worth a word
OPTIMIZER_SHARE = 0.15
IDLE_SHARE = 0.3  # of a GPU
FASTER = 1.1  # times: a difference that is not noise
MUCH_FASTER = 1.3


@dataclass(frozen=True)
class Suggestion:
    """Why, with the number; and what to type, where there are words for it."""

    why: str
    words: str


def suggestions(p: Profile) -> list[Suggestion]:
    """All that the profile gives reason for, what promises most first."""
    return [found for rule in RULES for found in rule(p)]


def waiting_for_data(p: Profile) -> Iterator[Suggestion]:
    share, waits = p.share("data"), p.share("data: wait")
    if p.loader == "streaming" and share > DATA_SHARE:
        workers = int(p.settings["data"]["workers"])
        yield Suggestion(
            f"data take {share:.0%} of a step, {waits:.0%} waiting for {workers} workers: keep them on the device, or "
            "if they do not fit, have more workers",
            f"data.loader=resident, or data.workers={max(2 * workers, 2)}",
        )
    augment = p.share("data: augment")
    if augment > DATA_SHARE:
        yield Suggestion(
            f"augmentation takes {augment:.0%} of a step: a cheaper one, or none, trains up to "
            f"{1 / (1 - augment):.1f} times as fast",
            "augment=none, or fewer of them",
        )


def launch_bound(p: Profile) -> Iterator[Suggestion]:
    if not p.on_gpu or p.captured or p.idle < IDLE_SHARE:
        return
    words = "trainer.graph=auto" if "graph" in p.settings["trainer"] else "trainer.compile=true"
    yield Suggestion(
        f"launch-bound: {p.trace.launches:.0f} launches a step and the GPU idle {p.idle:.0%} of the time: give it more "
        "to do at once, or have fewer launches",
        f"data.batch_size={4 * p.batch_size} or {words}",
    )


def synchronisations(p: Profile) -> Iterator[Suggestion]:
    every = int(p.settings["trainer"]["log_every"])
    expected = 2.0 / every + 2.0 / p.steps  # the log record's, and the end's
    if p.on_gpu and p.trace.waits > expected + 0.5:
        yield Suggestion(
            f"the host waits for the GPU {p.trace.waits:.1f} times a step, and the GPU then for the host: look in "
            "the trace for cudaStreamSynchronize and what calls it, such as .item() in a part of your own",
            "",
        )


def other_precision(p: Profile) -> Iterator[Suggestion]:
    computing = p.share("forward") + p.share("backward")
    for name in ("bf16", "fp16", "tf32"):
        if p.precision in ("fp32", "tf32") and name in p.peaks and p.peaks[name] > MUCH_FASTER * p.peak:
            yield Suggestion(
                f"matrix products run at {p.peaks[name] / 1e9:,.0f} GFLOP/s in {name} here and at {p.peak / 1e9:,.0f} "
                f"in {p.precision}, and forward and backward take {computing:.0%} of a step",
                f"trainer.precision={name}",
            )
            return


def thread_count(p: Profile) -> Iterator[Suggestion]:
    if p.threads not in p.by_threads:
        return
    best = min(p.by_threads, key=lambda count: p.by_threads[count])
    ours = p.by_threads[p.threads]
    if ours > FASTER * p.by_threads[best]:
        yield Suggestion(
            f"a step takes {ours * 1e3:.3g} ms with {_threads(p.threads)} and {p.by_threads[best] * 1e3:.3g} ms with "
            f"{_threads(best)} here",
            f"trainer.threads={best}",
        )


def batch_size(p: Profile) -> Iterator[Suggestion]:
    if p.larger is None or p.larger[1] < MUCH_FASTER:
        return
    examples, times = p.larger
    per_batch = examples // int(p.settings["trainer"]["accumulate"])
    yield Suggestion(
        f"with {examples} examples a step instead of {p.batch_size}, {times:.1f} times as many are done in a second "
        "(the learning rate may have to grow with it)",
        f"data.batch_size={per_batch}",
    )


def optimizer(p: Profile) -> Iterator[Suggestion]:
    share = p.share("optimizer")
    if share > OPTIMIZER_SHARE and p.fused is False:
        yield Suggestion(f"the optimizer takes {share:.0%} of a step and is not fused", "optimizer.fused=true")


def recomputing(p: Profile) -> Iterator[Suggestion]:
    if p.settings["trainer"]["checkpoint_activations"] and p.memory_total and p.memory_bytes < p.memory_total / 2:
        yield Suggestion(
            f"trainer.checkpoint_activations computes the forward pass twice, the first time {p.share('forward'):.0%} "
            f"of a step, and only {p.memory_bytes / p.memory_total:.0%} of the memory is used",
            "trainer.checkpoint_activations=false",
        )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


RULES: tuple[Callable[[Profile], Iterator[Suggestion]], ...] = (
    waiting_for_data,
    launch_bound,
    synchronisations,
    other_precision,
    thread_count,
    batch_size,
    optimizer,
    recomputing,
)
