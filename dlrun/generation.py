"""Tokens one after the other: continuing a text, translating a sentence.

Every model of tokens can do it; one that keeps a state, as `dlrun.contracts.Continues` says, does it fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.contracts import BOS_ID, EOS_ID


class Sampler:
    """Draws tokens from logits; see `__call__`.

    Args:
        temperature: divides the logits; below 1 the likely becomes likelier. 0 always takes the likeliest.
        top_k: draw among so many of the likeliest only; None: among all.
        seed: of the draws, which are made on the CPU: equal logits give equal texts on every device.
        banned: tokens that are never drawn, such as padding.
    """

    def __init__(self, temperature: float = 1.0, top_k: int | None = None, seed: int = 0, banned: Sequence[int] = ()):
        self.temperature, self.top_k = temperature, top_k
        self.banned = torch.tensor(banned, dtype=torch.long)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to tokens (B,) on the same device."""
        scores = logits.detach().float().cpu().index_fill(1, self.banned, -torch.inf)
        if self.temperature == 0:
            return scores.argmax(-1).to(logits.device)
        if self.top_k is not None and self.top_k < scores.shape[1]:
            lowest = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < lowest, -torch.inf)
        p = (scores / self.temperature).softmax(-1)
        return torch.multinomial(p, 1, generator=self.generator).squeeze(1).to(logits.device)


def continuation(model: nn.Module, prompt: Tensor, sampler: Sampler, context: int | None = None) -> Iterator[Tensor]:
    """What a language model says after `prompt`, token by token, without end.

    A model that has `step` (`dlrun.contracts.Continues`) is fed each token once. When it has been fed as many as its
    `max_length`, if it has one, it begins anew from the last half of them. Any other model sees the last `context`
    tokens again and again, one more each time.

    Args:
        model: in evaluation mode.
        prompt: (B, T) tokens, T at least 1, of which the model sees the last `max_length` or `context` at the most.
        context: how many tokens a model without `step` and without `max_length` sees; None: all.

    Yields: (B,) the next token of each text.
    """
    cached, limit = hasattr(model, "step"), getattr(model, "max_length", None)
    if not cached and limit is None:
        limit = context
    seen = unfed = prompt if limit is None else prompt[:, -limit:]
    state, fed = None, 0
    while True:
        if cached and limit is not None and fed + unfed.shape[1] > limit:
            unfed, state, fed = seen[:, -max(1, limit // 2) :], None, 0
        with torch.inference_mode():
            logits, state = _step(model, unfed, state) if cached else (model(seen), None)
        fed += unfed.shape[1]
        token = sampler(logits[:, -1])
        yield token
        unfed = token[:, None]
        if not cached or limit is not None:
            seen = torch.cat([seen, unfed], 1)
            seen = seen if limit is None else seen[:, -limit:]


@torch.inference_mode()
def translate(model: nn.Module, source: Tensor, *, max_tokens: int) -> Tensor:
    """The target that a sequence-to-sequence model finds likeliest token by token (greedy decoding).

    Args:
        model: in evaluation mode; one without `begin` and `step` reads everything again for each token.
        source: (B, S) tokens.
        max_tokens: of a target, its end mark counted.

    Returns: (B, T) tokens, T at most `max_tokens`; nothing but EOS after the first EOS.
    """
    said = torch.full((len(source), 1), BOS_ID, dtype=torch.long, device=source.device)
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    cached = hasattr(model, "step") and hasattr(model, "begin")
    state = model.begin(source) if cached else None  # type: ignore[operator]
    while said.shape[1] <= max_tokens and not ended.all():
        if cached:
            logits, state = _step(model, said[:, -1:], state)
        else:
            logits = model(source, said)
        token = logits[:, -1].argmax(-1).masked_fill(ended, EOS_ID)
        said = torch.cat([said, token[:, None]], 1)
        ended |= token == EOS_ID
    return said[:, 1:]


def _step(model: nn.Module, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    return model.step(tokens, state)  # type: ignore[operator, no-any-return]
