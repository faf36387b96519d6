"""dlrun predict: a recorded run applied to new inputs."""

import csv
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dlrun.commands.offers import DEVICES, options, positional, runs
from dlrun.commands.words import real, take_run, whole
from dlrun.errors import UsageError
from dlrun.startup import loading

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.contracts import DataSpec
    from dlrun.prediction import Predictor

HELP = """\
dlrun predict RUN INPUT… [checkpoint=best] [output=FILE] [device=cpu]

  dlrun predict last digit.png                       one image
  dlrun predict last photos/                         every image in a folder, and in those below it
  dlrun predict 1a2b3c4d new_rows.csv output=predictions.csv
  dlrun predict RUN "a fine film" more.txt           texts, and files with one on each line
  dlrun predict RUN series.csv                       the rows after the last
  dlrun predict RUN "dos mil" [attention=heat.png]   a translation, and where it looked
  dlrun predict RUN "ROMEO:" tokens=200 temperature=0.8 top_k=20 seed=0     a text goes on

Prints CSV: the input, then class and probability (and all probabilities into output=FILE), or values in the target's
own units; translations and texts as they are. Rows of CSV files are matched by column name and encoded as the training
data were. temperature=0 always takes the likeliest token.
"""

OPTIONS = {
    "checkpoint": ("best", "last"),
    "output": (),
    "device": DEVICES,
    "tokens": (),
    "temperature": (),
    "top_k": (),
    "seed": (),
    "attention": (),
}
SETTING = re.compile(r"[a-z_]+=")
OPTION = re.compile(r"--?[A-Za-z]\S*")
GENERATING = ("tokens", "temperature", "top_k", "seed")


def run(arguments: list[str]) -> int:
    """Predict and print or write it. Returns: the exit code."""
    settings = [word for word in arguments if SETTING.match(word) or OPTION.fullmatch(word)]
    given = [word for word in arguments if word not in settings]
    if len(given) < 2 and not any(OPTION.fullmatch(word) for word in settings):
        raise UsageError(
            "dlrun predict needs a RUN and at least one INPUT: an image, a folder of images, a CSV file or a text."
        )
    known = {**dict.fromkeys(OPTIONS), "checkpoint": OPTIONS["checkpoint"]}
    directory, words = take_run([*given[:1], *settings], "predict", known)
    for key in ("output", "attention"):
        if key in words and not Path(words[key]).absolute().parent.is_dir():
            raise UsageError(f"{key}={words[key]}: there is no folder {Path(words[key]).parent}; make it first.")
    tokens, top_k, seed = whole(words, "tokens", 1), whole(words, "top_k", 1), whole(words, "seed", 0)
    temperature = real(words, "temperature", zero=True)
    from dlrun.contracts import Task

    with loading():
        from dlrun.prediction import load_predictor

    predictor = load_predictor(directory, words.get("checkpoint", "best"), words.get("device", "cpu"))
    task = predictor.spec.task
    refuse_foreign(words, predictor.spec)
    output = words.get("output")
    if task is Task.LANGUAGE_MODELLING:
        sampling = {"temperature": 1.0 if temperature is None else temperature, "top_k": top_k, "seed": seed or 0}
        generate(predictor, given[1:], output, tokens or 200, sampling)
    elif task is Task.SEQUENCE_TO_SEQUENCE:
        translate(predictor, given[1:], output, words.get("attention"))
    else:
        tabulate(predictor, given[1:], output, directory.read_config()["data"])
    return 0


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """What may come next, at a tab."""
    if not positional(typed):
        yield from runs(current)
    elif current:  # at an empty word the shell offers files
        yield from options(OPTIONS, current)


def refuse_foreign(words: Mapping[str, str], spec: "DataSpec") -> None:
    """Refuse settings that another task has. Raises: UsageError."""
    from dlrun.contracts import Task

    of = dict.fromkeys(GENERATING, Task.LANGUAGE_MODELLING) | {"attention": Task.SEQUENCE_TO_SEQUENCE}
    for key, task in of.items():
        if key in words and spec.task is not task:
            raise UsageError(
                f"{key}={words[key]} is for {task.value.replace('_', ' ')}, and data={spec.name} is a "
                f"{spec.task.value.replace('_', ' ')} task; leave it out."
            )


