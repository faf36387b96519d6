"""A recorded run applied to new inputs: files and texts to what the model makes of them, in the data's own terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlrun.contracts import BOS_ID, EOS, Batch, DataSpec, Task
from dlrun.engine.device import choose_device
from dlrun.engine.loaders import Preparation
from dlrun.engine.units import own_units
from dlrun.errors import DataError, UsageError
from dlrun.generation import Sampler, continuation, translate
from dlrun.new_inputs import encode, filled, shortened, unit, unspoken
from dlrun.recorded import load_model
from dlrun.runs.directory import RunDirectory
from dlrun.text import decode

BATCH = 1024


@dataclass
class Predictor:
    """A run's model, ready for new inputs, without its data."""

    model: nn.Module
    spec: DataSpec
    device: torch.device

    def outputs(self, inputs: Tensor) -> Tensor:
        """Inputs as the data set stores them (uint8 images, encoded rows, tokens) to what the model makes of them.

        Returns: (N, classes) probabilities, or (N, outputs) values in the target's own units; float32 on the CPU.
        """
        prepare = Preparation(self.spec, (), 0, self.device)
        outputs = []
        with torch.inference_mode():
            for part in inputs.split(BATCH):
                batch = prepare(Batch(part.to(self.device), torch.zeros(len(part))), 0)
                outputs.append(self.model(*batch.arguments).float().cpu())
        result = torch.cat(outputs)
        if self.spec.task is Task.CLASSIFICATION:
            return result.softmax(-1)
        return result.sigmoid() if self.spec.task is Task.MULTILABEL else own_units(result, self.spec)

    def translations(self, texts: Sequence[str]) -> list[str]:
        """The target text of each source text, decoded greedily."""
        assert self.spec.target_vocabulary is not None
        said: list[str] = []
        for start in range(0, len(texts), BATCH):
            source = self.sources(texts[start : start + BATCH])
            tokens = translate(self.model, source, max_tokens=self.spec.target_length)
            said += [decode(row, self.spec.target_vocabulary) for row in tokens.tolist()]
        return said

    def continued(
        self, prompt: str, tokens: int, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Iterator[str]:
        """The prompt as the model reads it, then piece by piece what follows: `tokens` of them, or up to an end mark.

        Args:
            temperature, top_k, seed: see `dlrun.generation.Sampler`.

        Raises: DataError if the prompt is empty or holds what the model has no token for.
        """
        vocabulary = self.spec.vocabulary
        assert vocabulary is not None
        numbers = encode(prompt, vocabulary)
        if not numbers:
            raise DataError("there must be a text to go on from: give at least one character or word.")
        yield decode(numbers, vocabulary)
        before, sampler = numbers[-1], Sampler(temperature, top_k, seed, unspoken(vocabulary))
        history = torch.tensor([numbers], device=self.device)
        stream = continuation(self.model, history, sampler, context=self.spec.shape[0])
        for _, token in zip(range(tokens), stream, strict=False):
            number = int(token)
            if vocabulary.tokens[number] == EOS:
                return
            # Words are written with the spaces that belong between the last one and this one.
            yield decode([before, number], vocabulary).removeprefix(decode([before], vocabulary))
            before = number

    def attention(self, text: str) -> tuple[Tensor, list[str], list[str]]:
        """How a translation looks at its source: weights (T, S), the source's tokens, the target's.

        Raises: UsageError if the model has no such weights.
        """
        spec, find = self.spec, getattr(self.model, "attention_weights", None)
        if find is None:
            name = type(self.model).__name__
            raise UsageError(f"attention: the model ({name}) has no attention that could be drawn; leave it out.")
        assert spec.vocabulary is not None
        assert spec.target_vocabulary is not None
        source = self.sources([text])
        said = translate(self.model, source, max_tokens=spec.target_length)
        shifted = torch.cat([torch.full_like(said[:, :1], BOS_ID), said[:, :-1]], 1)
        with torch.inference_mode():
            weights = over_source(find(source, shifted))
        read = [spec.vocabulary.tokens[number] for number in source[0].tolist()]
        return weights.float().cpu(), read, [spec.target_vocabulary.tokens[number] for number in said[0].tolist()]

    def sources(self, texts: Sequence[str]) -> Tensor:
        """Texts as (N, S) tokens, padded to the longest.

        Raises: DataError naming one that is empty, or longer than the model reads.
        """
        vocabulary, longest = self.spec.vocabulary, self.spec.shape[0]
        assert vocabulary is not None
        rows = []
        for text in texts:
            row = encode(text, vocabulary)
            if not row or len(row) > longest:
                what = "is empty" if not row else f"has {len(row)} {unit(vocabulary)}s"
                raise DataError(f"'{shortened(text)}' {what}; the model reads 1 to {longest} {unit(vocabulary)}s.")
            rows.append(row)
        return filled(rows, self.spec).to(self.device)


def load_predictor(run: RunDirectory, which: str = "best", device_word: str = "cpu") -> Predictor:
    """The model of a run's best or last validation. Raises: DlrunError if there is none."""
    device = choose_device(device_word)
    model, spec = load_model(run, which, device)
    return Predictor(model, spec, device)


def over_source(weights: Tensor | dict[str, Tensor]) -> Tensor:
    """Attention over the source as one (T, S): the mean over heads, and over the layers that look at it."""
    if isinstance(weights, dict):
        looking = [each for name, each in weights.items() if "cross" in name]
        weights = torch.stack([each.mean(1) if each.ndim == 4 else each for each in looking]).mean(0)
    return weights[0]
