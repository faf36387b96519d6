"""A course notebook's training, 200 and 4000 epochs of a small MLP on MNIST: dlrun beside the notebook's own loop.

    DLRUN_DATA=data python benchmarks/notebook.py --limit 300 --json benchmarks/results/notebook.json
    DLRUN_DATA=data python benchmarks/notebook.py --device cpu --batch 128 4096 --epochs 5 --limit 600

Every arm trains 784-128-128-128-10 with leaky ReLU by plain SGD on 60,000 images and validates on 5,000 every 5 epochs:

- dlrun: `experiment=mnist_notebook` in one process, after a run of 5 epochs that warms it up; seconds of the loop with
  its validations and records, and of all of `train`: data, model, test, plot.
- process: the command `dlrun train experiment=mnist_notebook`, from its start to its end.
- notebook: a list of one tensor per image on the device, DataLoader(shuffle=True), the plain loop. It is timed over
  `--notebook-epochs` and extrapolated to `--epochs`. On the CPU this is generous to the notebook, which decodes and
  converts each image anew there.
- arithmetic: the steps alone, on one batch that lies ready; timed over a few epochs and extrapolated. On a GPU also
  with the step captured as a CUDA graph.

Each arm is a process of its own under what is left of `--limit`; results are printed and written as they come, and an
arm that fails is noted and leaves the others alone.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

COUNT, HELD = 60_000, 5_000
VALIDATE_EVERY = 5  # epochs
WARM_UP = 5  # epochs
Result = dict[str, Any]


def train_once(words: list[str]) -> Result:
    """One run of the recipe in this process."""
    from dlrun.config.compose import compose
    from dlrun.experiment import train
    from dlrun.runs.console import Console

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = train(compose([*words, f"hydra.run.dir={folder}/run"]), Console(interactive=False))
        seconds = time.perf_counter() - began
        summary = run.read_json(run.summary)
    return {
        "status": summary["status"],
        "loop_seconds": summary["seconds"],
        "train_seconds": round(seconds, 3),
        "metrics": summary["metrics"],
    }


def recipe(options: argparse.Namespace) -> list[str]:
    batch, device = options.batch[0], options.device
    return ["experiment=mnist_notebook", f"data.batch_size={batch}", f"trainer.device={device}", *options.words]


def dlrun_arm(options: argparse.Namespace) -> Iterator[Result]:
    train_once([*recipe(options), f"trainer.epochs={WARM_UP}"])
    for epochs in options.epochs:
        for _ in range(options.rounds if epochs <= 200 else 1):
            yield {"epochs": epochs, **train_once([*recipe(options), f"trainer.epochs={epochs}"])}


def process_arm(options: argparse.Namespace) -> Iterator[Result]:
    for epochs in options.epochs:
        for _ in range(options.rounds if epochs <= 200 else 1):
            with tempfile.TemporaryDirectory() as folder:
                words = [*recipe(options), f"trainer.epochs={epochs}", f"hydra.run.dir={folder}/run"]
                began = time.perf_counter()
                command = [sys.executable, "-m", "dlrun", "train", *words]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                seconds = time.perf_counter() - began
                if done.returncode:
                    raise RuntimeError(done.stdout[-600:])
                loop = json.loads(Path(folder, "run", "summary.json").read_text())["seconds"]
            yield {"epochs": epochs, "process_seconds": round(seconds, 3), "loop_seconds": loop}


def network(device: Any) -> Any:
    from torch import nn

    widths = (784, 128, 128, 128)
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(3):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10)).to(device)


def notebook_arm(options: argparse.Namespace) -> Iterator[Result]:
    """One tensor per example, collated by DataLoader; every loss kept, read at the end of the epoch."""
    import torch
    from torch.utils.data import DataLoader

    from dlrun.data.vision import mnist

    device, batch = chosen_device(options), options.batch[0]
    splits = mnist(root=os.environ["DLRUN_DATA"], download=False)

    def examples(part: Any, count: int) -> list[Any]:
        images, labels = part.inputs[:count].float() / 255, part.targets[:count]
        return [(x.to(device), y.to(device)) for x, y in zip(images, labels, strict=True)]

    began = time.perf_counter()
    train, held = examples(splits.train, COUNT), examples(splits.test, HELD)
    wait(device)
    moving = time.perf_counter() - began
    loader, validation = DataLoader(train, batch, shuffle=True), DataLoader(held, batch, shuffle=True)
    model, loss_of = network(device), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def epoch(number: int) -> float:
        began, losses = time.perf_counter(), []
        for images, labels in loader:
            outputs = model(images)
            optimizer.zero_grad()
            loss = loss_of(outputs, labels)
            loss.backward()
            losses.append(loss.clone().detach())
            optimizer.step()
        torch.tensor(losses).mean()
        if number % VALIDATE_EVERY == 0:
            correct, losses = torch.zeros((), device=device), []
            with torch.no_grad():
                for images, labels in validation:
                    outputs = model(images)
                    losses.append(loss_of(outputs, labels))
                    correct += (outputs.argmax(-1) == labels).sum()
            float(correct), torch.tensor(losses).mean()
        wait(device)
        return time.perf_counter() - began

    epoch(1)  # warm-up
    yield from extrapolated(options, [epoch(i) for i in range(options.notebook_epochs)], {"moving_seconds": moving})


def arithmetic_arm(options: argparse.Namespace) -> Iterator[Result]:
    """As many steps as an epoch has on batches that lie ready."""
    import torch

    device, batch = chosen_device(options), options.batch[0]
    model, loss_of = network(device), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, fused=True)
    whole, rest = divmod(COUNT, batch)
    ready = {
        size: (torch.rand(size, 1, 28, 28, device=device), torch.randint(10, (size,), device=device))
        for size in (batch, rest)
        if size
    }

    def step(size: int) -> None:
        images, labels = ready[size]
        optimizer.zero_grad()
        loss_of(model(images), labels).backward()
        optimizer.step()

    def epoch(steps: dict[int, Callable[[], object]]) -> float:
        began = time.perf_counter()
        for _ in range(whole):
            steps[batch]()
        if rest:
            steps[rest]()
        wait(device)
        return time.perf_counter() - began

    eager = {size: (lambda size=size: step(size)) for size in ready}
    epoch(eager)  # warm-up
    yield from extrapolated(options, [epoch(eager) for _ in range(options.notebook_epochs)], {"kind": "eager"})
    if device.type == "cuda":
        graphs = {}
        for size in ready:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step(size)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step(size)
            graphs[size] = graph.replay
        epoch(graphs)
        yield from extrapolated(options, [epoch(graphs) for _ in range(50)], {"kind": "graph"})


def extrapolated(options: argparse.Namespace, seconds: list[float], more: Result) -> Iterator[Result]:
    """The mean of the epochs measured, times the epochs asked for."""
    each = statistics.mean(seconds)
    for epochs in options.epochs:
        yield {
            "epochs": epochs,
            "extrapolated_seconds": round(each * epochs, 3),
            "from_epochs": len(seconds),
            "seconds_per_epoch": {"mean": each, "min": min(seconds), "max": max(seconds)},
            **more,
        }


def chosen_device(options: argparse.Namespace) -> Any:
    from dlrun.engine.device import choose_device

    return choose_device(options.device)


def wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


ARMS: dict[str, Callable[[argparse.Namespace], Iterator[Result]]] = {
    "dlrun": dlrun_arm,
    "arithmetic": arithmetic_arm,
    "notebook": notebook_arm,
    "process": process_arm,
}


def child(options: argparse.Namespace) -> None:
    """Run one arm and add a line to `--lines` for each result."""
    with Path(options.lines).open("a") as lines:
        for result in ARMS[options.arm](options):
            lines.write(json.dumps(result) + "\n")
            lines.flush()


def machine() -> Result:
    import torch

    cuda = torch.cuda.is_available()
    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, nargs="+", default=[4096])
    parser.add_argument("--epochs", type=int, nargs="+", default=[200, 4000])
    parser.add_argument("--notebook-epochs", type=int, default=10, help="timed, of the notebook and the arithmetic")
    parser.add_argument("--rounds", type=int, default=3, help="of 200 epochs and fewer")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--words", nargs="*", default=[], help="overrides of the recipe, such as trainer.precision=tf32"
    )
    parser.add_argument("--limit", type=float, default=600, help="seconds for everything")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--lines", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        child(options)
        return
    end = time.monotonic() + options.limit
    report: Result = {**machine(), "command": " ".join(sys.argv), "results": []}
    for batch in options.batch:
        for arm in options.arms:
            for result in run_arm(arm, batch, options, end):
                report["results"].append({"arm": arm, "batch": batch, **result})
                print(json.dumps(report["results"][-1]), flush=True)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(report, indent=1) + "\n")


def run_arm(arm: str, batch: int, options: argparse.Namespace, end: float) -> list[Result]:
    """An arm in a process of its own. Returns: what it measured, and if it failed the end of what it said."""
    left = end - time.monotonic()
    if left < 5:
        return [{"error": "ended before its limit of steps"}]
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines")
        words = [sys.executable, __file__, "--arm", arm, "--lines", str(lines), "--batch", str(batch)]
        words += ["--device", options.device, "--epochs", *map(str, options.epochs), "--rounds", str(options.rounds)]
        words += ["--notebook-epochs", str(options.notebook_epochs)]
        words += ["--words", *options.words] if options.words else []
        # A session of its own, to be ended with whatever it has started.
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            said = process.communicate(timeout=left)[1]
            error = said[-800:] if process.returncode else ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            error = f"stopped after {left:.0f} s"
        results = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return [*results, {"error": error}] if error else results


if __name__ == "__main__":
    main()