@contextmanager
def opened(output: str | None) -> Iterator[TextIO]:
    """The file to write to, or standard output."""
    if output is None:
        yield sys.stdout
        return
    try:
        with Path(output).open("w", newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise UsageError(f"output={output} cannot be written: {error.strerror or error}.") from None


def tabulate(predictor: "Predictor", given: Sequence[str], output: str | None, data: Mapping[str, Any]) -> None:
    """Predictions as CSV: a row for each input, or for each time step of a forecast."""
    from dlrun.contracts import Task
    from dlrun.new_inputs import read_inputs

    labels, inputs = read_inputs(given, predictor.spec, data)
    outputs = predictor.outputs(inputs)
    with opened(output) as file:
        if predictor.spec.task is Task.FORECASTING:
            write_forecasts(file, labels, outputs, predictor.spec)
        else:
            write_rows(file, labels, outputs, predictor.spec, every=output is not None)
    if output is not None:
        print(f"{len(labels)} predictions in {output}")


def generate(
    predictor: "Predictor", given: Sequence[str], output: str | None, tokens: int, sampling: Mapping[str, Any]
) -> None:
    """Each prompt and what follows it, token by token as they come; an empty line between prompts."""
    from dlrun.new_inputs import read_prompt

    texts = [predictor.continued(read_prompt(word), tokens, **sampling) for word in given]
    beginnings = [next(text) for text in texts]  # a prompt that cannot be read is refused before anything is written
    with opened(output) as file:
        for number, (beginning, text) in enumerate(zip(beginnings, texts, strict=True)):
            print("\n" * (number > 0) + beginning, end="", file=file, flush=True)
            for piece in text:
                print(piece, end="", file=file, flush=True)
            print(file=file)
    if output is not None:
        print(f"{len(texts)} texts in {output}")


def translate(predictor: "Predictor", given: Sequence[str], output: str | None, attention: str | None) -> None:
    """Translations, one a line; and where the only one looked, as a picture."""
    from dlrun.new_inputs import read_texts

    texts = read_texts(given)
    if attention is not None and len(texts) != 1:
        raise UsageError(f"attention={attention} is of one text, got {len(texts)}.")
    said = predictor.translations(texts)
    heat = predictor.attention(texts[0]) if attention is not None else None
    with opened(output) as file:
        for line in said:
            print(line, file=file)
    if output is not None:
        print(f"{len(said)} translations in {output}")
    if heat is not None and attention is not None:
        from dlrun.report.attention import plot_attention

        try:
            plot_attention(*heat, Path(attention))
        except OSError as error:
            raise UsageError(f"attention={attention} cannot be written: {error.strerror or error}.") from None


def write_rows(file: TextIO, labels: Sequence[str], outputs: "Tensor", spec: "DataSpec", *, every: bool) -> None:
    """Predictions as CSV, one row an input; `every` adds the probability of each class."""
    from dlrun.contracts import Task

    table = csv.writer(file, lineterminator="\n")
    values = outputs.tolist()
    if spec.task is not Task.CLASSIFICATION:
        names = ["value"] if spec.num_outputs == 1 else [f"output_{i}" for i in range(spec.num_outputs)]
        table.writerow(["input", *names])
        table.writerows(
            [label, *(f"{number:.6g}" for number in row)] for label, row in zip(labels, values, strict=True)
        )
        return
    names = list(spec.class_names) or [str(i) for i in range(spec.num_outputs)]
    table.writerow(["input", "class", "probability", *(names if every else [])])
    for label, row in zip(labels, values, strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        rest = [f"{number:.6g}" for number in row] if every else []
        table.writerow([label, names[best], f"{row[best]:.4f}", *rest])


def write_forecasts(file: TextIO, labels: Sequence[str], outputs: "Tensor", spec: "DataSpec") -> None:
    """Forecasts as CSV: a row for each step after the last known one, a column for each that is forecast."""
    columns = [spec.columns[i].name for i in spec.target_columns]
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["input", "step", *columns])
    for label, values in zip(labels, outputs.view(len(labels), -1, len(columns)).tolist(), strict=True):
        for step, row in enumerate(values, 1):
            table.writerow([label, step, *(f"{number:.6g}" for number in row)])
