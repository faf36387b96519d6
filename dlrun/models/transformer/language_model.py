"""A transformer that predicts each token of a text from those before it, and goes on writing."""

from __future__ import annotations

from torch import Tensor, nn

from dlrun.contracts import DataSpec
from dlrun.errors import ConfigError
from dlrun.layers.attention import Cache, KeysValues, attention_weights
from dlrun.layers.embedding import TokenEmbedding
from dlrun.layers.positions import Positions, Rotary, make_positions
from dlrun.layers.transformer import Stack, Style, initialise, small_std

State = tuple[KeysValues, ...]  # of each block, (B, heads, T, width / heads)


class TransformerLanguageModel(nn.Module):
    """Tokens (B, T) → logits (B, T, spec.num_outputs) of the token after each; T is at most `max_length`.

    No padding mask is needed: what fills a text up comes after it, where no position looks. See `transformer`.

    Attributes:
        max_length: the longest text it is trained on, and with learned positions the longest it can read.
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
        if tie_weights and spec.vocabulary_size != spec.num_outputs:
            raise ConfigError(
                f"model.tie_weights=true uses one matrix for the {spec.vocabulary_size} tokens that data={spec.name} "
                f"reads and the {spec.num_outputs} it predicts, which must be the same: choose model.tie_weights=false"
            )
        self.max_length = spec.shape[0]
        self.embedding = TokenEmbedding(spec.vocabulary_size, style.width, positions)
        self.stack = Stack(
            style,
            depth,
            positions=make_positions(positions, self.max_length, style.width, small_std(style.width)),
            rotary=Rotary(self.max_length, style.width // style.heads) if positions == "rotary" else None,
            causal=True,
            stochastic_depth=stochastic_depth,
        )
        self.output = nn.Linear(style.width, spec.num_outputs, bias=False)
        if tie_weights:
            self.output.weight = self.embedding.weight
        else:
            initialise(self.output, style.width)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.output(self.stack(self.embedding(tokens)))
        return logits

    def step(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, t, num_outputs) after each of the tokens (B, t), which follow those of `state`, and the new state.

        Only the new tokens are computed; `state` can be used again.
        """
        caches = [Cache(past) for past in state] if state else [Cache() for _ in self.stack.blocks]
        logits = self.output(self.stack(self.embedding(tokens), caches=caches))
        return logits, tuple(cache.past for cache in caches if cache.past is not None)

    def attention_weights(self, tokens: Tensor) -> dict[str, Tensor]:
        """See `dlrun.layers.attention.attention_weights`."""
        return attention_weights(self, tokens)
