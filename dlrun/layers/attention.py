"""Multi-head attention: of a sequence to itself and to another one, with a cache for producing text token by token."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.layers.positions import Rotary

KeysValues = tuple[Tensor, Tensor]  # each (B, heads, T, width / heads)


class Cache:
    """The keys and values of what a self-attention has read so far; longer after each call of it.

    Attributes:
        past: keys and values, or None before anything has been read. Its tensors are never written to.
    """

    def __init__(self, past: KeysValues | None = None) -> None:
        self.past = past

    def __len__(self) -> int:
        return 0 if self.past is None else self.past[0].shape[2]

    def extend(self, keys: Tensor, values: Tensor) -> KeysValues:
        """All keys and values, these last."""
        if self.past is not None:
            keys, values = torch.cat((self.past[0], keys), 2), torch.cat((self.past[1], values), 2)
        self.past = keys, values
        return self.past


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V in each of `heads` subspaces of d = width / heads features, and a linear map of the results.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), sec. 3.2.

    Args:
        width: features of inputs and outputs.
        heads: how many times to attend; divides `width`.
        bias: in the linear maps.
        dropout: probability of zeroing an attention weight while training.

    Raises: ConfigError if `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            fitting = [n for n in range(1, width + 1) if width % n == 0]
            near = sorted(fitting, key=lambda n: abs(n - heads))[:2]
            raise ConfigError(
                f"model.heads={heads} must divide model.width={width} into equal parts: choose model.heads="
                f"{' or '.join(map(str, sorted(near)))}, or model.width={-(-width // heads) * heads}"
            )
        self.heads = heads
        self.dropout = dropout
        self.output = nn.Linear(width, width, bias)

    def weights(self, *inputs: Any) -> Tensor:
        """What this attention would weigh the values by: (B, heads, T, S), rows that sum to 1."""
        q, k, _, mask, causal = self._prepare(*inputs)
        scores: Tensor = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if causal:
            mask = after(q, k)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1)

    def _prepare(self, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
        """Queries, keys, values, the mask, and whether to attend to nothing later instead."""
        raise NotImplementedError

    def _attend(self, *inputs: Any) -> Tensor:
        q, k, v, mask, causal = self._prepare(*inputs)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)
        result: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, heads, T, width / heads), without a copy."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class SelfAttention(Attention):
    """Each position of (B, T, width) attends to all of them, or with `causal` to those up to itself.

    Args:
        rotary: turns queries and keys by their position.
        qk_norm: divide each query and key by its root mean square before that, so that no product of two exceeds d
            (Dehghani et al. 2023, arXiv:2302.05442, there with a layer norm).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        rotary: Rotary | None = None,
        qk_norm: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(width, heads, bias=bias, dropout=dropout)
        self.causal = causal
        self.rotary = rotary
        self.qk_norm = qk_norm
        self.qkv = nn.Linear(width, 3 * width, bias)  # one product for queries, keys and values

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """(B, T, width) → (B, T, width).

        Args:
            mask: which positions may be attended to, bool, broadcastable to (B, heads, T, T); not with `causal`.
                A position that may attend to none gets zeros.
            cache: of what came before `x`, only with `causal`.
        """
        return self._attend(x, mask, cache)

    def _prepare(
        self, x: Tensor, mask: Tensor | None = None, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
        q, k, v = map(self._split, self.qkv(x).chunk(3, dim=-1))
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        start = 0 if cache is None else len(cache)
        if self.rotary is not None:
            q, k = self.rotary(q, start), self.rotary(k, start)
        if cache is not None:
            k, v = cache.extend(k, v)
        if not self.causal or q.shape[2] == 1:
            return q, k, v, mask, False
        # The kernel's own causal mask takes the first query to stand at the first key.
        return (q, k, v, None, True) if start == 0 else (q, k, v, after(q, k), False)


class CrossAttention(Attention):
    """Each position of (B, T, width) attends to the positions of another sequence, the memory (B, S, width)."""

    def __init__(self, width: int, heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__(width, heads, bias=bias, dropout=dropout)
        self.query = nn.Linear(width, width, bias)
        self.key_value = nn.Linear(width, 2 * width, bias)

    def remember(self, memory: Tensor) -> KeysValues:
        """Keys and values of a memory (B, S, width), the same for all that is asked of it."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, memory: KeysValues, mask: Tensor | None = None) -> Tensor:
        """(B, T, width) → (B, T, width).

        Args:
            memory: from `remember`.
            mask: which positions of the memory may be attended to, bool, broadcastable to (B, heads, T, S).
        """
        return self._attend(x, memory, mask)

    def _prepare(
        self, x: Tensor, memory: KeysValues, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
        return self._split(self.query(x)), *memory, mask, False


def after(queries: Tensor, keys: Tensor) -> Tensor:
    """Which of S keys each of T queries may see, (T, S) bool, the last query standing at the last key."""
    shape = queries.shape[2], keys.shape[2]
    return torch.ones(shape, dtype=torch.bool, device=keys.device).tril(shape[1] - shape[0])


@torch.no_grad()
def attention_weights(model: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """What every attention in `model` looks at when it reads `inputs`, for heat maps.

    Computed beside the usual forward pass, which never holds these weights. The model is in evaluation mode meanwhile.

    Returns: (B, heads, T, S) by the attention's name, in order of computation; each row sums to 1.
    """
    found: dict[str, Tensor] = {}

    def look(module: Attention, arguments: tuple[Any, ...], name: str) -> None:
        found[name] = module.weights(*arguments)

    attentions = [(name, module) for name, module in model.named_modules() if isinstance(module, Attention)]
    hooks = [module.register_forward_pre_hook(partial(look, name=name)) for name, module in attentions]
    was_training = model.training
    try:
        model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return found
