"""What a recorded run, or several together, are worth on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dlrun import build
from dlrun.contracts import IGNORED, DataSpec, Task
from dlrun.engine.calibration import fit_temperature
from dlrun.engine.dropout import dropout_active
from dlrun.engine.evaluate import Evaluator
from dlrun.engine.memory import halving
from dlrun.engine.mixture import Mixture
from dlrun.engine.seeding import derive, seed_everything
from dlrun.errors import UsageError
from dlrun.generation import translate
from dlrun.members import Member, gather_members, require_same_task
from dlrun.report.answers import plot_confusion, plot_reliability
from dlrun.runs.directory import RunDirectory
from dlrun.runs.files import write_json
from dlrun.text import decode

if TYPE_CHECKING:
    from dlrun.metrics.answers import Answers

Temperature = float | Literal["fit"] | None


@dataclass
class Column:
    """What was measured of a member, or of all together: metrics by name; for a classification all answers."""

    metrics: dict[str, float]
    answers: Answers | None = None


@dataclass
class Evaluation:
    """What was measured on a split.

    Attributes:
        spec: of the data of the first run.
        examples: in the split.
        columns: by name: the members, from "1", and last what they are together; of a single one its checkpoint.
        notes: what should be said beside the numbers.
    """

    split: str
    spec: DataSpec
    examples: int
    columns: dict[str, Column]
    notes: list[str] = field(default_factory=list)

    @property
    def last(self) -> Column:
        """The column that matters most: the ensemble's if there is one."""
        return list(self.columns.values())[-1]


def evaluate(
    runs: Sequence[RunDirectory],
    split: str = "test",
    which: str = "best",
    device_word: str | None = None,
    *,
    temperature: Temperature = None,
    mc_dropout: int | None = None,
) -> Evaluation:
    """Loss and all metrics of runs on one of their splits: of each, and of several together.

    Args:
        which: the weights of the best or the last validation, or all snapshots of one run together.
        temperature: divides the logits before nll, brier and ece are computed once more; "fit": the one that makes
            nll least on the validation split.
        mc_dropout: also predict so often with dropout active, and take the mean.

    Raises: UsageError for what does not go together.
    """
    members = gather_members(runs, which, device_word)
    for number, other in enumerate(members[1:], 2):
        require_same_task(members[0].a, other.a, split, f"runs 1 and {number}")
    first = members[0].a
    _refuse_contradictions(first.spec, len(members), temperature, mc_dropout)
    names = [which] if len(members) == 1 else [str(number) for number in range(1, len(members) + 1)]
    notes: list[str] = []
    for member in members:
        member.a.warn = notes.append
    columns = {name: alone(member, split) for name, member in zip(names, members, strict=True)}
    result = Evaluation(split, first.spec, len(getattr(first.splits, split)), columns, notes)
    if len(members) > 1:
        columns["ensemble"] = together(members, split)
    if mc_dropout:
        columns[f"mc_dropout={mc_dropout}"] = with_dropout(members[0], split, mc_dropout)
    if temperature is not None:
        result.notes.append(_rescale(result.last, members, temperature, mc_dropout))
    if first.spec.task is Task.SEQUENCE_TO_SEQUENCE and first.spec.target_vocabulary and not find_spec("sacrebleu"):
        result.notes.append("for BLEU: pip install 'dlrun[bleu]'")
    for column in columns.values():
        column.metrics = {f"{split}/{name}": value for name, value in column.metrics.items()}
    return result


def alone(member: Member, split: str) -> Column:
    """A model's loss, metrics and scores."""
    evaluator = member.a.evaluator(split)
    metrics, spec = build.build_all_metrics(member.a.spec), member.a.spec
    result = evaluator.measure(member.model, metrics)
    if spec.task is Task.SEQUENCE_TO_SEQUENCE and spec.target_vocabulary and find_spec("sacrebleu"):
        by_character = spec.target_vocabulary.level == "char"
        said, wanted = halving([evaluator], lambda: translations(evaluator, member.model, spec))
        result["bleu"] = bleu(said, wanted, by_character=by_character)
    return Column(result, build.answers_in(metrics))


def answered_right(folders: Sequence[Path], split: str = "test", which: str = "best") -> list[NDArray[np.bool_]]:
    """Of classifiers of the same examples, which examples each answers right.

    Raises: UsageError if they are not classifiers, or their examples are not the same.
    """
    members = gather_members([RunDirectory(folder) for folder in folders], which, None)
    for number, other in enumerate(members[1:], 2):
        require_same_task(members[0].a, other.a, split, f"runs 1 and {number}")
    found = []
    for member in members:
        spec = member.a.spec
        if spec.task is not Task.CLASSIFICATION:
            raise UsageError(f"right and wrong answers are of a classification; data={spec.name} is {spec.task.value}.")
        collected = [build.build_scores(spec, [])]
        member.a.evaluator(split).measure(member.model, collected)
        answers = build.answers_in(collected)
        assert answers is not None
        found.append((answers.p.argmax(-1) == answers.targets).numpy())
    return found


