"""dlrun predict: a recorded run applied to new inputs."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dlrun.commands.words import take_run
from dlrun.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.contracts import DataSpec

HELP = """\
dlrun predict RUN INPUT… [checkpoint=best] [output=FILE.csv] [device=cpu]

  dlrun predict last digit.png                       one image
  dlrun predict last photos/                         every image in a folder, and in those below it
  dlrun predict 1a2b3c4d new_rows.csv output=predictions.csv

Rows of a CSV file are matched by column name and encoded as the training data were. Prints CSV: the input, then
class and probability (and all probabilities into output=FILE), or the value in the target's own units.
"""


def run(arguments: list[str]) -> int:
    """Predict and print or write CSV. Returns: the exit code."""
    names = [word for word in arguments if "=" not in word]
    if len(names) < 2:
        raise UsageError(
            "dlrun predict needs a RUN and at least one INPUT: an image, a folder of images or a CSV file."
        )
    settings = [word for word in arguments if "=" in word]
    directory, words = take_run(
        [names[0], *settings], "predict", {"checkpoint": ("best", "last"), "output": None, "device": None}
    )
    if "output" in words and not Path(words["output"]).absolute().parent.is_dir():
        raise UsageError(f"output={words['output']}: there is no folder {Path(words['output']).parent}; make it first.")
    missing = [name for name in names[1:] if not Path(name).exists()]
    if missing:
        raise DataError(f"{missing[0]}: there is no such file or folder to predict from.")
    from dlrun.contracts import DataSpec
    from dlrun.recorded import predict, read_checkpoint

    which = words.get("checkpoint", "best")
    spec = DataSpec.from_dict(read_checkpoint(directory, which)["spec"])
    labels, inputs = read_inputs([Path(name) for name in names[1:]], spec)
    outputs = predict(directory, inputs, which, words.get("device", "cpu"))
    if "output" not in words:
        write(sys.stdout, labels, outputs, spec, every=False)
        return 0
    with Path(words["output"]).open("w", newline="", encoding="utf-8") as file:
        write(file, labels, outputs, spec, every=True)
    print(f"{len(labels)} predictions in {words['output']}")
    return 0


def read_inputs(paths: Sequence[Path], spec: "DataSpec") -> "tuple[list[str], Tensor]":
    """Names and inputs of everything that the paths hold. Raises: DataError if they are not what the model reads."""
    import torch

    from dlrun.contracts import Kind
    from dlrun.inputs import IMAGE_SUFFIXES, encode_rows, read_image, read_rows

    if spec.kind is Kind.IMAGE:
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        files = [file for file in files if file in paths or file.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise DataError(f"{paths[0]}: no image ({', '.join(IMAGE_SUFFIXES)}) in it.")
        return [str(file) for file in files], torch.stack([read_image(file, spec) for file in files])
    if spec.kind is Kind.VECTOR and spec.columns:
        labels, parts = [], []
        for path in paths:
            if path.is_dir():
                raise DataError(f"{path} is a folder; data={spec.name} has rows of a table: give CSV files.")
            rows = read_rows(path)
            labels += [f"{path}:{number}" for number in range(1, len(rows) + 1)]
            try:
                parts.append(encode_rows(rows, spec.columns))
            except DataError as error:
                raise DataError(f"{path}, {error}") from None
        return labels, torch.cat(parts)
    raise DataError(
        f"data={spec.name} has {spec.kind.value}s of shape {spec.shape}; dlrun predict reads images and CSV rows."
    )


def write(file: TextIO, labels: Sequence[str], outputs: "Tensor", spec: "DataSpec", *, every: bool) -> None:
    """Predictions as CSV, one row an input; `every` adds the probability of each class."""
    from dlrun.contracts import Task

    table = csv.writer(file, lineterminator="\n")
    values = outputs.tolist()
    if spec.task is not Task.CLASSIFICATION:
        table.writerow(
            ["input", *(f"output_{i}" if spec.num_outputs > 1 else "value" for i in range(spec.num_outputs))]
        )
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
