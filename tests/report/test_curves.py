"""The curves: what is drawn, read back from the figure; and the file."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from dlrun.report.curves import DPI, draw_curves, plot_curves, series, write_png

EPOCHS = 6
STEPS = 10  # of an epoch


def run(factor: float = 0.7, epochs: int = EPOCHS) -> list[dict]:
    """The records of a run: the loss of a step in mid-epoch, then everything at its end."""
    records = []
    for epoch in range(1, epochs + 1):
        loss = 2 * factor**epoch
        middle = {
            "step": epoch * STEPS - 5,
            "epoch": epoch - 0.5,
            "time": 1.0,
            "train/step_loss": loss * 1.1,
            "lr": 0.1,
        }
        end = {
            "train/loss": loss,
            "train/accuracy": 1 - loss / 4,
            "val/loss": loss * 1.5,
            "val/accuracy": 1 - loss / 3,
        }
        records += [middle, {"step": epoch * STEPS, "epoch": float(epoch), "time": 2.0, **end}]
    return records


def figure(records: list[dict], best_step: int | None = 4 * STEPS, metric: str = "accuracy"):
    return draw_curves(records, metric=metric, best_step=best_step, title="digits-mlp-adamw")


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    """The points of every labelled line."""
    named = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in named}


def test_both_panels_draw_what_was_recorded():
    drawn = figure(run())
    loss, accuracy = drawn.axes
    epochs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    expected = [2 * 0.7**epoch for epoch in epochs]
    assert lines(loss)["training"] == (epochs, expected)
    assert lines(loss)["validation"] == (epochs, [1.5 * x for x in expected])
    assert lines(accuracy)["training"] == (epochs, [1 - x / 4 for x in expected])
    assert lines(accuracy)["validation"] == (epochs, [1 - x / 3 for x in expected])
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert {axes.get_xlabel() for axes in drawn.axes} == {"epoch"}
    assert drawn.get_suptitle() == "digits-mlp-adamw"


def test_the_loss_within_epochs_is_drawn_where_it_says_more():
    assert set(lines(figure(run(), best_step=None).axes[0])) == {"training", "validation"}
    often = [{"step": i, "epoch": i / STEPS, "time": 0.0, "train/step_loss": 1.0 / i} for i in range(1, 3 * STEPS)]
    within = lines(figure(often + run(), best_step=None).axes[0])["training, within epochs"]
    assert within[0][:4] == [0.1, 0.2, 0.3, 0.4]
    assert within[1][:4] == [1.0, 1 / 2, 1 / 3, 1 / 4]


def test_the_best_epoch_is_marked_with_its_value():
    for axes, value in zip(figure(run()).axes, (1.5 * 2 * 0.7**4, 1 - 2 * 0.7**4 / 3), strict=True):
        label = f"best, epoch 4: {value:.4g}"
        assert lines(axes)[label] == ([4.0], [value])
        assert label in [text.get_text() for text in axes.get_legend().get_texts()]
        assert any(list(line.get_xdata()) == [4.0, 4.0] for line in axes.get_lines())


@pytest.mark.parametrize("best_step", [None, 4 * STEPS + 1])
def test_nothing_is_marked_without_a_best_step(best_step):
    for axes in figure(run(), best_step=best_step).axes:
        assert not any("best" in label for label in lines(axes))


@pytest.mark.parametrize(("factor", "scale"), [(0.7, "linear"), (0.2, "log")])
def test_a_loss_over_two_decades_is_logarithmic(factor, scale):
    loss, accuracy = figure(run(factor)).axes
    assert loss.get_yscale() == scale
    assert accuracy.get_yscale() == "linear"


def test_a_loss_of_zero_or_below_stays_linear():
    records = [{"step": i, "epoch": i, "time": 0, "train/loss": x} for i, x in enumerate([1000.0, 1.0, 0.0], 1)]
    assert figure(records).axes[0].get_yscale() == "linear"
    records[-1]["train/loss"] = -5.0  # a log-likelihood
    assert figure(records).axes[0].get_yscale() == "linear"


def test_lines_differ_in_grey_print():
    loss = figure(run()).axes[0]
    styles = {
        line.get_label(): (line.get_linestyle(), line.get_marker(), line.get_color()) for line in loss.get_lines()
    }
    for a, b in zip(styles["training"], styles["validation"], strict=True):
        assert a != b


def test_a_single_point_has_a_marker():
    for axes in figure(run(epochs=1), best_step=None).axes:
        marked = {line.get_label(): line.get_marker() for line in axes.get_lines() if len(line.get_xdata()) == 1}
        assert set(marked) == {"training", "validation"}
        assert not {"", "None", None} & set(marked.values())


def test_many_points_have_none():
    loss = figure(run(0.99, epochs=100)).axes[0]
    assert {line.get_marker() for line in loss.get_lines() if line.get_label() == "validation"} == {""}


def test_epochs_on_the_axis_are_whole():
    for epochs in (1, 2, 3, 40):
        drawn = figure(run(0.99, epochs=epochs))
        drawn.canvas.draw()
        ticks = drawn.axes[0].get_xticks()
        assert np.allclose(ticks, np.round(ticks))


def test_a_run_monitored_by_its_loss_has_one_panel():
    assert [axes.get_ylabel() for axes in figure(run(), metric="loss").axes] == ["loss"]


def test_records_of_a_repeated_step_count_once():
    records = [{"step": 1, "epoch": 1, "val/loss": 5.0}, {"step": 2, "epoch": 2, "val/loss": 4.0}]
    records += [{"step": 1, "epoch": 1, "val/loss": 3.0}, {"step": 2, "epoch": 2, "test/loss": 1.0}]
    assert series(records, "val/loss") == ([1.0, 2.0], [3.0, 4.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_run_is_drawn_as_far_as_it_went(bad, tmp_path):
    records = run()
    records[-1].update({"train/loss": bad, "val/loss": bad})
    plot_curves(records, tmp_path / "curves.png", metric="accuracy", best_step=None, title="")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_a_run_without_records_says_so(tmp_path):
    drawn = figure([], best_step=None)
    assert [axes.texts[0].get_text() for axes in drawn.axes] == ["nothing recorded"] * 2
    plot_curves([], tmp_path / "curves.png", metric="accuracy", best_step=None, title="")


def test_the_file_is_a_png_with_the_lines_in_their_colours(tmp_path):
    path = tmp_path / "curves.png"
    path.write_bytes(b"what was there before")
    plot_curves(run(), path, metric="accuracy", best_step=4 * STEPS, title="a $ in_the title")
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (1560, 570)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    pixels = imread(path)[..., :3].reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)):
        assert (np.abs(pixels - np.array(colour) / 255).max(axis=1) < 0.01).sum() > 200


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        plot_curves(run(), tmp_path / "no" / "curves.png", metric="accuracy", best_step=None, title="")
    assert list(Path(tmp_path).iterdir()) == []


def test_the_file_is_what_matplotlib_would_save():
    ours, theirs = BytesIO(), BytesIO()
    write_png(figure(run()), ours)
    figure(run()).savefig(theirs, format="png", dpi=DPI)
    assert ours.getvalue() == theirs.getvalue()
