import pytest
import torch
from sklearn import datasets

from dlrun.contracts import Kind, Task
from dlrun.data import embedded
from dlrun.errors import DataError


def test_digits_are_sklearn_s_images_as_fractions_of_sixteen():
    splits = embedded.digits()
    bunch = datasets.load_digits()
    assert splits.spec.kind == Kind.IMAGE
    assert splits.spec.shape == (1, 8, 8) == splits.train.inputs.shape[1:]
    assert torch.equal(splits.train.inputs.flatten(1) * 16, torch.tensor(bunch.data, dtype=torch.float32))
    assert splits.train.inputs.min() == 0
    assert splits.train.inputs.max() == 1
    assert torch.equal(splits.train.targets, torch.tensor(bunch.target))
    assert splits.spec.class_names[3] == "3"


@pytest.mark.parametrize(("name", "classes"), [("iris", 3), ("wine", 3), ("breast_cancer", 2)])
def test_tables_are_sklearn_s_with_named_columns_and_classes(name: str, classes: int):
    splits = getattr(embedded, name)()
    bunch = getattr(datasets, f"load_{name}")()
    assert torch.equal(splits.train.inputs, torch.tensor(bunch.data, dtype=torch.float32))
    assert torch.equal(splits.train.targets, torch.tensor(bunch.target))
    assert splits.spec.name == name
    assert splits.spec.num_outputs == classes == len(splits.spec.class_names)
    assert splits.spec.class_names == tuple(bunch.target_names)
    assert [column.name for column in splits.spec.columns] == list(bunch.feature_names)
    assert splits.spec.shape == (bunch.data.shape[1],)


def test_diabetes_is_in_its_own_units():
    splits = embedded.diabetes()
    assert splits.spec.task == Task.REGRESSION
    assert splits.train.targets.shape == (442, 1)
    assert splits.train.targets.dtype == torch.float32
    ages = splits.train.inputs[:, [column.name for column in splits.spec.columns].index("age")]
    assert ages.min() == 19
    assert ages.max() == 79
    bunch = datasets.load_diabetes(scaled=False)
    assert torch.equal(splits.train.inputs, torch.tensor(bunch.data, dtype=torch.float32))
    assert torch.equal(splits.train.targets[:, 0], torch.tensor(bunch.target, dtype=torch.float32))
    assert [column.name for column in splits.spec.columns] == list(bunch.feature_names)


def test_a_scikit_learn_without_its_files_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"brings digits.csv.gz along.* pip install --force-reinstall scikit-learn"):
        embedded.digits()
