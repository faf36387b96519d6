"""dlrun profile: the stopwatch and the trace against what is known of them, and the command on runs of every kind."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch._C._autograd import DeviceType

from dlrun import assembly
from dlrun.cli import main
from dlrun.config.compose import compose
from dlrun.errors import DlrunError
from dlrun.machine.clock import seconds_each
from dlrun.profiling import Profile, count_flops, prepare, try_larger
from dlrun.profiling.advice import suggestions
from dlrun.profiling.phases import Stopwatch, instrumented, replaced
from dlrun.profiling.steps import LEAST, timed_steps
from dlrun.profiling.trace import Trace, covered, read_trace
from dlrun.profiling.trace import _short as short_name

CPU = torch.device("cpu")
SMALL = ["data=digits", "data.limit=200", "data.batch_size=32", "trainer.epochs=2"]


def made(*words: str):
    return prepare(assembly.assemble(compose([*SMALL, *words]).config), 5)


def test_an_inner_phase_stops_the_clock_of_the_outer_one(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    watch = Stopwatch(CPU)
    with watch.running():  # one tick of the clock at every mark
        watch.lap()
        with watch.phase("forward"), watch.phase("loss"):
            pass
    # mark at the lap; forward's and loss's beginning; their ends; the end of all
    assert watch.seconds() == {"forward": 2.0, "loss": 1.0, "other": 2.0}


def test_the_slower_half_of_the_steps_is_left_out(monkeypatch):
    times = iter([0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 100.0, 100.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    watch = Stopwatch(CPU)
    with watch.running():
        for _ in range(3):
            watch.lap()
            watch._mark()
    assert watch.seconds() == {"other": pytest.approx((1 + 2) / 2)}


def test_phases_add_up_to_the_steps_and_the_parts_are_as_before_afterwards():
    training = made("augment=translate", "trainer.clip.norm=1", "trainer.ema=0.9")
    step, before = training.train_step, dict(vars(training.train_step))
    watch, backward = Stopwatch(CPU), torch.autograd.backward
    with instrumented(training, watch), watch.running():
        timing = timed_steps(training, 6, 60.0)
    assert timing.steps == 6
    phases = watch.seconds()
    wanted = {"data: gather", "data: augment", "data: normalise", "forward", "loss", "backward"}
    assert phases.keys() == wanted | {"gradient transforms", "optimizer", "schedule", "averages", "metrics", "other"}
    laps = sum(phases.values())
    assert 0 < laps <= timing.seconds / 6 * 1.01
    assert torch.autograd.backward is backward
    assert vars(step).keys() == before.keys()
    assert step.forward is before["forward"]
    assert step.objective is before["objective"]
    assert "step" not in vars(step.optimizer)
    assert "epoch" not in vars(training.loader)


def test_profiled_steps_train_as_undisturbed_ones():
    weights = []
    for profiled in (False, True):
        training = made("augment=translate", "model.dropout=0.2")
        if profiled:
            with instrumented(training, Stopwatch(CPU)):
                timed_steps(training, 4, 60.0)
        else:
            timed_steps(training, 4, 60.0)
        weights.append(torch.cat([p.detach().flatten() for p in training.model.parameters()]))
    assert torch.equal(*weights)


def test_replaced_brings_back_what_was_there_even_after_an_error():
    class Thing:
        def method(self) -> int:
            return 1

    thing = Thing()
    seen = []

    def fail() -> None:
        with replaced(thing, "method", lambda: 2):
            seen.append(thing.method())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [2]
    assert thing.method() == 1
    assert vars(thing) == {}


def test_steps_end_when_they_are_done_or_time_is_over():
    training = made()
    assert timed_steps(training, 7, 60.0).steps == 7
    assert timed_steps(training, 1000, 0.0).steps == LEAST
    assert training.step == 7 + LEAST
    assert timed_steps(training, 5, 60.0).samples <= 5 * 32


def test_a_schedule_is_long_enough_for_every_pass():
    training = made("scheduler=onecycle", "trainer.max_steps=3")
    assert timed_steps(training, 40, 60.0).steps == 40


def test_operations_are_those_of_the_products():
    training = made("model=mlp", "model.widths=[16]", "model.norm=none")
    # Forward 2·B·(64·16 + 16·10); backward the same for the weights, and for the inputs of the second layer alone.
    assert count_flops(training) == 2 * 32 * (2 * (64 * 16 + 16 * 10) + 16 * 10)


def test_operations_of_a_recurrent_model_and_of_attention_are_seen():
    rows = prepare(assembly.assemble(compose([*SMALL, "model=lstm", "model.hidden=8"]).config), 5)
    gates = 4 * 8 * (8 + 8)  # of one time step of one example: 4 gates, inputs and state
    assert (count_flops(rows) or 0) >= 2 * 32 * 8 * gates * 2


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0), ([(0, 2), (5, 6)], 3), ([(0, 4), (1, 2), (3, 6)], 6), ([(3, 6), (0, 4)], 6)],
)
def test_overlapping_kernels_are_counted_once(spans, length):
    assert covered(spans) == length


def test_a_measured_time_is_that_of_one_call(monkeypatch):
    clock = [0.0]

    def sleep() -> None:
        clock[0] += 0.5

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert seconds_each(sleep, CPU, budget=6.0) == pytest.approx(0.5)


def profile(**changes: object) -> Profile:
    """One in which there is nothing to suggest."""
    plain = {
        "name": "digits-mlp-adamw",
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "batch_size": 64,
        "steps": 50,
        "step_seconds": 0.01,
        "samples_per_second": 6400.0,
        "phases": {"data: gather": 0.001, "forward": 0.003, "backward": 0.005, "optimizer": 0.001},
        "trace": Trace([], []),
        "flops": 10**8,
        "peaks": {"fp32": 5e10},
        "memory_bytes": 1 << 30,
        "memory_total": 16 << 30,
        "loader": "resident",
        "fused": True,
        "settings": {
            "data": {"workers": 2},
            "trainer": {"accumulate": 1, "log_every": 50, "checkpoint_activations": False},
        },
    }
    return Profile(**{**plain, **changes})


TRAINER = {"accumulate": 2, "log_every": 50, "checkpoint_activations": True}
SLOW_DATA = {"data: wait for workers": 0.041, "data: augment": 0.0, "forward": 0.02, "backward": 0.039}
SLOW_AUGMENT = {"data: augment": 0.05, "forward": 0.02, "backward": 0.03}
SLOW_OPTIMIZER = {"forward": 0.05, "backward": 0.03, "optimizer": 0.02}
GPU = {"device": "cuda:0", "peaks": {"fp32": 5e13}}


@pytest.mark.parametrize(
    ("changes", "number", "words"),
    [
        ({"loader": "streaming", "phases": SLOW_DATA}, "data take 41% of a step", "data.loader=resident"),
        ({"phases": SLOW_AUGMENT}, "augmentation takes 50% of a step", "augment=none"),
        (
            {**GPU, "trace": Trace([], [], launches=312, busy_seconds=0.003)},
            "312 launches a step and the GPU idle 70%",
            "data.batch_size=256",
        ),
        ({**GPU, "trace": Trace([], [], waits=3, busy_seconds=0.0099)}, "waits for the GPU 3.0 times a step", ""),
        (
            {**GPU, "peaks": {"fp32": 5e13, "bf16": 6e14}, "trace": Trace([], [], busy_seconds=0.0099)},
            "600,000 GFLOP/s in bf16 here and at 50,000 in fp32",
            "trainer.precision=bf16",
        ),
        ({"threads": 2, "by_threads": {1: 0.001, 2: 0.002}}, "2 ms with 2 threads and 1 ms with 1 thread", "threads=1"),
        ({"larger": (256, 2.5)}, "2.5 times as many", "data.batch_size=256"),
        ({"phases": SLOW_OPTIMIZER, "fused": False}, "the optimizer takes 20% of a step", "optimizer.fused=true"),
        (
            {"settings": {"data": {"workers": 2}, "trainer": TRAINER}},
            "the first time 30% of a step, and only 6% of the memory",
            "trainer.checkpoint_activations=false",
        ),
    ],
)
def test_a_suggestion_names_the_number_and_what_to_type(changes, number, words):
    found = suggestions(profile(**changes))
    assert [number in suggestion.why and words in suggestion.words for suggestion in found] == [True]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loader": "streaming"},  # but it does not wait
        {"threads": 2, "by_threads": {1: 0.00198, 2: 0.002}},
        {"larger": (256, 1.1)},
        {"phases": SLOW_OPTIMIZER, "fused": None},  # there is no fused one
        {**GPU, "trace": Trace([], [], launches=312, busy_seconds=0.0095)},
        {**GPU, "trace": Trace([], [], launches=1, busy_seconds=0.001), "captured": True},
    ],
)
def test_without_a_number_nothing_is_suggested(changes):
    assert suggestions(profile(**changes)) == []


QUICK = ["steps=3", "trainer.threads=1"]


@pytest.fixture
def short(monkeypatch):
    """Measurements as short as can be: their worth is not what is tested."""
    for name in ("PASS_SECONDS", "TRY_SECONDS", "WARM_SECONDS"):
        monkeypatch.setattr(f"dlrun.profiling.{name}", 0.0)
    monkeypatch.setattr("dlrun.profiling.usable_cores", lambda: 1)
    monkeypatch.setattr("dlrun.profiling.peak_rate", lambda device, precision: 1e10)


def test_the_command_prints_tables_and_writes_a_trace(short, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", *SMALL, *QUICK, "augment=translate"]) == 0
    out = capsys.readouterr().out
    for text in ("forward", "backward", "data: augment", "optimizer", "aten::", "samples/s", "GFLOP/s", "→", "at most"):
        assert text in out
    (folder,) = (tmp_path / "outputs/profiles").iterdir()
    assert folder.name.endswith("_digits-mlp-adamw")
    names = {event.get("name") for event in json.loads((folder / "trace.json").read_text())["traceEvents"]}
    assert {"forward", "backward", "optimizer", "data: gather", "aten::addmm"} <= names
    numbers = json.loads((folder / "profile.json").read_text())
    assert numbers["phases"]["forward"] > 0
    assert numbers["flops"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
    assert not (tmp_path / "outputs/runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["data=diabetes", "model=mlp", "optimizer=muon", "trainer.sam.rho=0.05"],
        ["data=digits", "data.limit=200", "model=cnn", "trainer.accumulate=2", "trainer.precision=bf16"],
        ["data=digits", "data.limit=200", "trainer.precision=fp16", "trainer.clip.norm=1"],
        ["data=iris", "model=linear", "optimizer=lbfgs", "optimizer.max_iter=2"],
        ["data=moons", "data.loader=streaming", "data.workers=0", "trainer.lookahead.steps=2"],
        ["data=number_words", "data.limit=200", "model=seq2seq"],
        ["data=noisy_sine", "model=gru", "model.hidden=8", "scheduler=plateau", "scheduler.interval=metric"],
        ["data=digits", "data.limit=200", "model=mlp", "trainer.swa={}", "trainer.freeze={*: 50%, output: 0}"],
    ],
)
def test_every_kind_of_run_is_profiled(words, short, tmp_path, capsys):
    assert main(["profile", *words, *QUICK, f"out={tmp_path}"]) == 0, capsys.readouterr().err
    numbers = json.loads((tmp_path / "profile.json").read_text())
    assert numbers["phases"]["backward"] > 0
    assert numbers["step_seconds"] > 0


def test_a_divergence_is_said(tmp_path):
    training = made("optimizer=sgd", "optimizer.lr=1e30", "trainer.log_every=2")
    with pytest.raises(DlrunError, match=r"the loss became (nan|inf) at step \d+.*smaller optimizer.lr"):
        timed_steps(training, 40, 60.0)


def test_a_model_that_does_not_learn_has_no_steps(short, tmp_path, capsys):
    assert main(["profile", "data=noisy_sine", "model=last_value", f"out={tmp_path}"]) == 2
    assert "no trainable parameters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kernel", "short"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, x>(int, y)", "FillFunctor"),
        ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop>(cutlass::Params)", "Kernel2"),
    ],
)
def test_names_of_kernels_fit_into_a_table(kernel, short):
    assert short in short_name(kernel)
    assert len(short_name(kernel)) < 60


class Event:
    """What torch's profiler gives for an operator (or its average), a kernel, or a call of CUDA."""

    def __init__(self, name: str, device: DeviceType, begin: float = 0.0, end: float = 0.0, count: int = 1) -> None:
        self.key = self.name = name
        self.device_type, self.count = device, count
        self.time_range = SimpleNamespace(start=begin, end=end)
        self.self_device_time_total = self.self_cpu_time_total = end - begin


