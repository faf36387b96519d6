"""Real data that ship inside scikit-learn: nothing to download, so every first command works offline.

Its files are read without importing it, which takes longer (1.2 s on two cores) than to read and to learn the digits.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from dlrun.contracts import Arrays, Column, DataSpec, Kind, Splits, Task
from dlrun.errors import DataError

WINE = (
    "alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
    "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline",
)  # fmt: skip
NUCLEI = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip


def digits() -> Splits:
    """1,797 handwritten digits, inputs (1, 8, 8) in [0, 1] (the source counts 0-16), ten classes.

    Source: Alpaydin & Kaynak 1998 (doi:10.24432/C50P49), the test part.
    """
    table = np.loadtxt(_file("digits.csv.gz"), delimiter=",")
    spec = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10, tuple("0123456789"))
    images = torch.from_numpy(table[:, :-1]).float().view(-1, 1, 8, 8) / 16
    return Splits(Arrays(images, torch.from_numpy(table[:, -1]).long()), spec)


def iris() -> Splits:
    """150 flowers, 4 lengths in cm, three species. Source: Fisher 1936 (doi:10.24432/C56C76)."""
    columns = [f"{part} {length} (cm)" for part in ("sepal", "petal") for length in ("length", "width")]
    return _classes("iris", "iris.csv", columns)


def wine() -> Splits:
    """178 wines, 13 chemical measurements, three growers. Source: Aeberhard & Forina 1991 (doi:10.24432/C5PC7J)."""
    return _classes("wine", "wine_data.csv", WINE)


def breast_cancer() -> Splits:
    """569 tumours, 30 features of cell nuclei, malignant or benign.

    Source: Wolberg et al. 1993 (doi:10.24432/C5DW2B).
    """
    columns = [
        f"{when}{what}{then}" for when, then in (("mean ", ""), ("", " error"), ("worst ", "")) for what in NUCLEI
    ]
    return _classes("breast_cancer", "breast_cancer.csv", columns)


def diabetes() -> Splits:
    """442 patients, 10 features in their own units; target (1,), progression after a year, 25 to 346.

    Source: Efron et al. 2004, Least Angle Regression (doi:10.1214/009053604000000067).
    """
    # Not the variant that has been standardised, with statistics of the test rows too.
    inputs = np.loadtxt(_file("diabetes_data_raw.csv.gz"))
    targets = np.loadtxt(_file("diabetes_target.csv.gz"))
    spec = _table("diabetes", ["age", "sex", "bmi", "bp", *(f"s{i}" for i in range(1, 7))], Task.REGRESSION, 1)
    return Splits(Arrays(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float().unsqueeze(1)), spec)


def _classes(name: str, file: str, columns: Sequence[str]) -> Splits:
    """A table whose first line ends with the names of the classes, and each other line with the number of one."""
    path = _file(file)
    with path.open(encoding="utf-8") as text:
        _, _, *classes = text.readline().strip().split(",")
        table = np.loadtxt(text, delimiter=",")
    spec = _table(name, columns, Task.CLASSIFICATION, len(classes), classes)
    return Splits(Arrays(torch.from_numpy(table[:, :-1]).float(), torch.from_numpy(table[:, -1]).long()), spec)


def _table(name: str, columns: Sequence[str], task: Task, outputs: int, classes: Sequence[str] = ()) -> DataSpec:
    described = tuple(Column(column) for column in columns)
    return DataSpec(name, task, Kind.VECTOR, (len(columns),), outputs, tuple(classes), columns=described)


def _file(name: str) -> Path:
    """A file of scikit-learn's. Raises: DataError if it is not there."""
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / name
        if path.is_file():
            return path
    raise DataError(
        f"scikit-learn brings {name} along, but it is not there: pip install --force-reinstall scikit-learn"
    )
