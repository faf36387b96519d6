"""Metrics of outputs that are tokens: how surprised a language model is, and how often a sequence comes out right.

outputs (B, T, K); targets (B, T), `IGNORED` where none counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dlrun.contracts import IGNORED
from dlrun.metrics.sums import counts, ratio, sums

LARGEST_EXPONENT = 709.0  # of e, in float64


class LanguageModel:
    """Token accuracy, perplexity and bits per token over all tokens that count.

    With H the mean of -ln p(token), perplexity is e^H and bits are H / ln 2, whatever the loss is: label smoothing,
    weights of classes and batches of different lengths change neither.

    Args:
        unit: what a token is: the bits are named bits_per_character, bits_per_word or bits_per_token.
    """

    def __init__(self, unit: Literal["character", "word", "token"] = "token") -> None:
        self.bits = f"bits_per_{unit}"
        self.names: Sequence[str] = ("token_accuracy", "perplexity", self.bits)
        self.higher_is_better = {"token_accuracy": True, "perplexity": False, self.bits: False}

    def reset(self, device: torch.device) -> None:
        self.totals = sums(3, device=device)
        self.correct, self.surprise, self.count = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.correct += (outputs.argmax(-1) == targets).sum()
        rows = outputs.detach().reshape(-1, outputs.shape[-1]).float()
        self.surprise += F.cross_entropy(rows, targets.reshape(-1), ignore_index=IGNORED, reduction="sum")
        self.count += (targets != IGNORED).sum()

    def compute(self) -> dict[str, float]:
        correct, surprise, count = self.totals.tolist()
        mean = surprise / count if count else math.nan
        perplexity = math.inf if mean > LARGEST_EXPONENT else math.exp(mean)
        return {"token_accuracy": ratio(correct, count), "perplexity": perplexity, self.bits: mean / math.log(2)}


class Translation:
    """Token accuracy, and the share of examples that greedy decoding gets exactly right.

    The outputs are those under teacher forcing: position t sees the true tokens before it. Yet an example whose every
    largest output is the target is exactly one that greedy decoding, which sees its own tokens, gets right. By
    induction over t: if the tokens before t have been decoded right, then decoding sees at t what teacher forcing
    sees, so the outputs are equal and so is the largest one. Hence if all are right, so is the decoded sequence, which
    ends where the target does, as the end mark is one of its tokens; and the first token that is not right is decoded
    wrong as well. It holds for every model whose outputs at t depend on the source and the tokens before t alone.
    While training the weights change and dropout acts, so there it is a measure of progress, not of decoding.
    """

    names: Sequence[str] = ("token_accuracy", "exact_match")
    higher_is_better = {"token_accuracy": True, "exact_match": True}  # noqa: RUF012

    def reset(self, device: torch.device) -> None:
        self.totals = counts(4, device)
        self.right, self.tokens, self.exact, self.examples = self.totals.unbind()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        right, ignored = outputs.argmax(-1) == targets, targets == IGNORED
        self.right += right.sum()
        self.tokens += (~ignored).sum()
        self.exact += (right | ignored).all(-1).sum()
        self.examples += len(targets)

    def compute(self) -> dict[str, float]:
        right, tokens, exact, examples = self.totals.tolist()
        return {"token_accuracy": ratio(right, tokens), "exact_match": ratio(exact, examples)}
