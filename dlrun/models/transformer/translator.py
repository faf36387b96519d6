"""A transformer that reads one sequence of tokens and writes another."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from dlrun.contracts import DataSpec
from dlrun.layers.attention import Cache, KeysValues, attention_weights
from dlrun.layers.embedding import TokenEmbedding
from dlrun.layers.positions import Positions, Rotary, make_positions
from dlrun.layers.transformer import Stack, Style, initialise, small_std


class State(NamedTuple):
    """What a translation so far consists of; axis 0 of every tensor is the batch.

    Attributes:
        memories: keys and values of the source, of each block of the decoder.
        mask: (B, 1, 1, S), which tokens of the source are no padding; None if there is no padding.
        past: keys and values of the target so far, of each block; empty before its first token.
    """

    memories: tuple[KeysValues, ...]
    mask: Tensor | None
    past: tuple[KeysValues, ...] = ()


class TransformerTranslator(nn.Module):
    """Sources (B, S), and what has been said before each target token (B, T) → logits (B, T, spec.num_outputs).

    Padding in sources is never attended to; targets need no mask, as what fills them up comes last. See `transformer`.

    Attributes:
        max_length: the longest target it is trained on, and with learned positions the longest it can write.
    """

    def __init__(
        self,
        spec: DataSpec,
        style: Style,
        depth: int,
        *,
        positions: Positions,
        stochastic_depth: float,
        tie_weights: bool,
    ) -> None:
        super().__init__()
        self.padding = spec.padding
        self.max_length = spec.target_length

        def stack(length: int, *, is_decoder: bool) -> Stack:
            return Stack(
                style,
                depth,
                positions=make_positions(positions, length, style.width, small_std(style.width)),
                rotary=Rotary(length, style.width // style.heads) if positions == "rotary" else None,
                causal=is_decoder,
                cross=is_decoder,
                stochastic_depth=stochastic_depth,
            )

        self.source_embedding = TokenEmbedding(spec.vocabulary_size, style.width, positions)
        self.encoder = stack(spec.shape[0], is_decoder=False)
        self.target_embedding = TokenEmbedding(spec.num_outputs, style.width, positions)
        self.decoder = stack(spec.target_length, is_decoder=True)
        self.output = nn.Linear(style.width, spec.num_outputs, bias=False)
        if tie_weights:
            self.output.weight = self.target_embedding.weight
        else:
            initialise(self.output, style.width)

    def forward(self, source: Tensor, shifted: Tensor) -> Tensor:
        state = self.begin(source)
        x = self.decoder(self.target_embedding(shifted), memories=state.memories, memory_mask=state.mask)
        logits: Tensor = self.output(x)
        return logits

    def begin(self, source: Tensor) -> State:
        """The state before the first target token, of sources (B, S)."""
        mask = None if self.padding is None else (source != self.padding)[:, None, None, :]
        memory = self.encoder(self.source_embedding(source), mask)
        return State(tuple(self.decoder.remember(memory)), mask)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, t, num_outputs) after each of the tokens (B, t), which follow those of `state`, and the new state.

        Only the new tokens are computed; `state` can be used again.
        """
        caches = [Cache(past) for past in state.past] if state.past else [Cache() for _ in self.decoder.blocks]
        x = self.decoder(self.target_embedding(tokens), caches=caches, memories=state.memories, memory_mask=state.mask)
        past = tuple(cache.past for cache in caches if cache.past is not None)
        return self.output(x), state._replace(past=past)

    def attention_weights(self, source: Tensor, shifted: Tensor) -> dict[str, Tensor]:
        """See `dlrun.layers.attention.attention_weights`; the names that end in `cross.inner` look at the source."""
        return attention_weights(self, source, shifted)
