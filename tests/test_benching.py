"""dlrun bench: rates against work whose amount is known, what follows from figures, and the command."""

import json
import math
import time

import pytest
import torch

from dlrun.benching import Figures, consequences, images, letters, thread_counts, training_rates
from dlrun.cli import main
from dlrun.machine import rates
from dlrun.machine.clock import seconds_each

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only what is measured moves."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("each", [0.5, 0.001, 50.0])
def test_a_measured_time_is_that_of_one_call(each, clock):
    def work() -> None:
        clock[0] += each

    assert seconds_each(work, CPU, budget=6.0) == pytest.approx(each)


def test_what_disturbs_a_round_does_not_count(clock):
    calls = []

    def work() -> None:
        calls.append(None)
        clock[0] += 1.0 if len(calls) < 8 else 9.0

    assert seconds_each(work, CPU, budget=6.0) == pytest.approx(1.0)


def test_a_slow_call_is_made_twice_only(clock):
    calls = []

    def work() -> None:
        calls.append(None)
        clock[0] += 3.0

    assert seconds_each(work, CPU, budget=0.1) == 3.0
    assert len(calls) == 2


def test_rates_are_work_over_time(monkeypatch):
    monkeypatch.setattr(rates, "seconds_each", lambda function, device, budget=0.1: (function(), 2.0)[1])
    assert rates.product_rate(CPU, "fp32", 16) == 2 * 16**3 / 2
    assert rates.copy_rate(CPU, megabytes=1) == 2 * (1 << 20) / 2
    assert rates.gather_rate(CPU) == 512 / 2
    assert rates.peak_rate(CPU, "fp32") == 2 * 256**3 / 2  # so slow that larger ones are not tried
    for layout in (True, False):
        assert rates.convolution_rate(CPU, "fp32", channels_last=layout) == 3 * 2 * 32**5 * 9 / 2
    assert rates.attention_rate(CPU, "fp32") > 0


def test_the_peak_is_that_of_the_best_size_that_does_not_take_too_long(monkeypatch):
    measured = {256: 1e9, 512: 4e9, 1024: 3e9}  # 2048 would take 2 · 2048³ / 3e9 = 5.7 s
    monkeypatch.setattr(rates, "product_rate", lambda device, precision, size, budget: measured[size])
    assert rates.peak_rate(CPU, "fp32") == 4e9


def test_threads_are_set_back_even_after_an_error():
    before = torch.get_num_threads()

    def fail() -> None:
        with rates.threads(before + 2):
            assert torch.get_num_threads() == before + 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_numbers_of_threads_that_are_tried(cores, counts, monkeypatch):
    monkeypatch.setattr("dlrun.benching.usable_cores", lambda: cores)
    assert thread_counts() == counts


@pytest.mark.parametrize(("make", "model"), [(images, "linear"), (letters, "gpt")])
def test_a_training_step_is_timed(make, model):
    words = [f"model={model}", *(["model.depth=1", "model.width=8", "model.heads=1"] if model == "gpt" else [])]
    assert training_rates(make, words, CPU, [1], 0.0)[1] > 0


def figures(**changes: object) -> Figures:
    plain = {
        "machine": {"cores": 4},
        "products": {"fp32, 1 thread": {512: 5e10}, "fp32, 4 threads": {512: 2e11}},
        "convolution": {"contiguous": 1e10, "channels_last": 2e10},
        "training": {"mlp": {1: 100.0, 4: 105.0}},
    }
    return Figures(**{**plain, **changes})


def test_nothing_follows_from_figures_that_are_alike():
    assert consequences(figures()) == []


def test_what_follows_names_the_number_and_what_to_type(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = consequences(
        figures(
            training={"mlp": {1: 150.0, 4: 100.0}, "cnn": {1: 100.0, 4: 300.0}},
            convolution={"contiguous": 1e10, "channels_last": 5e9},
            products={"fp32, 1 thread": {512: 5e10}, "bf16, 1 thread": {512: 2e11}},
        )
    )
    assert [words for _, words in found] == [
        "trainer.threads=1",
        "trainer.threads=4",
        "",
        "trainer.precision=bf16",
        "unset OMP_NUM_THREADS",
    ]
    for (why, _), number in zip(found, ("1.5 times", "3.0 times", "0.50 times", "4.0 times", "faster"), strict=True):
        assert number in why


def test_the_command_prints_a_table_and_writes_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dlrun.benching.STEPS", {"small": (images, ["model=linear", "data.batch_size=32"])})
    monkeypatch.setattr("dlrun.benching.usable_cores", lambda: 1)
    for name in ("seconds_each",):
        monkeypatch.setattr(rates, name, lambda function, device, budget=0.1: (function(), 0.5)[1])
    assert main(["bench", "--quick", "device=cpu", f"json={tmp_path / 'm.json'}"]) == 0
    out = capsys.readouterr().out
    for text in ("matrix products", "fp32, 1 thread", "small", "copy in memory", "JPEG", "torch"):
        assert text in out
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert numbers["products"]["fp32, 1 thread"]["256"] == 2 * 256**3 / 0.5
    assert all(math.isfinite(value) and value > 0 for value in numbers["training"]["small"].values())
    assert numbers["machine"]["cores"] == 1
