"""Is `experiment=shakespeare_nanogpt` nanoGPT's own recipe? Both on the CPU: what they start from, and step by step.

    DLRUN_DATA=data python benchmarks/nanogpt_check.py --nanogpt nanoGPT

`--nanogpt` is a folder with train.py, model.py and config/train_shakespeare_char.py of github.com/karpathy/nanoGPT,
unchanged. Its settings, schedule, model and optimizer are taken from these files; written again here are only the few
lines of a step.

At full size: the number of parameters, which of them decay, the learning rate of every step, and the deviation of each
kind of weights at the start, both from their own seeds.
In miniature: both models get the same weights, the same batches, and before each step the same seed: dropout at other
places, of other shapes or in another order would draw other numbers. Of the first step it is said whether loss and
gradients agree to the bit, with autocast to bf16 too; of a whole schedule, a third of it the warm-up, the largest
relative differences of loss, learning rate and parameters (norm of the difference over the norm). float64 tells another
computation from another rounding. Then both validate, each in its way.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun import assembly
from dlrun.config.compose import compose
from dlrun.engine.training import Training

RECIPE = "experiment=shakespeare_nanogpt"
SETTINGS = "config/train_shakespeare_char.py"
MINIATURE = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 64, "batch_size": 8}
MINIATURE_WORDS = ["model.depth=2", "model.heads=2", "model.width=64", "data.context=64", "data.batch_size=8"]
CASES = (  # number format, type of the weights, dropout
    ("fp32", torch.float32, 0.0),
    ("fp32", torch.float64, 0.0),
    ("fp32", torch.float64, 0.2),
    ("bf16", torch.float32, 0.2),
)

Pair = tuple[str, Tensor, Tensor]  # dlrun's layer, its parameter, and nanoGPT's

TENSORS = {"embedding": "wte.weight", "stack.positions": "wpe.weight", "stack.norm": "ln_f.weight"}
LAYERS = {  # of a block
    "attention.norm": "ln_1",
    "attention.inner.qkv": "attn.c_attn",
    "attention.inner.output": "attn.c_proj",
    "feed_forward.norm": "ln_2",
    "feed_forward.inner.hidden": "mlp.c_fc",
    "feed_forward.inner.output": "mlp.c_proj",
}


class NanoGPT:
    """What a folder with nanoGPT's files says: `settings`, a model of that size, and its optimizer."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, **changed: Any) -> None:
        body = ast.parse((folder / "train.py").read_text()).body
        constants = itertools.takewhile(lambda node: "config_keys" not in ast.unparse(node), body)
        self.settings = self._run(node for node in constants if isinstance(node, ast.Assign))
        exec((folder / SETTINGS).read_text(), self.settings)
        self.settings |= {"math": math, **changed}
        self.settings = self._run(node for node in body if getattr(node, "name", "") == "get_lr")
        s = self.settings
        sys.path.insert(0, str(folder))
        from model import GPT, GPTConfig

        sizes = {key: s[key] for key in ("block_size", "n_layer", "n_head", "n_embd", "dropout", "bias")}
        with contextlib.redirect_stdout(io.StringIO()):
            self.model: Any = GPT(GPTConfig(vocab_size=65, **sizes)).to(dtype)
            betas = s["beta1"], s["beta2"]
            # Of the device it asks only whether to take the fused kernel, which is the one on a GPU.
            self.optimizer = self.model.configure_optimizers(s["weight_decay"], s["learning_rate"], betas, "cuda")

    def _run(self, nodes: Iterator[ast.stmt]) -> dict[str, Any]:
        """The variables after these statements of train.py."""
        variables = dict(getattr(self, "settings", {"torch": torch}))
        exec(compile(ast.Module(list(nodes), []), "train.py", "exec"), variables)
        return variables

    def rate(self, step: int) -> float:
        return float(self.settings["get_lr"](step))

    def loss(self, batch: Any, precision: str) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            result: Tensor = self.model(batch.inputs, batch.targets)[1]
        return result

    def step(self, rate: float, batch: Any) -> tuple[float, bool]:
        """As in train.py, with one micro-batch. Returns: the loss, and whether gradients were clipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(batch, "fp32")
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["grad_clip"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), norm.item() > self.settings["grad_clip"]


def training(words: list[str], dtype: torch.dtype = torch.float32) -> Training:
    """dlrun's training by the recipe on the CPU."""
    a = assembly.assemble(compose([RECIPE, "trainer.device=cpu", *words]).config)
    a.model.to(dtype)
    return assembly.prepare_training(a, lambda record: None, ())


