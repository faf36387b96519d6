"""Whether experiment=cifar10_94 computes what the record it follows computes: both step by step, on the CPU.

    DLRUN_DATA=data python benchmarks/cifar10_94_check.py --airbench airbench94_muon.py

Both start from one seed and train on the same batches, as dlrun draws and augments them: all eight epochs of the
recipe, with only two small batches in each. The record's `main` runs as it stands in its file
(https://github.com/KellerJordan/cifar10-airbench), without GPU, compiling and half precision; each of its images counts
as often as makes a batch 2000, which is what its learning rates are for. Printed are the largest differences, relative
to the largest number of each tensor. Ends with 1 if one of them is more than rounding.

Training is in float64, as float32 shows nothing here: its rounding changes which pixel a max pool takes, and after the
16 steps dlrun's own parameters are up to a third away from those that it has with float64.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun import assembly, build
from dlrun.assembly.parts import Assembly
from dlrun.augment.geometry import translate
from dlrun.config.compose import compose
from dlrun.contracts import Examples
from dlrun.engine.training import Training

FULL_BATCH = 2000  # images in a step of the record
PATCH_IMAGES = 5000  # that the whitening looks at
ONCE, ROUNDING = 1e-6, 1e-7  # allowed: of one operation in float32; of training in float64
FILTERS = 1e-3  # allowed: the smallest eigenvalues are 1e-5 of the largest, and dlrun multiplies in float32
CHANGES = {  # of the record's text: how often each occurs, and what stands there instead
    "@torch.compile\n": (1, ""),
    ".half()": (2, ".float()"),
    "G.bfloat16()": (1, "G.clone()"),
    ".reshape(-1,c,h,w).float()": (1, ".reshape(-1,c,h,w).double()"),  # its sums in float32 are 4 % of a filter away
    "torch.cuda.Event(enable_timing=True)": (2, "Stopped()"),
    "torch.cuda.synchronize()": (1, "None"),
    'F.cross_entropy(outputs, labels, label_smoothing=0.2, reduction="sum")': (
        1,
        'counted(F.cross_entropy(outputs, labels, label_smoothing=0.2, reduction="sum"), len(labels))',
    ),
}

Batches = list[tuple[Tensor, Tensor]]
Pairs = Mapping[str, tuple[Tensor, Tensor]]


class Stopped:
    """In the place of a CUDA event."""

    def record(self) -> None: ...

    def elapsed_time(self, other: Stopped) -> float:
        return 0.0


class Given:
    """In the place of the record's loader: images that are normalised already, and batches epoch by epoch."""

    def __init__(self, images: Tensor, labels: Tensor, epochs: Sequence[Batches] = ()) -> None:
        self.images, self.labels, self.epochs, self.epoch = images, labels, epochs, 0

    def __len__(self) -> int:
        return len(self.epochs[0])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        return iter(self.epochs[self.epoch - 1])

    def normalize(self, images: Tensor) -> Tensor:
        return images


class Verdict:
    """Prints differences, and remembers whether all of them were small."""

    def __init__(self) -> None:
        self.fine = True

    def note(self, what: str, difference: float, allowed: float, remark: str = "") -> None:
        too_much = "" if difference <= allowed else f" MORE THAN {allowed:g}"
        print(f"{what:48} {difference:.1e}  {remark}{too_much}", flush=True)
        self.fine &= difference <= allowed

    def largest(self, what: str, pairs: Pairs, allowed: float) -> None:
        """Note the largest difference among pairs of tensors, and where it is."""
        found = {name: relative(*pair) for name, pair in pairs.items()}
        name = max(found, key=lambda name: found[name])
        self.note(what, found[name], allowed, f"{len(found)} tensors, this at {name}")


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def load(path: Path) -> dict[str, Any]:
    """The names that the record's file defines, changed so that it runs on a CPU; "losses" are those of its steps."""
    text = path.read_text()
    for old, (times, new) in CHANGES.items():
        if text.count(old) != times:
            raise SystemExit(f"{path} is another version: it has {old!r} {text.count(old)} times instead of {times}")
        text = text.replace(old, new)
    losses: list[float] = []

    def counted(loss: Tensor, images: int) -> Tensor:
        losses.append(float(loss.detach()) / images)
        return loss * (FULL_BATCH / images)

    names: dict[str, Any] = {"__name__": "airbench94", "Stopped": Stopped, "counted": counted, "losses": losses}
    arguments, sys.argv = sys.argv, [str(path)]  # it reads its own text
    try:
        exec(compile(text, str(path), "exec"), names)
    finally:
        sys.argv = arguments
    names["print_training_details"] = lambda variables, is_final_entry: None
    return names


