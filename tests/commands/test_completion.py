"""Tab completion: the words, and the scripts in real shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dlrun
from dlrun.commands import COMMANDS, completion
from dlrun.commands.completion import words
from dlrun.config.catalog import Catalog
from dlrun.contracts import Activation
from dlrun.errors import UsageError

ROOT = Path(dlrun.__file__).parent.parent


def names(group: str) -> list[str]:
    return [choice.name for choice in Catalog().choices(group)]


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """Two runs and a folder that is none."""
    for age, name in enumerate(["2026-01-01_new", "2025-01-01_old"]):
        folder = tmp_path / "outputs" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        (folder / "provenance.json").touch()
        os.utime(folder / "provenance.json", (1e9 - age, 1e9 - age))
    (tmp_path / "outputs" / "runs" / "broken").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dlrun ", list(COMMANDS)),
        ("dlrun e", ["evaluate"]),
        ("dlrun --", ["--help", "--version"]),
        ("dlrun nothing ", []),
        ("dlrun completion ", ["bash", "zsh", "fish"]),
        ("dlrun completion bash ", []),
        ("dlrun train opt", ["optimizer=", "optimizer."]),
        ("dlrun train ~los", ["~loss="]),
        ("dlrun train --cfg ", ["job", "hydra", "all"]),
        ("dlrun train --config-dir ", []),
        ("dlrun train --conf", ["--config-dir", "--config-path", "--config-name"]),
        ("dlrun doctor --", ["--help"]),
        ("dlrun compare --for", ["--format"]),
        ("dlrun compare last --format j", ["json"]),
        ("dlrun plan trainer.preci", ["trainer.precision="]),
        (
            "dlrun train trainer.precision=",
            [f"trainer.precision={p}" for p in ("auto", "fp32", "tf32", "bf16", "fp16")],
        ),
        ("dlrun train model.residual=", ["model.residual=true", "model.residual=false"]),
        ("dlrun train optimizer.lr=", ["optimizer.lr=1e-3"]),
        ("dlrun train ++optimizer.lr=", ["++optimizer.lr=1e-3"]),
        ("dlrun train seed=", ["seed=0"]),
        ("dlrun train nothing=", []),
        ("dlrun train model.nothing=", []),
        ("dlrun train -m loss=bce,hu", ["loss=bce,huber"]),
        ("dlrun list mod", ["model"]),
        ("dlrun list model len", ["lenet5"]),
        ("dlrun evaluate last split=", ["split=train", "split=val", "split=test"]),
        ("dlrun evaluate last ch", ["checkpoint="]),
        ("dlrun predict last ", []),
        ("dlrun predict last checkpoint=l", ["checkpoint=last"]),
        ("dlrun predict last a.png out", ["output="]),
        ("dlrun predict last output=", []),
        ("dlrun profile st", ["steps="]),
        ("dlrun profile trainer.thr", ["trainer.threads="]),
        ("dlrun profile out=", []),
        ("dlrun bench ", ["device=", "json="]),
        ("dlrun bench device=c", ["device=cpu", "device=cuda"]),
        ("dlrun bench --", ["--quick", "--help"]),
        ("dlrun gradcheck norm=", ["norm=eval", "norm=train"]),
        ("dlrun gradcheck model.bi", ["model.bias="]),
        ("dlrun glossary ", ["list", "show", "run"]),
        ("dlrun glossary run al", ["all"]),
        ("dlrun glossary show bias", ["bias_correction"]),
        ("dlrun glossary show adam l", ["lang="]),
        ("dlrun reproduce --", ["--config-dir", "--help"]),
        ("dlrun reproduce run no", ["notebook"]),
        ("dlrun reproduce run notebook fa", ["fair="]),
        ("dlrun reproduce run notebook long=", ["long=true", "long=false"]),
        ("dlrun reproduce run notebook trainer.ep", ["trainer.epochs="]),
        ("dlrun tune --config-dir mine tune.sampler=t", ["tune.sampler=tpe"]),
        ("dlrun plan --", ["--config-dir", "--config-path", "--config-name", "--help"]),
    ],
)
def test_words_that_may_stand_there(line, expected):
    assert words(line) == expected


def test_a_group_offers_its_choices():
    for group in Catalog().groups:
        assert words(f"dlrun train {group}=") == [f"{group}={name}" for name in names(group)]


def test_an_empty_line_offers_groups_and_settings_once():
    assert words("dlrun train ") == [f"{group}=" for group in Catalog().groups] + ["name=", "seed="]


def test_keys_are_those_of_the_choice_on_the_line():
    assert "model.widths=" in words("dlrun train model.")
    of_cnn = words("dlrun train data=mnist model=cnn model.")
    assert "model.channels=" in of_cnn
    assert "model.widths=" not in of_cnn
    assert "data.batch_size=" in words("dlrun train data.")


def test_values_come_from_the_signature():
    assert words("dlrun train model.activation=") == [f"model.activation={name}" for name in Activation.__args__]


def test_runs_are_offered_newest_first(runs):
    for command in ("resume", "evaluate", "predict"):
        assert words(f"dlrun {command} ") == ["last", "2026-01-01_new", "2025-01-01_old"]
    assert words("dlrun resume 2025") == ["2025-01-01_old"]
    assert words("dlrun resume outputs/") == []  # paths are the shell's business
    assert words("dlrun predict last ") == []


def test_a_folder_of_ones_own_is_completed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: a.b\nmy_width: 1\n")
    for option in (f"--config-dir {tmp_path}", f"--config-dir={tmp_path}"):
        assert "model=mine" in words(f"dlrun train {option} model=")
        assert words(f"dlrun train {option} model=mine model.my") == ["model.my_width="]


def test_a_broken_file_completes_nothing_and_says_nothing(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("a: [\n")
    assert completion.run(["--words", f"dlrun train --config-dir {tmp_path} model=mine model."]) == 0
    assert completion.run(["--words", "dlrun train --config-dir /nowhere model="]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("arguments", "message"), [([], "got ''"), (["fsh"], r"got 'fsh'\. Did you mean 'fish'\?")])
def test_an_unknown_shell_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        completion.run(arguments)


@pytest.fixture(scope="module")
def path_with_dlrun(tmp_path_factory) -> str:
    """A PATH on which `dlrun` is this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "dlrun"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m dlrun "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shell(program: str, script: str, path: str) -> list[str]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    flags = ["-f", "-c"] if program == "zsh" else ["-c"]
    environment = {**os.environ, "PATH": path, "TERM": "dumb"}
    done = subprocess.run(
        [program, *flags, script], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("dlrun tra", ["train"]),
        ("dlrun train model=le", ["lenet5"]),  # bash replaces what follows the =
        ("dlrun train -m loss=bce,hu", ["bce,huber"]),
        ("dlrun train trainer.precision=b", ["bf16"]),
        ("dlrun train schedu", ["scheduler=", "scheduler."]),
        ("dlrun predict last ", []),
    ],
)
def test_bash_completes(line, replies, path_with_dlrun):
    script = f"""
        eval "$(dlrun completion bash)"
        complete -p dlrun > /dev/null || exit 1
        COMP_LINE='{line} and what follows' COMP_POINT={len(line)}
        _dlrun dlrun
        [ ${{#COMPREPLY[@]}} -eq 0 ] || printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert shell("bash", script, path_with_dlrun) == replies


def test_zsh_reads_the_script(path_with_dlrun):
    script = 'autoload -U compinit; compinit -D; eval "$(dlrun completion zsh)"; print $_comps[dlrun]'
    assert shell("zsh", script, path_with_dlrun) == ["_dlrun"]


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("dlrun tra", ["train"]),
        ("dlrun train model=le", ["model=lenet5"]),
        (f"dlrun predict last {ROOT}/dlrun/cl", [f"{ROOT}/dlrun/cli.py"]),
    ],
)
def test_fish_completes(line, replies, path_with_dlrun):
    script = f"dlrun completion fish | source; complete -C '{line}'"
    assert [reply.split("\t")[0] for reply in shell("fish", script, path_with_dlrun)] == replies
