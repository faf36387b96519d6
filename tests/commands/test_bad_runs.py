"""Commands on recorded runs: of nothing, of the wrong one, of one that cannot go on as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Answer, call, contents

ROWS = "".join(f"{i * 0.37 % 5:.2f},{i * i % 7},{'ab'[i % 2]}\n" for i in range(60))
TRAIN = ("train", "data=csv", "data.path=table.csv", "data.target=kind", "trainer.max_steps=4", "hydra.run.dir=run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a completed run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "table.csv").write_text("length,width,kind\n" + ROWS)
    answer = call(TRAIN, folder)
    assert answer.code == 0, answer
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path, dirs_exist_ok=True, symlinks=True))


@pytest.fixture
def stopped(work: Path) -> Path:
    """The same as if the run had been killed before its summary."""
    (work / "run" / "summary.json").unlink()
    return work


@pytest.mark.parametrize("command", ["resume", "evaluate"])
@pytest.mark.parametrize(
    ("words", "needles"),
    [
        ([], ["needs a RUN", "'last'"]),
        (["last"], ["no run yet", "outputs/runs", "dlrun train"]),
        (["nope"], ["no run 'nope'", "'last'"]),
        (["1a2b3c4d"], ["no run '1a2b3c4d'"]),
        (["empty"], ["empty is not a run", "config.yaml"]),
        (["--last"], ["unknown option '--last'", "--help"]),
        (["last", "chekpoint=best"], ["'chekpoint=best'", "takes"]),
    ],
    ids=str,
)
def test_of_nothing(command: str, words: list[str], needles: list[str], tmp_path: Path, dlrun: Callable[..., Answer]):
    (tmp_path / "empty").mkdir()
    dlrun(command, *words).must_refuse(*needles)


def test_of_several(dlrun: Callable[..., Answer]):
    dlrun("resume", "a", "b").must_refuse("one RUN", "a and b")
    dlrun("evaluate", "a", "b").must_refuse("no run 'a'")


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        ("evaluate run split=tset", ["split", "'tset'", "train, val, test", "Did you mean 'test'?"]),
        ("evaluate run checkpoint=beste", ["checkpoint", "'beste'", "best, last, snapshots"]),
        ("evaluate run run", ["run is named twice"]),
        ("evaluate run checkpoint=snapshots", ["no snapshots", "callbacks=snapshots"]),
        ("evaluate run temperature=0", ["temperature", "> 0", "'0'"]),
        ("evaluate run temperature=warm", ["temperature", "a number", "'warm'"]),
        ("evaluate run mc_dropout=1", ["mc_dropout", ">= 2", "'1'"]),
        ("evaluate run mc_dropout=5", ["mc_dropout=5", "nothing is dropped"]),
        ("evaluate run device=gpu", ["device", "'gpu'", "cuda:N"]),
        ("evaluate run spilt=val", ["'spilt=val'", "split", "Did you mean 'split'?"]),
        ("resume run trainer.epochs=9", ["'trainer.epochs=9'", "no settings"]),
        ("predict", ["RUN", "INPUT"]),
        ("predict run", ["RUN", "INPUT"]),
        ("predict run nope.csv", ["nope.csv", "no such file"]),
        ("predict run photo.png", ["photo.png"]),
        ("predict run short.csv", ["short.csv", "'width'"]),
        ("predict run words.csv", ["words.csv", "'long'", "length"]),
        ("predict run table.csv tokens=5", ["tokens=5", "language modelling", "classification"]),
        ("predict run table.csv attention=a.png", ["attention=a.png", "sequence to sequence", "classification"]),
        ("predict run table.csv temperature=-1", ["temperature", ">= 0", "'-1'"]),
        ("predict run table.csv outptu=a.csv", ["'outptu=a.csv'", "Did you mean 'output'?"]),
        ("predict run --all table.csv", ["unknown option '--all'"]),
        ("predict run table.csv device=gpu", ["device", "'gpu'", "cuda:N"]),
        ("predict run table.csv output=nope/out.csv", ["output", "nope/out.csv"]),
    ],
)
def test_words_that_do_not_suit_a_run(words: str, needles: list[str], work: Path):
    (work / "photo.png").write_bytes(b"\x89PNG no more")
    (work / "short.csv").write_text("length\n3.5\n")
    (work / "words.csv").write_text("length,width\nlong,3\n")
    call(words.split(), work).must_refuse(*needles)


def test_resume_of_a_completed_run(work: Path):
    call(["resume", "run"], work).must_refuse("run is completed", "nothing to resume", "trainer.epochs=N")


def test_resume_of_a_diverged_run(work: Path):
    (work / "run" / "summary.json").write_text('{"status": "diverged"}')
    call(["resume", "run"], work).must_refuse("run diverged", "repeats the same steps")


def test_resume_with_an_edited_config_says_what_differs(stopped: Path):
    config = stopped / "run" / "config.yaml"
    text = config.read_text()
    assert "lr: 0.001\n" in text
    config.write_text(text.replace("lr: 0.001\n", "lr: 0.01\n"))
    call(["resume", "run"], stopped).must_refuse("run/config.yaml", "edited", "optimizer.lr: 0.001 -> 0.01", "undo")


def test_resume_with_a_config_that_is_no_longer_one(stopped: Path):
    config = stopped / "run" / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001\n", "lr: -1\n"))
    call(["resume", "run"], stopped).must_refuse("optimizer.lr", "-1", "> 0")
    config.write_text("optimizer: [\n")
    call(["resume", "run"], stopped).must_refuse("config.yaml", "cannot be read")


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_other_data_than_those_of_the_run(command: str, stopped: Path):
    table = stopped / "table.csv"
    table.write_text(table.read_text().replace("0.37,", "0.38,"))
    call([command, "run"], stopped).must_refuse("run", "data are not those", "fingerprint", "data.path")


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_data_that_have_gone(command: str, stopped: Path):
    (stopped / "table.csv").unlink()
    call([command, "run"], stopped).must_refuse("data.path=", "table.csv", "No such file")


def test_resume_when_every_checkpoint_is_damaged(stopped: Path):
    for file in (stopped / "run" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    call(["resume", "run"], stopped).must_refuse("last.pt is damaged", "begin the run again")


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_evaluate_without_a_checkpoint(checkpoint: str, stopped: Path):
    (stopped / "run" / "checkpoints" / f"{checkpoint}.pt").unlink()
    call(["evaluate", "run", f"checkpoint={checkpoint}"], stopped).must_refuse(f"no {checkpoint}.pt", "dlrun resume")


def test_evaluate_of_a_completed_run_without_a_checkpoint(work: Path):
    (work / "run" / "checkpoints" / "best.pt").unlink()
    call(["evaluate", "run"], work).must_refuse("no best.pt", "completed", "removed", "checkpoint=last")


def test_a_second_run_in_the_same_folder(work: Path):
    call(TRAIN, work).must_refuse("hydra.run.dir=", "already holds a run", "dlrun resume run")


def test_an_ambiguous_run(work: Path):
    run_id = json.loads((work / "run" / "provenance.json").read_text())["run_id"]
    for name in ("one", "two"):
        shutil.copytree(work / "run", work / "outputs" / "runs" / name)
    call(["evaluate", run_id], work).must_refuse(f"'{run_id}' names 2 runs", "outputs/runs/one", "outputs/runs/two")


@pytest.mark.parametrize("folder", ["file", "file/run", "/proc/run"])
def test_a_run_directory_that_cannot_be(folder: str, tmp_path: Path, dlrun: Callable[..., Answer]):
    (tmp_path / "file").write_text("in the way")
    dlrun("train", "data=iris", "trainer.max_steps=1", f"hydra.run.dir={folder}").must_refuse(
        "hydra.run.dir", folder, "cannot"
    )


def test_a_recorded_run_again_with_a_mistake(work: Path):
    before = contents(work)
    answer = call(["train", "--config-path", "run", "--config-name", "config", "trainer.epoch=3"], work)
    answer.must_refuse("'trainer.epoch'", "Did you mean 'epochs'?")
    assert contents(work) == before
