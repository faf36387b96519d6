"""Real data that ship inside scikit-learn: nothing to download, so every first command works offline."""

import torch
from sklearn import datasets
from sklearn.utils import Bunch

from dlrun.contracts import Arrays, Column, DataSpec, Kind, Splits, Task


def digits() -> Splits:
    """1,797 handwritten digits, inputs (1, 8, 8) in [0, 1] (the source counts 0-16), ten classes.

    Source: Alpaydin & Kaynak 1998 (doi:10.24432/C50P49), the test part.
    """
    bunch = datasets.load_digits()
    spec = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10, tuple("0123456789"))
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    return Splits(Arrays(images, torch.from_numpy(bunch.target).long()), spec)


def iris() -> Splits:
    """150 flowers, 4 lengths in cm, three species. Source: Fisher 1936 (doi:10.24432/C56C76)."""
    return _classes("iris", datasets.load_iris())


def wine() -> Splits:
    """178 wines, 13 chemical measurements, three growers. Source: Aeberhard & Forina 1991 (doi:10.24432/C5PC7J)."""
    return _classes("wine", datasets.load_wine())


def breast_cancer() -> Splits:
    """569 tumours, 30 features of cell nuclei, malignant or benign.

    Source: Wolberg et al. 1993 (doi:10.24432/C5DW2B).
    """
    return _classes("breast_cancer", datasets.load_breast_cancer())


def diabetes() -> Splits:
    """442 patients, 10 features in their own units; target (1,), progression after a year, 25 to 346.

    Source: Efron et al. 2004, Least Angle Regression (doi:10.1214/009053604000000067).
    """
    # scaled=False: the scaled variant has been standardised with statistics of the test rows too.
    bunch = datasets.load_diabetes(scaled=False)
    spec = _table("diabetes", bunch, Task.REGRESSION, 1)
    targets = torch.from_numpy(bunch.target).float().unsqueeze(1)
    return Splits(Arrays(torch.from_numpy(bunch.data).float(), targets), spec)


def _classes(name: str, bunch: Bunch) -> Splits:
    names = tuple(str(label) for label in bunch.target_names)
    spec = _table(name, bunch, Task.CLASSIFICATION, len(names), names)
    return Splits(Arrays(torch.from_numpy(bunch.data).float(), torch.from_numpy(bunch.target).long()), spec)


def _table(name: str, bunch: Bunch, task: Task, outputs: int, classes: tuple[str, ...] = ()) -> DataSpec:
    columns = tuple(Column(str(feature)) for feature in bunch.feature_names)
    return DataSpec(name, task, Kind.VECTOR, (len(columns),), outputs, classes, columns=columns)
