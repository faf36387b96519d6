"""Pairs of texts cut into tokens, and their examples: a vocabulary for each side, from the training pairs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dlrun.contracts import BOS_ID, EOS_ID, IGNORED, PAD, PAD_ID, UNK, DataSpec, Kind, Splits, Task
from dlrun.data.tokens import Tokens, fill_up, learnt_vocabulary, lengths_of
from dlrun.examples import Pairs
from dlrun.text import SPECIAL, Level, numbering, tokenize

Levels = tuple[Level, Level]  # of the sources and of the targets


def tokenized(pairs: list[tuple[str, str]], levels: Levels, lower: bool = False) -> Tokens:
    """(source, target) texts as pairs of lists of tokens."""
    return Tokens(
        [tokenize(source, levels[0], lower) for source, _ in pairs],
        [tokenize(target, levels[1], lower) for _, target in pairs],
    )


def pair_splits(
    name: str,
    train: Tokens,
    test: Tokens | None,
    levels: Levels,
    *,
    lower: bool = False,
    max_vocabulary: int | None = None,
    min_count: int = 1,
) -> Splits:
    """The splits of a sequence-to-sequence task; its vocabularies are still to be learnt (see `fit_pairs`)."""
    every = [part for part in (train, test) if part is not None]
    source = max(len(text) for part in every for text in part.texts)
    target = max(len(text) for part in every for text in part.targets)
    spec = DataSpec(name, Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (source,), 0, target_length=target + 1)
    fit = partial(fit_pairs, spec, levels=levels, lower=lower, max_vocabulary=max_vocabulary, min_count=min_count)
    return Splits(train, spec, test=test, fit=fit)


def fit_pairs(
    spec: DataSpec,
    train: Tokens,
    *,
    levels: tuple[Level, Level],
    lower: bool,
    max_vocabulary: int | None,
    min_count: int,
) -> tuple[DataSpec, Callable[[Tokens], Pairs]]:
    """Both vocabularies of the training pairs, and the function that numbers any pairs by them.

    Args:
        spec: with the shape of the sources, (S,), and `target_length`, T, of all pairs: none is cut.
        levels: of the sources and of the targets.
        max_vocabulary, min_count: of each side, as for `fit_classes`; special tokens are counted among the former.

    Returns: `spec` with both vocabularies; a function from pairs of texts to `Pairs`.
    Raises: DataError if no token of a side occurs `min_count` times.
    """
    assert not isinstance(train.targets, Tensor)
    source = learnt_vocabulary(train.texts, levels[0], lower, (PAD, UNK), max_vocabulary, min_count)
    target = learnt_vocabulary(train.targets, levels[1], lower, SPECIAL, max_vocabulary, min_count)
    spec = replace(
        spec,
        num_outputs=len(target),
        vocabulary_size=len(source),
        padding=PAD_ID,
        vocabulary=source,
        target_vocabulary=target,
    )
    return spec, partial(_encode_pairs, spec)


def _encode_pairs(spec: DataSpec, part: Tokens) -> Pairs:
    assert spec.vocabulary is not None
    assert spec.target_vocabulary is not None
    assert not isinstance(part.targets, Tensor)
    sources = list(map(numbering(spec.vocabulary), part.texts))
    targets = [[*numbers, EOS_ID] for numbers in map(numbering(spec.target_vocabulary), part.targets)]
    shifted = [[BOS_ID, *numbers[:-1]] for numbers in targets]
    return Pairs(
        fill_up(sources, spec.shape[0], PAD_ID),
        fill_up(shifted, spec.target_length, PAD_ID),
        fill_up(targets, spec.target_length, IGNORED),
        torch.stack([lengths_of(sources), lengths_of(targets)], dim=1),
    )