def together(members: Sequence[Member], split: str, seed: int | None = None) -> Column:
    """The same of the mean of their predictions; each sees the split as its own run encodes it.

    Args:
        seed: of what the models draw, if they do.
    """
    made = {id(member.a): member.a.evaluator(split) for member in members}
    evaluators = [made[id(member.a)] for member in members]
    for evaluator in evaluators:
        evaluator.batch_size = evaluators[0].batch_size
    metrics = build.build_all_metrics(members[0].a.spec)

    def attempt() -> dict[str, float]:
        if seed is not None:
            seed_everything(seed)
        tally, mixture = evaluators[0].tally(metrics), Mixture([member.a.spec for member in members])
        passes = [evaluator.forward(member.model) for evaluator, member in zip(evaluators, members, strict=True)]
        for parts in zip(*passes, strict=True):
            batch = parts[0][1]
            tally.add(mixture([outputs for outputs, _ in parts], batch.targets), batch)
        result = tally.result() | mixture.result()
        if mixture.gives_log_probabilities and not getattr(members[0].a.loss, "takes_log_probabilities", False):
            result.pop("loss", None)  # it would take them for what they are not
        return result

    return Column(halving(evaluators, attempt), build.answers_in(metrics))


def with_dropout(member: Member, split: str, draws: int) -> Column:
    """The same of the mean of `draws` predictions with dropout active.

    Raises: UsageError if the model drops nothing.
    """
    with dropout_active(member.model) as dropping:
        if not dropping:
            raise UsageError(
                f"mc_dropout={draws} needs a model that was trained with dropout, and in this one "
                f"({type(member.model).__name__}) nothing is dropped; train one with model.dropout=0.2, say."
            )
        seed = derive(member.a.config["seed"], "mc_dropout") % 2**32
        return together([member] * draws, split, seed)


def translations(evaluator: Evaluator, model: nn.Module, spec: DataSpec) -> tuple[list[str], list[str]]:
    """What the model says, decoded greedily, and what it should have said, for all examples of the split."""
    vocabulary = spec.target_vocabulary
    assert vocabulary is not None
    said, wanted = [], []
    for batch in evaluator.batches():
        with evaluator.precision.autocast():
            tokens = translate(model, batch.arguments[0], max_tokens=spec.target_length)
        said += [decode(row, vocabulary) for row in tokens.tolist()]
        wanted += [decode((n for n in row if n != IGNORED), vocabulary) for row in batch.targets.tolist()]
    return said, wanted


def bleu(said: Sequence[str], wanted: Sequence[str], *, by_character: bool = False) -> float:
    """Corpus BLEU with one reference each, 0 to 100, as sacrebleu computes it.

    Args:
        by_character: compare runs of up to four characters, for targets that are not made of words.

    Source: Post 2018 (arXiv:1804.08771).
    """
    import sacrebleu  # an extra

    how = {"tokenize": "char"} if by_character else {}
    return float(sacrebleu.corpus_bleu(list(said), [list(wanted)], force=True, **how).score)


def _rescale(column: Column, members: Sequence[Member], temperature: Temperature, mc_dropout: int | None) -> str:
    """Add what temperature scaling makes of a column. Returns: a sentence about it."""
    answers, how = column.answers, "given"
    assert answers is not None
    if temperature == "fit":
        if mc_dropout:
            fitted = with_dropout(members[0], "val", mc_dropout).answers
        else:
            fitted = (together(members, "val") if len(members) > 1 else alone(members[0], "val")).answers
        assert fitted is not None
        temperature, how = fit_temperature(fitted.log_p, fitted.targets), "fitted on val"
    assert temperature is not None
    scaled = answers.at_temperature(temperature)
    before, after = (answers.nll(), answers.ece()), (scaled.nll(), scaled.ece())
    column.metrics |= {
        "temperature": temperature,
        "nll_scaled": after[0],
        "brier_scaled": scaled.brier(),
        "ece_scaled": after[1],
    }
    return (
        f"temperature {temperature:.4g}, {how}: nll {before[0]:.4g} -> {after[0]:.4g}, "
        f"ece {before[1]:.4g} -> {after[1]:.4g}"
    )


def _refuse_contradictions(spec: DataSpec, count: int, temperature: Temperature, mc_dropout: int | None) -> None:
    if temperature is not None and spec.task is not Task.CLASSIFICATION:
        raise UsageError(
            f"temperature={temperature} scales the probabilities of classes, and data={spec.name} is a "
            f"{spec.task.value} task; leave it out."
        )
    if mc_dropout and count > 1:
        raise UsageError(f"mc_dropout={mc_dropout} is of one model, and here are {count}; give one run.")


def keep(evaluation: Evaluation, run: RunDirectory, which: str) -> list[Path]:
    """Write evaluation.json and the pictures into a run's directory, where training reads neither.

    Earlier evaluations of other splits and weights stay in the file. Returns: what was written.
    Raises: OSError if it cannot be.
    """
    path = run.path / "evaluation.json"
    kept = run.read_json(path)
    for name, column in evaluation.columns.items():
        if not name.isdecimal():  # a single snapshot
            kept.setdefault(evaluation.split, {})[which if name == "ensemble" else name] = column.metrics
    write_json(path, kept)
    answers = evaluation.last.answers
    if answers is None:
        return [path]
    title = f"{run.path.name}\n{evaluation.split}, {list(evaluation.columns)[-1]}"
    confusion, reliability = run.plots / "confusion.png", run.plots / "reliability.png"
    plot_confusion(answers.confusion, evaluation.spec.class_names, confusion, title=title)
    plot_reliability(*answers.reliability, reliability, title=f"{title}, ECE {answers.ece():.3f}")
    return [path, confusion, reliability]