def pairs(ours: nn.Module, theirs: nn.Module, depth: int) -> list[Pair]:
    """Every parameter of either."""
    names = {mine: f"transformer.{its}" for mine, its in TENSORS.items()}
    for i in range(depth):
        names |= {f"stack.blocks.{i}.{mine}": f"transformer.h.{i}.{its}.weight" for mine, its in LAYERS.items()}
    here = {name.rpartition(".")[0]: p for name, p in ours.named_parameters()}
    there = dict(theirs.named_parameters())
    assert (set(here), set(there)) == (set(names), set(names.values()))
    assert all(here[mine].shape == there[its].shape for mine, its in names.items())
    return [(mine, here[mine], there[its]) for mine, its in names.items()]


def full_size(folder: Path) -> None:
    """Sizes, what decays, the schedule, and the start."""
    torch.manual_seed(1337)
    nanogpt, t = NanoGPT(folder), training([])
    step, depth = t.train_step, nanogpt.settings["n_layer"]
    together = pairs(step.model, nanogpt.model, depth)
    count = sum(p.numel() for p in step.model.parameters()) - nanogpt.settings["block_size"] * together[0][1].shape[1]
    print(f"parameters without positions: dlrun {count:,}, nanoGPT {nanogpt.model.get_num_params():,}")
    here, there = treatment(step.optimizer), treatment(nanogpt.optimizer)
    different = [name for name, mine, its in together if here[id(mine)] != there[id(its)]]
    print(f"weight decay, betas and eps of {len(together)} tensors: different in {different or 'none'}")
    far = 0.0
    for number in range(t.total_steps):
        far = max(far, relative(step.schedule.lrs[0], nanogpt.rate(number)))
        step.schedule.step()
    print(f"learning rate of {t.total_steps:,} steps: largest relative difference {far:.1e}")
    print("deviation at the start           dlrun   nanoGPT  difference in standard errors")
    for kind in (*TENSORS, *LAYERS):
        members = [(mine, its) for name, mine, its in together if name.endswith(kind)]
        mine, its = (torch.cat([pair[i].detach().flatten() for pair in members]) for i in (0, 1))
        error = its.std() / math.sqrt(len(its))  # of a difference of two deviations of so many normal numbers
        apart = (mine.std() - its.std()) / error if error else mine.std() - its.std()
        print(f"  {kind:<27} {mine.std():9.6f} {its.std():9.6f}  {apart:+.1f}")


def treatment(optimizer: Any) -> dict[int, tuple[Any, ...]]:
    keys = ("weight_decay", "betas", "eps", "amsgrad")
    return {id(p): tuple(group[key] for key in keys) for group in optimizer.param_groups for p in group["params"]}


def relative(mine: float, its: float) -> float:
    return abs(mine - its) / abs(its)