class Recorded:
    """Two steps on a GPU: two kernels that overlap, under a phase and torch's own range."""

    def events(self) -> list[Event]:
        gpu = DeviceType.CUDA
        kernels = [Event("void gemm<float>(int)", gpu, 10, 30), Event("void add<float>(int)", gpu, 20, 50)]
        return [*kernels, Event("forward", gpu, 0, 100), Event("Optimizer.step#SGD.step", gpu, 0, 100)]

    def key_averages(self) -> list[Event]:
        calls = [("cudaLaunchKernel", 6), ("cuLaunchKernelEx", 2), ("cudaStreamSynchronize", 1), ("cudaMemcpyAsync", 4)]
        return [*self.events(), *(Event(name, DeviceType.CPU, count=count) for name, count in calls)]


def test_launches_waits_and_idle_time_are_read_from_a_trace_of_a_gpu():
    trace = read_trace(Recorded(), torch.device("cuda", 0), steps=2)
    assert [(row.name, row.seconds) for row in trace.kernels] == [("add", 15e-6), ("gemm", 10e-6)]
    assert (trace.launches, trace.waits) == (4, 0.5)
    assert trace.busy_seconds == pytest.approx(40e-6 / 2)
    assert profile(**GPU, trace=trace, step_seconds=100e-6).idle == pytest.approx(0.8)


def test_a_larger_batch_that_only_fits_in_parts_is_not_called_a_larger_batch(short):
    a = assembly.assemble(compose([*SMALL, "data.batch_size=16"]).config)
    assert try_larger(a, prepare(a, 5), 5)[0] == 64
    whole = a.model.forward

    def narrow(x):
        if len(x) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(x)

    a.model.forward = narrow
    assert try_larger(a, prepare(a, 5), 5) is None
