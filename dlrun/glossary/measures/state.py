"""What must be kept to go on as if nothing had happened: a training, stopped half-way and continued from copies."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.glossary.figures import label, panels, styles
from dlrun.glossary.measure import Measured
from dlrun.glossary.measures.common import Words, optimizer, schedule

HALF, STEPS, EXAMPLES = 60, 120, 64
ADAM: Words = ("optimizer=adam", "optimizer.lr=0.01")
EVERYTHING = frozenset({"model", "optimizer", "schedule", "random"})


class Small:
    """A network with dropout and batch norm, its optimizer and a cosine schedule, on data that are always the same."""

    def __init__(self, words: Words, dropout: float = 0.3) -> None:
        torch.manual_seed(0)
        self.inputs = torch.randn(STEPS, EXAMPLES, 8)
        self.targets = self.inputs.sum(2, keepdim=True).tanh() + 0.1 * torch.randn(STEPS, EXAMPLES, 1)
        parts = [nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 1)]
        self.model = nn.Sequential(*parts)
        self.optimizer = optimizer(words, self.model)
        self.schedule = schedule([*words, "scheduler=cosine", "scheduler.warmup=0"], self.optimizer, STEPS, STEPS)

    def steps(self, first: int, last: int) -> list[float]:
        """Train from one step to another. Returns: the loss of each, without dropout."""
        losses = []
        for step in range(first, last):
            self.optimizer.zero_grad()
            nn.functional.mse_loss(self.model(self.inputs[step]), self.targets[step]).backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(self.loss())
        return losses

    def loss(self) -> float:
        self.model.eval()
        with torch.no_grad():
            value = nn.functional.mse_loss(self.model(self.inputs[:8].flatten(0, 1)), self.targets[:8].flatten(0, 1))
        self.model.train()
        return float(value)

    def save(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy({**state, "schedule": self.schedule.state_dict(), "random": torch.get_rng_state()})

    def load(self, state: dict[str, Any], parts: Collection[str]) -> None:
        self.model.load_state_dict(state["model"])
        if "optimizer" in parts:
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if "schedule" in parts:
            self.schedule.load_state_dict(state["schedule"])
        if "random" in parts:
            torch.set_rng_state(state["random"])

    @property
    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def resumed(words: Words, parts: Collection[str], dropout: float = 0.3) -> tuple[float, list[float], list[float]]:
    """Train to the end; then again from half-way with some parts of the state.

    Returns: the largest difference between the weights at the end, and the losses of both second halves.
    """
    whole = Small(words, dropout)
    whole.steps(0, HALF)
    state = whole.save()
    straight = whole.steps(HALF, STEPS)
    again = Small(words, dropout)
    torch.manual_seed(99)  # what another process would have
    again.load(state, parts)
    losses = again.steps(HALF, STEPS)
    return float((whole.weights - again.weights).abs().max()), straight, losses


def checkpoint(
    words: Words = ADAM, everything: Collection[str] = EVERYTHING, code: Collection[str] = ("model", "optimizer")
) -> Measured:
    """Continuing from the example's two parts or the three of the sentence, where nothing is drawn; from all."""
    named = {"model", "optimizer", "schedule"}
    still = {"model, optimizer": resumed(words, code, dropout=0.0), "and scheduler": resumed(words, named, dropout=0.0)}
    drawn = {"model, optimizer, scheduler": resumed(words, named), "and random generator": resumed(words, everything)}
    figure, both = panels("Stopped at step 60 and continued from a checkpoint of …", 2)
    for axes, found, title in zip(both, (still, drawn), ("without dropout", "with dropout"), strict=True):
        line = styles()
        straight = next(iter(found.values()))[1]
        axes.plot(range(HALF, STEPS), straight, **{**next(line), "linewidth": 4, "alpha": 0.35}, label="never stopped")
        for name, (_, _, losses) in found.items():
            axes.plot(range(HALF, STEPS), losses, **next(line), label=name)
        label(axes, "optimizer step", "loss", title)
    differences = [difference for found in (still, drawn) for difference, _, _ in found.values()]
    names = ("code_difference", "named_no_dropout", "named_difference", "everything_difference")
    return Measured(dict(zip(names, differences, strict=True)), figure)


