"""Callbacks of the run itself."""

from types import SimpleNamespace

import torch
from torch import nn

from dlrun.engine.callbacks import BestWeights


def validated(best: BestWeights, model: nn.Module, value: float) -> None:
    improves = lambda value, before: value > before  # noqa: E731
    training = SimpleNamespace(monitor="val/accuracy", progress=1.0, step=1, evaluated_model=model, improves=improves)
    best.on_validate(training, {"val/accuracy": value, "val/loss": 1.0})


def model_of(value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to(dtype)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def held(best: BestWeights) -> set[float]:
    return {float(number) for tensor in best.weights.values() for number in tensor.flatten()}


def test_the_best_weights_are_copied_and_the_copy_is_used_again():
    best, model = BestWeights(), model_of(1)
    validated(best, model, 0.5)
    places = [tensor.data_ptr() for tensor in best.weights.values()]
    model.load_state_dict(model_of(2).state_dict())
    assert held(best) == {1.0}
    validated(best, model, 0.4)
    assert held(best) == {1.0}
    validated(best, model, 0.6)
    assert held(best) == {2.0}
    assert [tensor.data_ptr() for tensor in best.weights.values()] == places
    assert not set(places) & {tensor.data_ptr() for tensor in model.state_dict().values()}


def test_a_copy_of_another_type_or_shape_is_replaced():
    best = BestWeights()
    validated(best, model_of(1), 0.5)
    validated(best, model_of(2, torch.float64), 0.6)
    assert (held(best), best.weights["0.weight"].dtype) == ({2.0}, torch.float64)
    validated(best, nn.Linear(1, 1), 0.7)
    assert set(best.weights) == {"weight", "bias"}


def test_state_that_is_not_a_tensor_is_kept_too():
    class Counting(nn.Linear):
        count = 0

        def get_extra_state(self) -> int:
            return self.count

        def set_extra_state(self, state: int) -> None:
            self.count = state

    best, model = BestWeights(), Counting(1, 1)
    for value in (0.5, 0.6):
        model.count += 1
        validated(best, model, value)
    assert best.weights["_extra_state"] == 2
