"""Reproductions and gradient checks: words that they do not take."""

from collections.abc import Callable

import pytest

from .conftest import Answer


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["run", "notebok"], ["there is no reproduction 'notebok'", "Did you mean 'notebook'?"]),
        (["run"], ["dlrun reproduce run needs an ID"]),
        (["notebook"], ["does list or run ID, got 'notebook'", "dlrun reproduce run 'notebook'"]),
        (["list", "notebook"], ["list takes no 'notebook'"]),
        (["run", "notebook", "slides"], ["takes one ID and KEY=VALUE, got 'slides'"]),
        (["run", "notebook", "seeds=1"], ["seeds must be a whole number >= 2, got '1'"]),
        (["run", "notebook", "long=yes"], ["long must be true or false, got 'yes'"]),
        (["run", "slides_perceptron", "epochs=2"], ["slides_perceptron trains no runs"]),
        (["run", "slides_moons", "trainer.epoch=2"], ["trainer.epoch", "epochs"]),
        (["run", "slides_moons", "--fast"], ["unknown option '--fast' of dlrun reproduce"]),
    ],
)
def test_refused(dlrun: Callable[..., Answer], words: list[str], needles: list[str]):
    dlrun("reproduce", *words).must_refuse(*needles)


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["norm=batch"], ["norm must be eval or train, got 'batch'"]),
        (["coordinates=0"], ["coordinates must be a whole number >= 1, got '0'"]),
        (["epsilon=-1"], ["epsilon must be a number > 0, got '-1'"]),
        (["-m", "seed=0,1"], ["dlrun gradcheck checks one run"]),
    ],
)
def test_gradcheck_refused(dlrun: Callable[..., Answer], words: list[str], needles: list[str]):
    dlrun("gradcheck", *words).must_refuse(*needles)