def assemble(config: dict[str, Any], test_images: int) -> Assembly:
    """The recipe's parts, on as many training images as the whitening looks at and few test images."""
    splits = build.build_data(config)
    train, test = evenly(splits.train, PATCH_IMAGES), evenly(splits.test, test_images)
    return assembly.assemble(config, splits=dataclasses.replace(splits, train=train, test=test))


def evenly(examples: Any, count: int) -> Examples:
    """So many of the examples, evenly spaced, which here means of all classes."""
    return examples.subset(torch.arange(count) * len(examples) // count)  # type: ignore[no-any-return]


def prepare(a: Assembly, images: int) -> Training:
    """The recipe's training on so many images."""
    few = dataclasses.replace(a.splits, train=evenly(a.splits.train, images))
    return assembly.prepare_training(dataclasses.replace(a, splits=few), lambda record: None, ())


def train(training: Training) -> tuple[list[float], list[Batches]]:
    """Train as the recipe does, in float64. Returns: the loss of each step; the batches, epoch by epoch."""
    losses, epochs = [], list[Batches]()
    training.model.double().train()
    training.model.register_forward_pre_hook(lambda model, inputs: (inputs[0].double(),))
    for epoch in range(training.total_steps // training.loader.steps_per_epoch):
        epochs.append([])
        for batch in training.loader.epoch(epoch):
            epochs[-1].append((batch.arguments[0].double(), batch.targets))
            losses.append(float(training.train_step(batch)))
    return losses, epochs


def pairs(ours: Mapping[str, Tensor], model: nn.Module, choose: Callable[[str], bool]) -> Pairs:
    """dlrun's tensors beside the record's as dlrun has them, where `choose` takes the name."""
    found = {}
    for name, tensor in model.state_dict().items():
        for old, new in {"whiten.": "whitening.", "layers.": "stage", "head.": "output."}.items():
            name = name.replace(old, new)
        if choose(name) and "num_batches" not in name:
            # The record divides the last layer's outputs by the number of its inputs, dlrun its weights.
            found[name] = (ours[name], tensor / tensor.shape[1] if name == "output.weight" else tensor)
    return found


def check_augmentation(verdict: Verdict, names: dict[str, Any], training: Training, images: Tensor) -> None:
    """Whether the same shifts make the same images, and both mirror each image in every other epoch."""
    torch.manual_seed(1)
    theirs = names["batch_crop"](F.pad(images, (2,) * 4, "reflect"), 32)
    torch.manual_seed(1)
    down, right = -torch.randint(-2, 3, size=(len(images), 2)).T
    verdict.note("shifted images", relative(translate(images, down, right, 2, "reflect"), theirs), 0.0)

    loader: Any = training.loader
    peer = object.__new__(names["CifarLoader"])  # its constructor wants files
    vars(peer).update(Given(images, torch.zeros(len(images))).__dict__, normalize=lambda x: x, proc_images={}, epoch=0)
    vars(peer).update(aug={"flip": True}, batch_size=len(images), drop_last=False, shuffle=False)
    ours_mirrored, theirs_mirrored = [], []
    for epoch in range(3):
        order, count = loader.order(epoch), len(loader.examples)
        ours_mirrored.append(torch.zeros(count, dtype=torch.bool).scatter_(0, order % count, order >= count))
        theirs_mirrored.append((next(iter(peer))[0] != images).flatten(1).any(1))
    for name, (first, second, third) in {"dlrun": ours_mirrored, "the record": theirs_mirrored}.items():
        wrong = ((first == second) | (first != third)).double().mean()
        shares = ", ".join(f"{float(part.double().mean()):.0%}" for part in (first, second, third))
        verdict.note(f"not mirrored in turn, {name}", float(wrong), 0.0, f"mirrored in three epochs: {shares}")


def check_start(verdict: Verdict, ours: Mapping[str, Tensor], model: Any) -> None:
    """Whether the same seed makes the same model; the record's is then given the weights that differ by rounding."""
    verdict.largest("first weights", pairs(ours, model, lambda name: name != "whitening.weight"), ONCE)
    filters, theirs = ours["whitening.weight"], model.whiten.weight.data
    half = len(filters) // 2
    signs = (filters[:half] * theirs[:half]).sum((1, 2, 3), keepdim=True).sign()  # an eigenvector has none of its own
    verdict.note("whitening filters", relative(filters * torch.cat([signs, signs]), theirs), FILTERS, "signs aside")
    theirs.copy_(filters)
    model.head.weight.data.copy_(ours["output.weight"] * model.head.in_features)


def train_the_record(names: dict[str, Any], loaders: Sequence[Given], seed: int, start: Callable[[Any], None]) -> Any:
    """Run the record's `main`, with `start` called once its model is initialised. Returns: the model."""
    names["CifarLoader"] = lambda path, train, **_: loaders[0] if train else loaders[1]
    model = names["CifarNet"]().to(memory_format=torch.channels_last)
    plain = model.init_whiten

    def init_whiten(self: Any, images: Tensor) -> None:
        plain(images)
        start(self)
        self.double()

    model.init_whiten = types.MethodType(init_whiten, model)
    torch.manual_seed(seed)
    names["main"](0, model)
    return model


def compare(names: dict[str, Any], config: dict[str, Any], batch: int) -> bool:
    """All comparisons. Returns: whether they found no more than rounding."""
    verdict = Verdict()
    a = assemble(config, test_images=batch)
    training = prepare(a, images=2 * batch)
    start = {name: tensor.clone() for name, tensor in a.model.state_dict().items()}
    images = build.inputs_for(a.splits, a.evaluator("test").prepare, a.device)(PATCH_IMAGES)
    check_augmentation(verdict, names, training, images[:1000].contiguous())

    losses, epochs = train(training)
    tests = next(iter(a.evaluator("test").batches()))
    loaders = Given(images, tests.targets, epochs), Given(tests.arguments[0].double(), tests.targets)
    model = train_the_record(names, loaders, config["seed"], lambda model: check_start(verdict, start, model))

    ours, parameters = a.model.state_dict(), dict(a.model.named_parameters())
    theirs = torch.tensor(names["losses"], dtype=torch.float64)
    largest = relative(torch.tensor(losses, dtype=torch.float64), theirs)
    verdict.note("losses", largest, ROUNDING, f"{len(losses)} steps, from {theirs[0]:.3f} to {theirs[-1]:.3f}")
    verdict.largest("last parameters", pairs(ours, model, lambda name: name in parameters), ROUNDING)
    verdict.largest("last running statistics", pairs(ours, model, lambda name: "running" in name), ROUNDING)
    a.model.eval()
    for views, level in ((False, 0), (True, 2)):
        outputs = torch.cat([outputs for outputs, _ in a.evaluator("test", views=views).forward(a.model)])
        theirs = names["infer"](model, loaders[1], level)
        verdict.note(f"test outputs, {'six views' if views else 'one view'}", relative(outputs, theirs), ROUNDING)
    return verdict.fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--airbench", type=Path, required=True, help="its airbench94_muon.py")
    parser.add_argument("--batch", type=int, default=50, help="images in a step")
    parser.add_argument("words", nargs="*", help="of dlrun, beside experiment=cifar10_94")
    arguments = parser.parse_args()
    words = ["trainer.device=cpu", "trainer.precision=fp32", "trainer.compile=false"]
    words = ["experiment=cifar10_94", f"data.batch_size={arguments.batch}", *words, *arguments.words]
    fine = compare(load(arguments.airbench), compose(words).config, arguments.batch)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
