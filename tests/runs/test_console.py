"""The console: plain lines, the live display as a terminal shows it, the log, and what happens when nobody reads."""

import io
import logging
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console as RichConsole
from rich.text import Text

import dlrun
from dlrun.runs import console as module
from dlrun.runs.console import Console, Progress, Quiet, clock, number, summary_rows
from dlrun.runs.live import Live

ROOT = Path(dlrun.__file__).parent.parent
SUMMARY = {
    "status": "early_stopped",
    "epochs": 3.0,
    "steps": 30,
    "seconds": 125.2,
    "samples_per_second": 12345.6,
    "parameters": 1000,
    "monitor": "val/accuracy",
    "best": {"epoch": 2.0, "step": 20, "metrics": {"train/loss": 0.1, "val/loss": 0.5, "val/accuracy": 0.875}},
    "metrics": {"test/accuracy": 0.9, "test/loss": 0.25},
}


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """A clock that stands still unless moved."""
    moment = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: moment[0])
    return moment


@pytest.fixture
def log(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="dlrun")
    return caplog


def live(width: int = 80, height: int = 30) -> tuple[Console, RichConsole]:
    """A console with a live display on a terminal in memory."""
    terminal = RichConsole(file=io.StringIO(), force_terminal=True, width=width, height=height, highlight=False)
    return Console(view=Live(terminal)), terminal


def screen(terminal: RichConsole, console: Console) -> list[str]:
    """What the display shows at this moment, line by line."""
    paper = RichConsole(width=terminal.width, force_terminal=True)
    with paper.capture() as capture:
        paper.print(console._view.render())
    return Text.from_ansi(capture.get()).plain.splitlines()


def metrics(epoch: int) -> dict[str, float]:
    return {"train/loss": 1 / epoch, "val/loss": 2 / epoch, "val/accuracy": 1 - 0.5 / epoch, "val/f1": 0.1, "lr": 0.01}


def train(console: Console, now: list[float], epochs: int = 3, seconds: float = 2.0) -> None:
    """Ten steps an epoch, reported at the fifth and the tenth."""
    for epoch in range(1, epochs + 1):
        for step in (epoch * 10 - 5, epoch * 10):
            now[0] += seconds / 2
            console.progress(step, 1 / epoch, 0.01, 1234.5)
        console.evaluated(epoch, epoch * 10, metrics(epoch), "val/accuracy", is_best=epoch != 3)


def test_plain_lines_tell_the_run(now, capsys):
    console = Console(interactive=False)
    console.begin("digits-mlp", ["1000 parameters"], total_steps=30, steps_per_epoch=10)
    train(console, now)
    console.note("a note")
    console.warn("a warning")
    console.finish(SUMMARY, ["run  outputs/runs/x"])
    console.close()
    assert capsys.readouterr().out.splitlines() == [
        "digits-mlp",
        "1000 parameters",
        "epoch 1/3  step 10  train/loss 1.0000     val/loss 2.0000     val/accuracy 0.5000     lr 0.01        2.0 s  *",
        "epoch 2/3  step 20  train/loss 0.5000     val/loss 1.0000     val/accuracy 0.7500     lr 0.01        4.0 s  *",
        "epoch 3/3  step 30  train/loss 0.3333     val/loss 0.6667     val/accuracy 0.8333     lr 0.01        6.0 s",
        "a note",
        "warning: a warning",
        "",
        "Stopped early, no longer improving",
        "  best    epoch 2  val/accuracy 0.8750  val/loss 0.5000",
        "  test    accuracy 0.9000  loss 0.2500",
        "  time    2:05, 3 epochs, 30 steps, 12,346 samples/s",
        "run  outputs/runs/x",
    ]


def test_plain_progress_is_a_line_in_ten_seconds(now, capsys):
    console = Console(interactive=False)
    console.begin("run", [], total_steps=1000, steps_per_epoch=100)
    for step in range(1, 301):
        now[0] += 0.1
        console.progress(step, 0.5, 0.1, 640.0)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) in {2, 3}  # 30 s; the sum of 0.1 s may fall short of 10 s by a rounding error
    assert lines[0].startswith("epoch 2/10  step 10")
    assert lines[0].endswith("loss 0.5000  lr 0.1  640 samples/s  1:30 left")


