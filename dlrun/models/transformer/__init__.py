"""The transformer in the form that the data's task asks for: classifier, language model, or translator."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dlrun.contracts import DataSpec, Kind, PositiveInt, Probability, Task
from dlrun.layers.feed_forward import FeedForwardKind
from dlrun.layers.positions import Positions
from dlrun.layers.transformer import Style, TokenNorm
from dlrun.models.transformer.classifier import Readout, TransformerClassifier
from dlrun.models.transformer.language_model import TransformerLanguageModel
from dlrun.models.transformer.translator import TransformerTranslator


def transformer(
    spec: DataSpec,
    *,
    width: PositiveInt = 128,
    depth: PositiveInt = 4,
    heads: PositiveInt = 4,
    expansion: PositiveInt = 4,
    activation: FeedForwardKind = "gelu",
    norm: TokenNorm = "layer",
    norm_position: Literal["pre", "post"] = "pre",
    positions: Positions = "rotary",
    dropout: Probability = 0.0,
    attention_dropout: Probability = 0.0,
    qk_norm: bool = False,
    stochastic_depth: Probability = 0.0,
    bias: bool = True,
    readout: Readout = "mean",
    tie_weights: bool = True,
) -> nn.Module:
    """A transformer (Vaswani et al. 2017, arXiv:1706.03762); which one follows from the task of `spec`.

    - Language modelling: a causal decoder, tokens (B, T) → (B, T, spec.num_outputs).
    - Sequence to sequence: encoder and decoder, (B, S) and (B, T) → (B, T, spec.num_outputs).
    - Any other: an encoder of tokens, sequences or the rows of images → (B, spec.num_outputs), without softmax.

    Args:
        spec: of tokens, sequences or images.
        width: features of a token.
        depth: blocks; of encoder and decoder each.
        heads: of each attention; divides `width`.
        expansion: units of the feed-forward part are so many times `width`, two thirds of it if gated.
        activation: of the feed-forward part: gelu, relu, its square relu2 (arXiv:2109.08668), silu, or the gated swiglu
            and geglu (arXiv:2002.05202).
        norm: over the features of each token.
        norm_position: pre: at the beginning of each branch and after the last block; post: after each sum.
        positions: learned and sinusoidal ones are added to the tokens, rotary ones turn queries and keys.
        dropout: probability of zeroing a number that a branch adds, or one of the embedded inputs.
        attention_dropout: probability of zeroing an attention weight.
        qk_norm: divide queries and keys of self-attention by their root mean square; it learns faster.
        stochastic_depth: probability of leaving out the branches of the last block; less in those before.
        bias: in linear maps and layer norms.
        readout: how an encoder's outputs become one vector: their mean, or what a token of its own has gathered (cls).
        tie_weights: of a decoder's output with the embedding of its tokens (arXiv:1608.05859).

    Raises:
        ContractError if `spec` is of vectors, or of a task on tokens and not of tokens.
        ConfigError if `heads` does not divide `width`, or rotary positions meet heads of odd width.
    """
    style = Style(
        width=width,
        heads=heads,
        hidden=expansion * width,
        activation=activation,
        norm=norm,
        pre_norm=norm_position == "pre",
        bias=bias,
        dropout=dropout,
        attention_dropout=attention_dropout,
        qk_norm=qk_norm,
    )
    match spec.task:
        case Task.LANGUAGE_MODELLING:
            spec.require("transformer", Kind.TOKENS)
            return TransformerLanguageModel(
                spec, style, depth, positions=positions, stochastic_depth=stochastic_depth, tie_weights=tie_weights
            )
        case Task.SEQUENCE_TO_SEQUENCE:
            spec.require("transformer", Kind.TOKENS)
            return TransformerTranslator(
                spec, style, depth, positions=positions, stochastic_depth=stochastic_depth, tie_weights=tie_weights
            )
    spec.require("transformer", Kind.TOKENS, Kind.SEQUENCE, Kind.IMAGE)
    return TransformerClassifier(
        spec, style, depth, positions=positions, stochastic_depth=stochastic_depth, readout=readout
    )
