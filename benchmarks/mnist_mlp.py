"""One epoch of an MLP 784-128-128-128-10 on MNIST: dlrun beside the bare arithmetic, a DataLoader loop and Lightning.

    DLRUN_DATA=data python benchmarks/mnist_mlp.py --batch 128 4096 --rounds 5 --json benchmarks/results/mnist_mlp.json

Each arm trains the same model with the same fused AdamW on the same 54,000 images; the arms take turns, round by
round, and medians and ratios are given. `arithmetic` repeats one batch that lies ready, and so shows what no data path
can beat. dlrun is the product's own loop with everything it does by default: shuffling, normalising, loss and
accuracy of training, logging, schedule. Lightning (pip install lightning) is left out when it is not installed.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import alternate, compared, machine, show, write
from torch import nn
from torch.utils.data import DataLoader, Subset

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine.loop import fit

COUNT = 54_000
Arm = Callable[[], float]


def make_model() -> nn.Sequential:
    """The network of every arm."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in ((784, 128), (128, 128), (128, 128)):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)


def arithmetic(batch_size: int) -> Arm:
    """Forward, backward and update on one batch, as often as an epoch has batches."""
    model = make_model()
    optimizer = make_optimizer(model)
    full, rest = divmod(COUNT, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    ready = {size: (torch.randn(size, 1, 28, 28), torch.randint(10, (size,))) for size in set(sizes)}

    def epoch() -> float:
        began = time.perf_counter()
        for size in sizes:
            images, labels = ready[size]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        return time.perf_counter() - began

    return epoch


def torchvision_data(batch_size: int, workers: int) -> DataLoader[Any]:
    """What tutorials write."""
    from torchvision import datasets, transforms

    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dlrun-benchmarks"
    raw = cache / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for packed in (Path(os.environ["DLRUN_DATA"]) / "MNIST" / "raw").glob("*.gz"):
        if not (raw / packed.name).exists():
            (raw / packed.name).write_bytes(packed.read_bytes())
    data = datasets.MNIST(str(cache), train=True, download=True, transform=normalise)
    return DataLoader(
        Subset(data, range(COUNT)), batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def dataloader_loop(batch_size: int, workers: int) -> Arm:
    """The hand-written loop over torchvision's DataLoader."""
    model = make_model()
    optimizer = make_optimizer(model)
    loader = torchvision_data(batch_size, workers)

    def epoch() -> float:
        began = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        return time.perf_counter() - began

    return epoch


def lightning(batch_size: int, workers: int) -> Arm | None:
    """Lightning's Trainer over the same DataLoader, its bars, logs and checkpoints switched off."""
    try:
        import lightning as pl
    except ImportError:
        return None
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()

        def training_step(self, batch: Any, _: int) -> Any:
            images, labels = batch
            return nn.functional.cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> Any:
            return make_optimizer(self)

        def on_train_epoch_start(self) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds = time.perf_counter() - self.began

    module, loader = Module(), torchvision_data(batch_size, workers)

    def epoch() -> float:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **quiet)
        trainer.fit(module, loader)
        return float(module.seconds)

    return epoch


def dlrun_arm(batch_size: int) -> Arm:
    """dlrun's own loop over one epoch, without the validation at its end."""
    words = [
        "data=mnist",
        "model.widths=[128,128,128]",
        "model.norm=none",
        "trainer.epochs=1",
        "trainer.precision=fp32",
    ]
    config = compose([*words, f"data.batch_size={batch_size}"]).config
    a = assembly.assemble(config)

    def epoch() -> float:
        training = assembly.prepare_training(a, lambda record: None, ())
        fit(training)
        return training.seconds - training.validation_seconds

    return epoch


def measure(batch_size: int, rounds: int, peers: bool, keep: Callable[[dict[str, Any]], None]) -> None:
    """Seconds per epoch of each arm, in turn; `keep` receives what is known after each round."""
    arms: dict[str, Arm | None] = {
        "dlrun": dlrun_arm(batch_size),
        "arithmetic": arithmetic(batch_size),
    }
    if peers:
        arms |= {
            "dataloader": dataloader_loop(batch_size, 0),
            "dataloader, 2 workers": dataloader_loop(batch_size, 2),
            "lightning": lightning(batch_size, 0),
            "lightning, 2 workers": lightning(batch_size, 2),
        }
    name = f"batch {batch_size}"
    present = {arm: run for arm, run in arms.items() if run is not None}
    times = alternate(present, rounds, after=lambda times: keep({name: {"arms": compared(times)}}))
    show(f"{name}, one epoch, {rounds} rounds", compared(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-peers", action="store_true", help="dlrun and the arithmetic alone")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()

    def keep(entry: dict[str, Any]) -> None:
        if words.json:
            write(words.json, machine() | entry, said=False)

    for batch_size in words.batch:
        measure(batch_size, words.rounds, not words.without_peers, keep)


if __name__ == "__main__":
    main()