def in_miniature(folder: Path, count: int, precision: str, dtype: torch.dtype, dropout: float) -> None:
    """Both from the same weights: the first step, and in full precision `count` steps."""
    warmup = count // 3
    nanogpt = NanoGPT(folder, dtype, **MINIATURE, dropout=dropout, warmup_iters=warmup, lr_decay_iters=count)
    words = [*MINIATURE_WORDS, f"trainer.max_steps={count}", f"scheduler.warmup={warmup}"]
    words += [f"model.dropout={dropout}", f"model.attention_dropout={dropout}", f"trainer.precision={precision}"]
    t = training(words, dtype)
    together = pairs(t.train_step.model, nanogpt.model, MINIATURE["n_layer"])
    with torch.no_grad():
        for _, mine, its in together:
            mine.copy_(its)
    t.train_step.model.train()
    print(
        f"\nin miniature, weights in {str(dtype).removeprefix('torch.')}, computed in {precision}, dropout {dropout:g}"
    )
    first = next(iter(t.loader.epoch(0)))
    print(f"  first loss and gradients: {first_step(t, nanogpt, together, first, precision)}")
    if precision == "fp32":
        trajectory(t, nanogpt, together)
        validate(t, nanogpt)


def first_step(t: Training, nanogpt: NanoGPT, together: list[Pair], batch: Any, precision: str) -> str:
    """Loss and gradients before the first update."""
    torch.manual_seed(0)
    with t.train_step.precision.autocast():
        here = t.train_step.objective(t.train_step.model(*batch.arguments), batch, None)
    torch.manual_seed(0)
    there = nanogpt.loss(batch, precision)
    here.backward()
    there.backward()
    gradients = [(mine.grad, its.grad) for _, mine, its in together]
    differ = sum(mine is None or its is None or not torch.equal(mine, its) for mine, its in gradients)
    t.train_step.model.zero_grad()
    nanogpt.model.zero_grad()
    return (
        f"{here.item():.6f} and {there.item():.6f}, {len(together) - differ} of {len(together)} gradients bit for bit"
    )


def trajectory(t: Training, nanogpt: NanoGPT, together: list[Pair]) -> None:
    """Both over the whole schedule."""
    losses, clipped = [], 0
    far = {"loss": 0.0, "learning rate": 0.0, "parameters": 0.0}
    for step, batch in zip(range(t.total_steps), t.loader.epoch(0), strict=False):
        rates = t.train_step.schedule.lrs
        torch.manual_seed(step)
        here = t.train_step(batch).item()
        torch.manual_seed(step)
        there, was_clipped = nanogpt.step(nanogpt.rate(step), batch)
        losses.append(there)
        clipped += was_clipped
        apart = {
            "loss": relative(here, there),
            "learning rate": max(relative(rate, nanogpt.rate(step)) for rate in rates),
            "parameters": max(float((mine - its).detach().norm() / its.detach().norm()) for _, mine, its in together),
        }
        far = {key: max(far[key], apart[key]) for key in far}
    print(f"  {len(losses)} steps: loss from {losses[0]:.4f} to {losses[-1]:.4f}, gradients clipped in {clipped}")
    print(f"  largest relative differences: {', '.join(f'{key} {value:.1e}' for key, value in far.items())}")


@torch.no_grad()
def validate(t: Training, nanogpt: NanoGPT) -> None:
    """dlrun reads the held-out text once, in windows end to end; nanoGPT draws batches of windows from anywhere."""
    examples: Any = t.validate.examples  # type: ignore[attr-defined]
    text, length, count = examples.text.long(), examples.length, nanogpt.settings["eval_iters"]
    nanogpt.model.eval()
    torch.manual_seed(0)
    starts = torch.randint(len(text) - length, (count, MINIATURE["batch_size"]))
    windows = text[starts[..., None] + torch.arange(length + 1)]
    estimate = torch.tensor([nanogpt.model(w[:, :-1], w[:, 1:].contiguous())[1].item() for w in windows])
    print(
        f"  validation: dlrun {t.validate(t.train_step.model)['loss']:.4f}, nanoGPT's estimate {estimate.mean():.4f} "
        f"with a standard error of {estimate.std() / math.sqrt(count):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, default=Path("nanoGPT"))
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    full_size(options.nanogpt.absolute())
    for precision, dtype, dropout in CASES:
        in_miniature(options.nanogpt.absolute(), options.steps, precision, dtype, dropout)


if __name__ == "__main__":
    main()