def test_the_log_has_every_line_with_or_without_a_terminal(now, log, capsys):
    logged = []
    for console in (Console(interactive=False), live()[0]):
        log.clear()
        console.begin("digits-mlp", ["1000 parameters"], total_steps=200, steps_per_epoch=10)
        train(console, now, epochs=20)
        console.warn("a warning")
        console.finish(SUMMARY, ["run  outputs/runs/x"])
        console.close()
        logged.append([record.getMessage() for record in log.records])
        assert [record.getMessage() for record in log.records if record.levelname == "WARNING"] == ["a warning"]
    assert logged[0] == logged[1]
    assert sum(line.startswith("epoch") and "val/accuracy 0." in line for line in logged[0]) >= 20
    assert logged[0][:2] == ["digits-mlp", "1000 parameters"]
    assert logged[0][-1] == "run  outputs/runs/x"


@pytest.mark.parametrize("width", [80, 120])
def test_the_display_shows_table_bars_and_status_unbroken(now, width):
    console, terminal = live(width)
    console.begin("run", [], total_steps=50, steps_per_epoch=10)
    train(console, now)
    now[0] += 1
    console.progress(35, 0.25, 0.01, 1234.5)
    lines = screen(terminal, console)
    assert max(map(len, lines)) <= width
    header = lines[1].split()
    assert header == ["epoch", "step", "train/loss", "val/loss", "val/accuracy", "lr", "time"]
    assert [line.split() for line in lines[3:6]] == [
        ["1", "10", "1.0000", "2.0000", "0.5000", "0.01", "2.0", "s", "★"],
        ["2", "20", "0.5000", "1.0000", "0.7500", "0.01", "4.0", "s", "★"],
        ["3", "30", "0.3333", "0.6667", "0.8333", "0.01", "6.0", "s"],
    ]
    bars = [line for line in lines if "━" in line]
    assert bars[0].startswith("epoch 4/5")
    assert bars[0].rstrip().endswith("7.0 s, 3.0 s left")  # five steps a second, fifteen to go
    assert bars[1].startswith("step  5/10")
    assert lines[-1].strip() == "loss 0.2500  val/accuracy 0.8333 (best 0.7500)  lr 0.01  1,234 samples/s"
    console.close()


@pytest.mark.parametrize(("height", "rows"), [(40, 12), (16, 6), (5, 1)])
def test_a_long_run_shows_its_last_rows(height, rows, now):
    console, terminal = live(height=height)
    console.begin("run", [], total_steps=400, steps_per_epoch=10)
    train(console, now, epochs=30)
    shown = [int(line.split()[0]) for line in screen(terminal, console) if line.split() and line.split()[0].isdigit()]
    assert shown == list(range(31 - rows, 31))
    console.close()


def test_drawing_is_limited_to_ten_a_second_and_has_no_thread(now, monkeypatch):
    console, _ = live()
    drawn = []
    original = Live.draw
    monkeypatch.setattr(Live, "draw", lambda self, state: (drawn.append(state.step), original(self, state)))
    console.begin("run", [], total_steps=1000, steps_per_epoch=10)
    threads = threading.active_count()
    for step in range(1, 1001):
        now[0] += 0.001
        console.progress(step, 0.5, 0.1, 1.0)
    assert 9 <= len(drawn) <= 11
    assert threading.active_count() == threads
    console.close()


