"""Who imports whom (the contracts in pyproject.toml), and what start-up must not import."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from tests.recorded_runs import make_run

ROOT = Path(__file__).parent.parent
TRAINING = {
    "torch",
    "torchvision",
    "torch._dynamo",
    "sympy",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "PIL",
    "numpy",
}
HEAVY = TRAINING | {"torchmetrics", "hydra", "omegaconf", "rich", "yaml", "argparse", "dlrun.report.curves"}
TWO_CPUS = "from dlrun.report import painter; painter._cpus = lambda: 2"
COMPOSING = {"hydra", "omegaconf", "yaml", "argparse"}


def loaded_by(statements: str) -> set[str]:
    """The heavy packages that are loaded after `statements`, in a Python of its own."""
    code = f"{statements}\nimport sys; print(*sorted(set(sys.modules) & {HEAVY}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_layers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    status = lint_imports(no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_the_command_line_alone_loads_nothing_heavy():
    assert loaded_by("import dlrun.cli") == set()


def test_help_loads_nothing_heavy():
    assert loaded_by("from dlrun.cli import main; main(['--help'])") == set()


@pytest.mark.parametrize("words", [["glossary"], ["glossary", "show", "glorot"]])
def test_the_glossary_is_read_without_hydra_and_torch(words: list[str]):
    assert loaded_by(f"from dlrun.cli import main; assert main({words}) == 0") <= {*COMPOSING, "rich"} - {"hydra"}


def test_help_of_train_reads_yaml_and_loads_neither_hydra_nor_torch():
    assert loaded_by("from dlrun.cli import main; main(['train', '--help'])") <= {"yaml", "argparse"}


@pytest.mark.parametrize("module", ["dlrun.config.compose", "dlrun.config.check", "dlrun.commands.train"])
def test_composing_and_checking_load_no_torch(module: str):
    assert loaded_by(f"import {module}") <= COMPOSING


def test_a_whole_configuration_is_checked_without_torch():
    words = ["data=mnist", "model=cnn", "optimizer=muon", "scheduler=onecycle", "augment=cutmix", "loss=focal"]
    assert loaded_by(f"from dlrun.config.compose import compose; compose({words})") <= COMPOSING


def test_a_mistake_is_reported_without_torch():
    assert loaded_by("from dlrun.cli import main; assert main(['train', 'optimizer.lr=0']) == 2") <= COMPOSING


@pytest.mark.parametrize("data", ["digits", "xor"])
def test_a_training_loads_torch_and_numpy_and_nothing_else_that_is_heavy(data: str, tmp_path: Path):
    words = ["train", f"data={data}", "model=mlp", "trainer.epochs=1", f"hydra.run.dir={tmp_path}"]
    loaded = loaded_by(f"{TWO_CPUS}; from dlrun.cli import main; assert main({words}) == 0")
    assert loaded == {"torch", "numpy", *COMPOSING}
    assert (tmp_path / "plots" / "curves.png").stat().st_size > 0


def test_a_comparison_loads_nothing_heavy(tmp_path: Path):
    for number in range(3):  # of two rows there is a test, by NumPy and SciPy
        make_run(tmp_path / f"{number}", {"model.dropout": number / 10})
    assert loaded_by(f"from dlrun.cli import main; assert main(['compare', '{tmp_path}']) == 0") == {"yaml"}


def test_whoever_asks_for_a_sweep_loads_no_torch(tmp_path: Path):
    words = ["train", "-m", "data=xor", "trainer.epochs=1", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    loaded = loaded_by(f"from dlrun.cli import main; assert main({words}) == 0")
    assert loaded == COMPOSING