def optimizer_state(words: Words = ADAM, everything: Collection[str] = EVERYTHING) -> Measured:
    """What is in it, and what a run loses that continues without it: Adam, momentum, plain SGD."""
    chosen: dict[str, Words] = {
        "adam": words,
        "momentum": ("optimizer=momentum", "optimizer.lr=0.05"),
        "sgd": ("optimizer=sgd", "optimizer.lr=0.05"),
    }
    with_it = {name: resumed(each, everything) for name, each in chosen.items()}
    without = {name: resumed(each, set(everything) - {"optimizer"}) for name, each in chosen.items()}
    figure, all_axes = panels("Continued at step 60 without the optimizer's state", 3, width=3.4)
    for axes, name in zip(all_axes, chosen, strict=True):
        line = styles()
        axes.plot(
            range(HALF, STEPS), with_it[name][2], **{**next(line), "linewidth": 3.5, "alpha": 0.5}, label="with it"
        )
        axes.plot(range(HALF, STEPS), without[name][2], **next(line), label="without it")
        label(axes, "optimizer step", "loss", name)
    worst = max(w / s - 1 for w, s in zip(without["adam"][2][:10], with_it["adam"][2][:10], strict=True))
    return Measured(
        {
            **{f"{name}_with": with_it[name][0] for name in chosen},
            **{f"{name}_without": without[name][0] for name in chosen},
            **contents(words),
            "loss_rise": 100 * worst,
        },
        figure,
    )


def contents(words: Words = ADAM) -> dict[str, float]:
    """Which of Adam's moments, counter and settings are in the state, 1 or 0."""
    made = Small(words)
    made.steps(0, 1)
    state = made.optimizer.state_dict()
    keys = {key for each in state["state"].values() for key in each}
    return {
        "moments": float({"exp_avg", "exp_avg_sq"} <= keys),
        "counter": float("step" in keys),
        "settings": float("lr" in state["param_groups"][0]),
    }


def model_state(drop: Collection[str] = ()) -> Measured:
    """Parameters and buffers; that loading it gives the same outputs; and what is lost with parameters alone.

    Args:
        drop: keys that are lost on the way, to see the verdict turn.
    """
    trained, other = Small(ADAM), Small(ADAM)
    trained.steps(0, HALF)
    state = trained.model.state_dict()
    parameters = dict(trained.model.named_parameters())
    x = trained.inputs[0]
    nn.init.normal_(other.model[0].weight)  # type: ignore[arg-type]
    other.model.load_state_dict({k: v for k, v in state.items() if k not in drop}, strict=False)
    alone = Small(ADAM)
    alone.model.load_state_dict({k: v for k, v in state.items() if k in parameters}, strict=False)
    outputs = []
    for each in (trained, other, alone):
        each.model.eval()
        outputs.append(each.model(x).detach())
    figure, (axes,) = panels("A model restored from …, beside the one that was trained")
    order = np.argsort(outputs[0][:, 0].numpy())
    line = styles(marker=True)
    for name, values in (("all of its state dict", outputs[1]), ("its parameters alone", outputs[2])):
        axes.plot(outputs[0][order, 0], values[order, 0], **{**next(line), "linestyle": ""}, label=name)
    label(axes, "output of the trained model", "output of the restored model")
    return Measured(
        {
            "parameters": float(len(parameters)),
            "parameters_held": float(sum(name in state for name in parameters)),
            "missing": float(sum(name not in state for name in parameters)),
            "others": float(len(set(state) - set(parameters))),
            "restored_error": float((outputs[0] - outputs[1]).abs().max()),
            "parameters_only_error": float((outputs[0] - outputs[2]).abs().max()),
        },
        figure,
    )
