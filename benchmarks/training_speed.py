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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, alternate, compared, machine, show, write
from peer_data import cifar_folder, mnist_root
from timm_pieces import rounds_of_steps
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine.loop import fit
from dlrun.engine.order import shuffled

Batches = Iterator[tuple[Tensor, Tensor]]
Arm = Callable[[], float]


@dataclass
class Work:
    """One job, as dlrun is told it and as it is written by hand.

    Attributes:
        words: of dlrun.
        model: the same architecture; its parameters are registered in the order of dlrun's.
        batches: from the training examples of dlrun's split, the batch size and the steps: endless enough batches.
        steps: per round.
        folder: of torchvision's data set, or None.
        timm: name and root of the data set for timm, and the shape of an image; or None.
        clip: the largest norm of the gradients.
    """

    words: list[str]
    model: Callable[[], nn.Module]
    batches: Callable[[Any, Any, int], Batches]
    batch_size: int
    steps: int
    loader: Callable[[Any, int, int], Batches] | None = None
    timm: Callable[[], tuple[tuple[str, str], tuple[int, int, int]]] | None = None
    clip: float | None = None
    convolves: bool = False


class LSTMByRows(nn.Module):
    """Reads an image row by row; a class from the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(28, 128, batch_first=True)
        self.output = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.rnn(images.squeeze(1))
        return self.output(outputs[:, -1])


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, causal: bool, bias: bool, eps: float) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1 = nn.LayerNorm(width, eps, bias=bias)
        self.projection = nn.Linear(width, width, bias)
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.norm2 = nn.LayerNorm(width, eps, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width, bias), nn.GELU(), nn.Linear(4 * width, width, bias))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.projection(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """conf/experiment/mnist_vit.yaml's: 16 patches of 7 x 7, 64 wide, 4 blocks, mean over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, 7, stride=7)
        self.positions = nn.Embedding(16, 64)
        self.blocks = nn.Sequential(*(Block(64, 4, causal=False, bias=True, eps=1e-6) for _ in range(4)))
        self.norm = nn.LayerNorm(64, 1e-6)
        self.output = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions.weight
        return self.output(self.norm(self.blocks(x)).mean(1))


class GPT(nn.Module):
    """nanoGPT's setting for a CPU: 4 blocks, 128 wide, 4 heads, context 64, no biases, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(65, 128)
        self.positions = nn.Embedding(64, 128)
        self.blocks = nn.Sequential(*(Block(128, 4, causal=True, bias=False, eps=1e-5) for _ in range(4)))
        self.norm = nn.LayerNorm(128, bias=False)
        self.output = nn.Linear(128, 65, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.output.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.norm(self.blocks(self.tokens(tokens) + self.positions.weight)))


def resnet18() -> nn.Module:
    """torchvision's, with the stem for small images: a 3x3 convolution of stride 1 and no pooling."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()  # type: ignore[assignment]
    return model


def image_batches(examples: Any, spec: Any, batch_size: int) -> Batches:
    """Normalised once, then indexed by a permutation."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    images = examples.inputs.float().div_(255).sub_(mean).div_(std)
    while True:
        for index in torch.randperm(len(images)).split(batch_size):
            yield images[index], examples.targets[index]


def text_batches(examples: Any, spec: Any, batch_size: int) -> Batches:
    """Windows that begin anywhere in the text, as nanoGPT draws them."""
    text, length = examples.text.long(), examples.length
    offsets = torch.arange(length)
    while True:
        at = torch.randint(len(text) - length, (batch_size, 1)) + offsets
        yield text[at], text[at + 1]


def mnist_loader(spec: Any, batch_size: int, workers: int) -> Batches:
    """What tutorials write."""
    from torchvision import datasets, transforms

    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
    data = datasets.MNIST(str(mnist_root()), train=True, transform=change)
    yield from torch.utils.data.DataLoader(data, batch_size, shuffle=True, num_workers=workers)


def cifar_loader(spec: Any, batch_size: int, workers: int) -> Batches:
    """torchvision's folder of JPEGs."""
    from torchvision import datasets, transforms

    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
    data = datasets.ImageFolder(str(cifar_folder() / "train"), change)
    yield from torch.utils.data.DataLoader(data, batch_size, shuffle=True, num_workers=workers)


WORKS = {
    "resnet18": Work(
        ["data=cifar10_jpeg", "model=resnet18", "data.val_fraction=0.002"],
        resnet18,
        image_batches,
        batch_size=128,
        steps=5,
        loader=cifar_loader,
        timm=lambda: (("", str(cifar_folder())), (3, 32, 32)),
        convolves=True,
    ),
    "lstm": Work(["data=mnist", "model=lstm"], LSTMByRows, image_batches, 128, 60, loader=mnist_loader),
    "vit": Work(
        ["data=mnist", "model=vit", "model.patch=7", "model.width=64", "model.depth=4"],
        ViT,
        image_batches,
        batch_size=128,
        steps=60,
        loader=mnist_loader,
        timm=lambda: (("torch/mnist", str(mnist_root())), (1, 28, 28)),
    ),
    "gpt": Work(["data=tinyshakespeare", "model=gpt", "trainer.clip.norm=1"], GPT, text_batches, 12, 100, clip=1.0),
}
TITLES = {
    "resnet18": "CIFAR-10 (JPEG), ResNet-18, batch 128",
    "lstm": "MNIST by rows, LSTM 128, batch 128",
    "vit": "MNIST, ViT 64 wide, 4 deep, batch 128",
    "gpt": "tinyshakespeare, GPT 128 wide, 4 deep, batch 12 x 64",
}


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
    plain = assembly.Preparation(a.spec, (), 0, a.device, channels_last=work.convolves)
    if (
        work.convolves
    ):  # dlrun's layout: sums in another order would differ in the last bits, and Adam makes much of that
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