def test_a_report_costs_microseconds():
    console, _ = live()
    console.begin("run", [], total_steps=10**6, steps_per_epoch=1000)
    console.progress(1, 0.5, 0.1, 1.0)
    took = []
    for step in range(2, 2002):
        start = time.perf_counter()
        console.progress(step, 0.5, 0.1, 1.0)
        took.append(time.perf_counter() - start)
    assert sorted(took)[len(took) // 2] < 50e-6
    console.close()


def test_the_end_leaves_the_table_and_takes_the_bars_away(now):
    console, terminal = live()
    console.begin("run [red]x", [], total_steps=30, steps_per_epoch=10)
    train(console, now)
    command = "again  dlrun train --config-path " + "a" * 80
    console.finish(SUMMARY, [command])
    lines = screen(terminal, console)
    assert not any("━" in line for line in lines)
    assert any("0.8333" in line for line in lines)
    text = terminal.file.getvalue()
    assert "run [red]x" in text  # no markup
    assert "Stopped early" in text
    assert "accuracy 0.9000" in text
    assert command in text  # in one piece, to be copied


def test_closing_restores_the_cursor_and_may_be_repeated(now):
    console, terminal = live()
    console.close()
    console.begin("run", [], total_steps=30, steps_per_epoch=10)
    train(console, now, epochs=1)
    assert terminal.file.getvalue().count("\x1b[?25l") == 1
    console.close()
    console.close()
    assert terminal.file.getvalue().count("\x1b[?25h") == 1


def test_on_a_real_terminal_it_is_live_and_in_a_pipe_plain():
    code = (
        "import sys\n"
        "from dlrun.runs.console import Console\n"
        "c = Console(); c.begin('title', [], 10, 10); c.progress(5, 1.0, 0.1, 10.0)\n"
        "c.evaluated(1, 10, {'val/loss': 1.0}, 'val/loss', True); c.close()\n"
        "print('rich' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "False"  # a pipe does not pay for loading rich
    assert "\x1b" not in done.stdout
    main, secondary = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=secondary, env=environment, check=True)
    os.close(secondary)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert shown.rstrip().endswith("True")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_a_quiet_console_only_logs(now, log, capsys):
    console = Console(view=Quiet())
    console.begin("run", ["more"], total_steps=30, steps_per_epoch=10)
    train(console, now, seconds=30.0)
    console.warn("a warning")
    console.finish(SUMMARY, ["run  x"])
    console.close()
    assert capsys.readouterr() == ("", "")
    assert {"run", "more", "a warning", "run  x"} <= {record.getMessage() for record in log.records}


def test_training_goes_on_when_the_reader_has_left(now, log, monkeypatch):
    def refuse(*words, **options):
        raise BrokenPipeError

    console = Console(interactive=False)
    monkeypatch.setattr("builtins.print", refuse)
    console.begin("run", [], total_steps=30, steps_per_epoch=10)
    train(console, now)
    console.finish(SUMMARY, [])
    console.close()
    assert sum("training goes on" in record.getMessage() for record in log.records) == 1
    assert any("epoch 3/3" in record.getMessage() for record in log.records)


def test_a_resumed_run_reckons_from_where_it_starts(now):
    state = Progress(total_steps=25, steps_per_epoch=10, step=10)
    assert (state.epochs, state.epoch, state.step_in_epoch, state.steps_in_epoch) == (3, 2, 0, 10)
    assert state.seconds_left is None
    console = Console(interactive=False)
    console.begin("run", [], total_steps=25, steps_per_epoch=10, start_step=10)
    now[0] += 5
    console.progress(20, None, 0.1, 1.0)
    state = console._progress
    assert (state.epoch, state.step_in_epoch, state.steps_in_epoch) == (3, 0, 5)
    assert state.seconds_left == pytest.approx(2.5)  # ten steps took 5 s, five are left
    state.step = 25
    assert (state.epoch, state.step_in_epoch) == (3, 5)


def test_a_validation_in_mid_epoch_says_how_far(now, capsys):
    console = Console(interactive=False)
    console.begin("run", [], total_steps=30, steps_per_epoch=10)
    console.evaluated(1, 15, {"val/loss": 1.0, "val/rmse": 3.0}, "val/loss", is_best=True)
    line = capsys.readouterr().out.splitlines()[-1]
    assert " ".join(line.split()) == "epoch 1.50/3 step 15 val/loss 1.0000 val/rmse 3.0000 lr 0.0 s *"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.1235"), (0.0, "0.0000"), (123.0, "123.0000"), (0.001234, "1.234e-03"), (54321.0, "5.432e+04")],
)
def test_numbers_keep_four_digits(value, text):
    assert number(value) == text
    assert number(-value) in {"-" + text, text}


def test_nan_and_infinity_are_shown():
    assert (number(float("nan")), number(float("inf"))) == ("nan", "inf")


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 s"), (59.9, "59.9 s"), (125.4, "2:05"), (3599.7, "1:00:00"), (3725, "1:02:05")]
)
def test_times_are_read_at_a_glance(seconds, text):
    assert clock(seconds) == text


def test_a_failed_run_says_why_and_needs_nothing_else():
    assert summary_rows({"status": "failed", "error": "ValueError: no\n good"}) == [("error", "ValueError: no good")]
    assert summary_rows({"best": None, "metrics": {}, "seconds": 1.0}) == [("time", "1.0 s")]
