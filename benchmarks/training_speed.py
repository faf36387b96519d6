"""dlrun's training loop beside loops written by hand that do the same work: ResNet-18, LSTM, ViT, GPT.

    DLRUN_DATA=data python benchmarks/training_speed.py                # all four; the numbers go to benchmarks/results/
    DLRUN_DATA=data python benchmarks/training_speed.py lstm gpt --rounds 3
    DLRUN_DATA=data python benchmarks/training_speed.py --check        # equal weights and batches: equal losses?

The arms take turns. dlrun's is its own loop with everything it does by default: shuffling, normalising, loss and
accuracy of training, schedule, logging. The others are what one writes for a single experiment, and do none of that
beyond the step: modules of torch and torchvision, tensors that lie in memory and are indexed by a permutation, with
PyTorch's default AdamW ("by hand") and with its fused kernel ("by hand, fused"); for convolutions also with
channels-last weights and images. "DataLoader" is the fused one over torchvision's data set, whose first step is not
counted, as it starts the workers. "timm" is the loop of timm's train.py, of its own pieces (timm_pieces.py), where timm
is installed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, alternate, compared, machine, show, write
from timm_pieces import rounds_of_steps
from torch import Tensor, nn
from torch.nn import functional as F
from works import TITLES, WORKS, Batches, Work

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine.loaders import Preparation
from dlrun.engine.loop import fit
from dlrun.engine.order import shuffled

Arm = Callable[[], float]


def by_hand(
    work: Work, batches: Callable[[], Batches], *, fused: bool | None, layout: bool = False, skip: int = 0
) -> Arm:
    """The loop one writes. `layout`: channels-last weights and images; `skip`: first steps that are not counted."""
    model = work.model()
    if layout:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)

    def round_of_steps() -> float:
        source = batches()
        began = time.perf_counter()
        for i, (inputs, targets) in enumerate(islice(source, work.steps + skip)):
            step(model, optimizer, inputs.contiguous(memory_format=torch.channels_last) if layout else inputs, targets)
            if i + 1 == skip:
                began = time.perf_counter()
        return time.perf_counter() - began

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        outputs = model(inputs)
        F.cross_entropy(outputs.flatten(0, -2), targets.flatten()).backward()
        if work.clip:
            nn.utils.clip_grad_norm_(model.parameters(), work.clip)
        optimizer.step()

    return round_of_steps


def by_dlrun(work: Work) -> tuple[Arm, assembly.Assembly]:
    """dlrun's own loop over so many steps, without the validation at its end."""
    words = [*work.words, f"trainer.max_steps={work.steps}", "trainer.precision=fp32"]
    a = assembly.assemble(compose([*words, f"data.batch_size={work.batch_size}"]).config)

    def round_of_steps() -> float:
        training = assembly.prepare_training(a, lambda record: None, ())
        fit(training)
        return training.seconds - training.validation_seconds

    return round_of_steps, a


def measure(title: str, work: Work, rounds: int, keep: Callable[[dict[str, Any]], None]) -> None:
    """All arms of a job, in turn; `keep` receives what is known after each round."""
    dlrun, a = by_dlrun(work)
    ready = work.batches(a.splits.train, a.spec, work.batch_size)
    next(ready)  # what is prepared once

    arms = {"dlrun": dlrun}
    arms["by hand"] = by_hand(work, lambda: ready, fused=None)
    arms["by hand, fused"] = by_hand(work, lambda: ready, fused=True)
    if work.convolves:
        arms["by hand, fused, channels last"] = by_hand(work, lambda: ready, fused=True, layout=True)
    if load := work.loader:
        for workers in (0, 2):
            data = lambda workers=workers: load(a.spec, work.batch_size, workers)  # noqa: E731
            arms[f"DataLoader, {workers} workers"] = by_hand(work, data, fused=True, layout=work.convolves, skip=1)
    if work.timm and find_spec("timm"):
        data, shape = work.timm()
        for workers in (0, 2):
            arms[f"timm's pieces, {workers} workers"] = rounds_of_steps(
                work.model(),
                data,
                shape,
                (tuple(a.spec.mean), tuple(a.spec.std)),
                batch_size=work.batch_size,
                steps=work.steps,
                workers=workers,
            )
    times = alternate(arms, rounds, after=lambda times: keep({"steps": work.steps, "arms": compared(times)}))
    show(title, compared(times))


def check(work: Work, steps: int = 4) -> dict[str, Any]:
    """The losses of both from equal weights on equal batches: what shows that they do the same work.

    dlrun's arm without decoupled decay's exceptions and without a schedule, as the loops by hand have neither.
    """
    batch_size = min(work.batch_size, 32)
    words = [*work.words, "scheduler=constant", "optimizer.param_groups.no_decay=[]", "trainer.log_every=1"]
    words += [f"trainer.max_steps={steps}", "trainer.precision=fp32", f"data.batch_size={batch_size}"]
    a = assembly.assemble(compose(words).config)
    model = work.model()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), a.model.parameters(), strict=True):
            mine.copy_(theirs.reshape(mine.shape))
    indices = shuffled(len(a.splits.train), a.config["seed"])(0).split(batch_size)
    plain = Preparation(a.spec, (), 0, a.device, channels_last=work.convolves)
    if work.convolves:  # sums in another order would differ in the last bits, and Adam makes much of that
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    losses = []
    for index in indices[:steps]:
        batch = plain(a.splits.train.take(index), 0)
        optimizer.zero_grad()
        outputs = model(batch.inputs)
        loss = F.cross_entropy(outputs.flatten(0, -2), batch.targets.flatten())
        loss.backward()
        if work.clip:
            nn.utils.clip_grad_norm_(model.parameters(), work.clip)
        optimizer.step()
        losses.append(loss.item())
    records: list[dict[str, Any]] = []
    fit(assembly.prepare_training(a, records.append, ()))
    dlrun = [record["train/step_loss"] for record in records if "train/step_loss" in record]
    apart = max(abs(x - y) for x, y in zip(dlrun, losses, strict=True))
    return {"dlrun": dlrun, "by hand": losses, "largest difference": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(WORKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="compare losses instead of times")
    parser.add_argument("--quick", action="store_true", help="one round of few steps: does it run?")
    parser.add_argument("--json", type=Path, default=RESULTS / "training_speed.json")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    entries: dict[str, Any] = machine()
    for name in options.works or WORKS:
        work = WORKS[name]
        if options.check:
            entries[f"{name}, losses"] = result = check(work)
            print(f"{TITLES[name]}: losses of {len(result['dlrun'])} steps apart by {result['largest difference']:.1e}")
            continue
        if options.quick:
            work.steps = 2
        rounds = 1 if options.quick else options.rounds

        def keep(result: dict[str, Any], name: str = name, rounds: int = rounds) -> None:
            entries[name] = {"title": TITLES[name], "rounds": rounds, **result}
            if not options.quick:
                write(options.json, entries, said=False)

        measure(TITLES[name], work, rounds, keep)
    if options.check and not options.quick:
        write(options.json, entries)


if __name__ == "__main__":
    main()
