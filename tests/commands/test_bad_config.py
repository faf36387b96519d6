"""Mistakes in what is typed, each refused by the command itself, before torch is imported or anything written.

The commands run in processes in which importing torch is an error; one of each kind also as a user would run it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

import dlrun

from .conftest import Answer, contents

ROOT = Path(dlrun.__file__).parent.parent

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, spec, *, width: int = 8, mode: str = "a"):
        super().__init__()


class Wide(Net):
    """With the arguments of the class it extends."""
'''

FILES = {
    "mine/nets.py": NETS,
    "mine/unfinished.py": "def net(:\n",
    "mine/model/net.yaml": "_target_: nets.Net\nwidth: 8\n",
    "mine/model/wide.yaml": "_target_: mine.nets.Wide\nwidth: 8\n",
    "mine/model/typo.yaml": "_target_: nets.Net\nwitdh: 8\n",
    "mine/model/absent.yaml": "_target_: nets.Ned\n",
    "mine/model/no_module.yaml": "_target_: netz.Net\n",
    "mine/model/no_file.yaml": "_target_: mine.netz.Net\n",
    "mine/model/syntax.yaml": "_target_: unfinished.net\n",
    "mine/model/no_target.yaml": "width: 8\n",
    "mine/model/broken.yaml": "_target_: nets.Net\n  width: [8\n",
    "mine/model/number.yaml": "3\n",
    "mine/model/loop.yaml": "_target_: nets.Net\nwidth: ${model.width}\n",
    "mine/optimizer/typo.yaml": "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\nmomentun: 0.9\n",
    "mine/scheduler/typo.yaml": "_target_: torch.optim.lr_scheduler.StepLR\n_partial_: true\nstep_sise: 3\n",
    "mine/augment/typo.yaml": "flip:\n  _target_: dlrun.augment.Flip\n  q: 0.5\n",
    "mine/callbacks/typo.yaml": "own:\n  _target_: nets.Ned\n",
    "mine/experiment/typo.yaml": "# @package _global_\ntrainer:\n  epoch: 3\n",
    "file.txt": "not a folder\n",
}

# What is typed, and what the answer must hold: key, received value, what is allowed.
WORDS = {
    "trian": ["'trian'", "one of train, tune, resume", "Did you mean 'train'?"],
    "--config-dir": ["'--config-dir'", "the command comes first"],
    "train --foo": ["'--foo'", "dlrun train --help"],
    "train --mutlirun seed=1,2": ["'--mutlirun'", "Did you mean '--multirun'?"],
    "train --trainer.epochs=3": ["'--trainer.epochs=3'", "write trainer.epochs=3"],
    "train --config-dir": ["--config-dir", "expected one argument"],
    "train --config-dir nope": ["--config-dir nope", "no such folder"],
    "train --config-dir file.txt": ["--config-dir file.txt", "no such folder"],
    "train --config-path nope": ["--config-path nope", "no such folder"],
    "train --config-name nope": ["--config-name nope", "only train"],
    "train --cfg jobb": ["--cfg", "'jobb'", "'job'"],
    "train --info nope": ["--info", "'nope'", "'defaults'"],
    "train --cfg job model=cnnn": ["model=cnnn", "one of the", "Did you mean 'cnn'?"],
    "train --cfg job --package nope": ["--package nope", "no such part"],
    "train --package model": ["--package", "--cfg job"],
    "train --resolve": ["--resolve", "--cfg job"],
    "train --cfg job -m seed=1,2": ["--cfg", "--multirun", "give one"],
    "profile -m seed=0,1": ["dlrun profile measures one run", "-m"],
    "profile --cfg job": ["dlrun profile measures one run", "--cfg"],
    "profile steps=0": ["steps", "a whole number >= 1", "'0'"],
    "profile steps=many": ["steps", "a whole number >= 1", "'many'"],
    "profile setps=5": ["'setps'", "setps=5", "Did you mean 'steps'?"],
    "profile model=cnn ouT=x": ["'ouT'", "Did you mean 'out'?"],
    "profile steps=5 steps=6": ["steps is given twice", "'5' and '6'"],
    "profile trainer.epochs=0": ["trainer.epochs", "0", "a whole number >= 1"],
    "profile --hydra-help": ["dlrun profile measures one run", "--hydra-help"],
    "profile out=mine/nets.py": ["out=mine/nets.py", "nets.py is a file", "another folder"],
    "profile out=mine/nets.py/deep": ["out=mine/nets.py/deep", "nets.py is a file", "another folder"],
    "profile --steps=5": ["unknown option '--steps=5'", "write steps=5"],
    "bench device=gpu": ["device must be one of auto, cpu", "'gpu'"],
    "bench devise=cpu": ["devise=cpu", "Did you mean 'device'?"],
    "bench --fast": ["'--fast'", "--quick, device and json=FILE"],
    "bench json=nowhere/m.json": ["json=nowhere/m.json", "no folder nowhere"],
    "bench json=.": ["json=.", "no name of a file", "json=bench.json"],
    "bench json=": ["json=", "no name of a file", "json=bench.json"],
    "train --experimental-rerun x": ["--experimental-rerun", "dlrun resume"],
    "train -sc": ["--shell-completion", "dlrun completion"],
    "train logger": ["'logger'", "logger=NAME", "tensorboard"],
    "train mnist": ["'mnist'", "write data=mnist"],
    "train data/mnist": ["'data/mnist'", "write data=mnist"],
    "train trainer.epochs": ["'trainer.epochs'", "write trainer.epochs=VALUE"],
    "train help": ["'help'", "dlrun train --help"],
    "train nonsense": ["'nonsense'", "KEY=VALUE"],
    "train =3": ["'=3'", "no key", "KEY=VALUE"],
}
CHOICES = {
    "train data=mnst": ["data=mnst", "one of the", "`dlrun list data`", "Did you mean 'mnist'?"],
    "train optimizer=adamv": ["optimizer=adamv", "one of", "adadelta", "Did you mean 'adam"],
    "train experiment=nope": ["experiment=nope", "must be"],
    "train augment=[translate,cutot]": ["augment=cutot", "one of", "crop_flip", "Did you mean 'cutout'?"],
    "train loss=mes": ["loss=mes", "one of", "auto", "Did you mean 'mse'?"],
    "train modle=cnn": ["'modle'", "modle=cnn", "Did you mean 'model'?"],
    "train model=": ["model must be chosen", "one of the", "`dlrun list model`", "'model='"],
    "train model=null": ["model must be chosen", "one of the", "`dlrun list model`", "'model=null'"],
    "train ~model": ["model must be chosen", "one of the", "`dlrun list model`", "'~model'"],
    "train ~data": ["data must be chosen", "one of the", "'~data'"],
    "train trainer=null": ["trainer must be chosen", "default", "trainer=null"],
    "train trainer=3": ["trainer=3", "must be one of default"],
    "train model=[mlp,cnn]": ["model=[mlp,cnn]", "one choice", "-m model=mlp,cnn"],
    "train model=_x": ["model=_x", "one of the", "`dlrun list model`"],
    "train data=/mnist": ["data=/mnist", "one of the", "`dlrun list data`"],
    "train data=_common": ["data=_common", "one of the", "`dlrun list data`"],
    "train model=cnn model=mlp": ["model", "twice", "model=cnn and model=mlp", "keep one"],
    "train +model=cnn": ["+model=cnn", "write model=cnn"],
    "train ++model=cnn": ["++model=cnn", "write model=cnn"],
    "train model=mlp,cnn": ["model=mlp,cnn", "several values", "add -m"],
    "train optimizer=glob(ada*)": ["optimizer=glob(ada*)", "add -m"],
    "train hydra/launcher=nope": ["hydra/launcher=nope", "one of", "basic"],
    "train data@other=mnist": ["data@other", "Did you mean to override data?"],
}
KEYS = {
    "train optimizer.lrr=0.1": ["'optimizer.lrr'", "optimizer.lrr=0.1", "Did you mean 'lr'?", "weight_decay"],
    "train trainer.epoch=3": ["'trainer.epoch'", "Did you mean 'epochs'?", "max_steps"],
    "train trainer.sam.roh=1": ["'trainer.sam.roh'", "Did you mean 'rho'?", "adaptive"],
    "train trainer.clip.nrm=1": ["'trainer.clip.nrm'", "Did you mean 'norm'?", "value"],
    "train optimizr.lr=0.1": ["'optimizr.lr'", "Did you mean 'optimizer.lr'?"],
    "train trainer.clp.norm=1": ["'trainer.clp.norm'", "Did you mean 'trainer.clip.norm'?"],
    "train optimizer.param_groups.lr_factor={a:2}": [
        "'optimizer.param_groups.lr_factor'",
        "Did you mean 'lr_factors'?",
    ],
    "train optimizer=sgd optimizer.momentun=0.9": ["'optimizer.momentun'", "Did you mean 'momentum'?"],
    "train loss.nope=1": ["'loss.nope'", "no keys"],
    "train data.root=x": ["'data.root'", "batch_size"],
    "train foo=1": ["'foo'", "foo=1", "The keys are", "optimizer"],
    "train +foo=1": ["'foo'", "The keys are", "optimizer"],
    "train +model.foo=1": ["'model.foo'", "dlrun.models.mlp.mlp takes", "widths"],
    "train ~nope": ["'nope'", "The keys are"],
    "train model.widths.x=3": ["model.widths.x", "model.widths is [256, 128]"],
    "train trainer.epochs.x=3": ["trainer.epochs.x", "trainer.epochs is 30"],
    "train trainer.early_stopping=null trainer.early_stopping.patience=3": [
        "trainer.early_stopping.patience",
        "trainer.early_stopping=null",
        "drop one",
    ],
    "train experiment.x=1": ["experiment.x", "experiment=NAME"],
    "train augment=cutout augment.cutout.sise=3": ["'augment.cutout.sise'", "Did you mean 'size'?"],
    "train hydra.foo=1": ["'hydra.foo'", "hydra has", "run"],
    "train hydra.run.dri=x": ["'hydra.run.dri'", "Did you mean 'dir'?"],
    "train hydra=x": ["hydra=x", "hydra.run.dir=DIR"],
}
VALUES = {
    "train trainer.distill={alpha:0.5}": ["trainer.distill.run is missing"],
    "train trainer.freeze={head:never}": ["trainer.freeze", "always or a length", "never"],
    "train trainer.swa.start=soon": ["trainer.swa.start", "a length", "'soon'"],
    "train trainer.epochs=-1": ["trainer.epochs", "-1", "a whole number >= 1"],
    "train trainer.epochs=abc": ["trainer.epochs", "'abc'", "a whole number >= 1"],
    "train trainer.epochs=1.5": ["trainer.epochs", "1.5", "a whole number >= 1"],
    "train trainer.eval_every=0": ["trainer.eval_every", "0", "above 0"],
    "train trainer.eval_every=0ep": ["trainer.eval_every", "'0ep'", "above 0"],
    "train trainer.checkpoint_every=0": ["trainer.checkpoint_every", "0", "above 0"],
    "train trainer.precision=fp8": ["trainer.precision", "'fp8'", "auto, fp32, tf32, bf16, fp16"],
    "train trainer.precision=tf32 trainer.device=cpu": ["trainer.precision=tf32", "'cpu'", "fp32 or bf16"],
    "train trainer.device=gpu": ["trainer.device", "'gpu'", "auto, cpu, cuda, cuda:N, mps"],
    "train trainer.device=cuda:x": ["trainer.device", "'cuda:x'", "cuda:N"],
    "train trainer.clip=1": ["trainer.clip", "got 1", "a group of keys"],
    "train trainer.early_stopping=false": ["trainer.early_stopping", "false", "a group of keys or null"],
    "train optimizer.lr=0": ["optimizer.lr", "got 0", "a number > 0"],
    "train optimizer.lr=nan": ["optimizer.lr", "nan", "a number > 0"],
    "train scheduler.warmup=200%": ["scheduler.warmup", "'200%'", "below '100%'"],
    "train scheduler=step scheduler.step_size=0%": ["scheduler.step_size", "'0%'", "above 0"],
    "train data.batch_size=0": ["data.batch_size", "got 0", "a whole number >= 1"],
    "train data.batch_size=atuo": ["data.batch_size", "'atuo'", "auto or a whole number >= 1", "Did you mean 'auto'?"],
    "train data.eval_batch_size=auto": ["data.eval_batch_size", "'auto'", "a whole number >= 1 or null"],
    "plan trainer.accumulate=auto": ["trainer.accumulate", "'auto'", "a whole number >= 1"],
    "train data.fold=7": ["data.fold=7", "data.folds", "null"],
    "train data.folds=3 data.fold=3": ["data.fold", "below data.folds=3", "got 3"],
    "train data.imbalance=0.5": ["data.imbalance", "0.5", ">= 1"],
    "train data=csv": ["data.path", "missing", "data.target"],
    "train data=csv data.path=x.csv": ["data.target", "missing", "data.target="],
    "train data=image_folder": ["data.path", "missing", "data.path="],
    "train data=mnist data.root=3": ["data.root", "got 3", "a text"],
    "train ~seed": ["seed", "null", "a whole number"],
    "train name=null": ["name", "null", "a text"],
    "train hydra.run.dir=": ["hydra.run.dir", "''", "a folder"],
    "train hydra.run.dir=null": ["hydra.run.dir", "null"],
    "train hydra.job.chdir=maybe": ["hydra.job.chdir", "maybe", "bool"],
}
# Given many at a time, each key once: every one must have its own sentence.
MORE_VALUES = {
    "trainer.epochs=": ["trainer.epochs", "''", "a whole number >= 1"],
    "trainer.epochs=null": ["trainer.epochs", "null", "a whole number >= 1"],
    "trainer.epochs=true": ["trainer.epochs", "true", "a whole number >= 1"],
    "trainer.max_steps=0": ["trainer.max_steps", "0", "a whole number >= 1 or null"],
    "trainer.threads=0": ["trainer.threads", "0", "in [1, 1024]"],
    "trainer.threads=auto": ["trainer.threads", "auto", "null"],
    "trainer.accumulate=0": ["trainer.accumulate", "0", "a whole number >= 1"],
    "trainer.eval_every=-1": ["trainer.eval_every", "-1", "'5%' or '2ep'"],
    "trainer.precision=BF16": ["trainer.precision", "'BF16'", "Did you mean 'bf16'?"],
    "trainer.compile=maybe": ["trainer.compile", "'maybe'", "true or false"],
    "trainer.deterministic=1": ["trainer.deterministic", "got 1", "true or false"],
    "trainer.ema=1": ["trainer.ema", "got 1", "[0, 1)", "null"],
    "trainer.clip.norm=0": ["trainer.clip.norm", "got 0", "> 0 or null"],
    "trainer.early_stopping.patience=0": ["trainer.early_stopping.patience", "got 0", ">= 1"],
    "trainer.early_stopping.monitor=3": ["trainer.early_stopping.monitor", "got 3", "a text"],
    "optimizer.lr=inf": ["optimizer.lr", "inf", "a number > 0"],
    "optimizer.lr=-1": ["optimizer.lr", "-1", "a number > 0"],
    "optimizer.lr=1r-3": ["optimizer.lr", "'1r-3'", "a number > 0"],
    "optimizer.weight_decay=-1": ["optimizer.weight_decay", "-1", ">= 0"],
    "optimizer.betas=[.9,2]": ["optimizer.betas", "[0.9, 2]", "each a number in [0, 1)"],
    "optimizer.betas=[.9]": ["optimizer.betas", "[0.9]", "a list of 2"],
    "optimizer.betas=0.9": ["optimizer.betas", "got 0.9", "a list"],
    "optimizer.param_groups.lr_factors={head:-2}": ["optimizer.param_groups.lr_factors", "-2", "> 0"],
    "optimizer.param_groups.layer_decay=2": ["optimizer.param_groups.layer_decay", "got 2", "(0, 1]"],
    "scheduler.warmup=abc": ["scheduler.warmup", "'abc'", "'5%' or '2ep'"],
    "scheduler.interval=week": ["scheduler.interval", "'week'", "step, epoch, metric"],
    "scheduler.T_max=0": ["scheduler.T_max", "got 0", "above 0"],
    "data.batch_size=1e2": ["data.batch_size", "100.0", "a whole number >= 1"],
    "data.batch_size=99999999999999999999": ["data.batch_size", "99999999999999999999", "below 2**63"],
    "data.folds=1": ["data.folds", "got 1", ">= 2 or null"],
    "data.limit=0": ["data.limit", "got 0", ">= 1"],
    "data.label_noise=2": ["data.label_noise", "got 2", "[0, 1]"],
    "data.imbalance={0:2}": ["data.imbalance", "{0: 2}", "[0, 1]"],
    "data.val_from=valid": ["data.val_from", "'valid'", "train, test"],
    "data.val_fraction=1": ["data.val_fraction", "got 1", "(0, 1)"],
    "data.loader=gpu": ["data.loader", "'gpu'", "auto, resident, streaming"],
    "data.workers=-1": ["data.workers", "-1", ">= 0"],
    "model.widths=10": ["model.widths", "got 10", "a list"],
    "model.widths=[10,a]": ["model.widths", "[10, 'a']", "a whole number >= 1"],
    "model.dropout=1.5": ["model.dropout", "1.5", "[0, 1)"],
    "model.activation=rellu": ["model.activation", "'rellu'", "Did you mean 'relu'?"],
    "model.norm=batchnorm": ["model.norm", "'batchnorm'", "none, batch"],
    "seed=-1": ["seed", "-1", "[0, 4294967295]"],
    "seed=1.5": ["seed", "1.5", "a whole number"],
}
GRAMMAR = {
    "train model.widths=[10,20": ["model.widths=[10,20", "[ and ] do not pair"],
    "train model.widths={10": ["{ and } do not pair"],
    "train name=a'b": ["name=a'b", "quotation mark"],
    "train name=a=b": ["name=a=b", "quoted", "\"name='a=b'\""],
    'train trainer.freeze={"*":always}': ["a key in braces has no quotation marks"],
    "train model.widths=10,20": ["model.widths=10,20", "add -m", "model.widths=[10,20]"],
    "train seed=range(5)": ["seed=range(5)", "add -m"],
    "train data.delimiter=;": ["data.delimiter=;", "\"data.delimiter=';'\""],
    "train ε=1": ["'ε=1'", "no key"],
    "train model..widths=3": ["model..widths=3", "no key"],
    "train model.activation=${nope}": ["model.activation", "'nope' not found"],
    "train model.activation=${oc.env:NOPE}": ["model.activation", "'NOPE' not found"],
    "train model.activation=${oc.env:": ["{ and } do not pair"],
    "train model.activation=${nope:1}": ["model.activation", "nope"],
    "train model.activation=${model.activation}": ["model.activation", "Recursive"],
}
SWEEPS = {
    "train -m": ["-m", "nothing to sweep over"],
    "train -m seed=1": ["-m", "nothing to sweep over"],
    "train -m seed=1,a": ["seed", "'a'", "a whole number"],
    "train -m optimizer=sgd,adamx": ["optimizer=adamx", "one of", "adadelta"],
    "train -m optimizer=sgd,adamw optimizer.lr=0.1,-1": ["optimizer.lr", "-1", "> 0"],
    "train -m optimizer=sgd,adamw trainer.epochs=-1": ["trainer.epochs", "-1"],
    "train -m modle=cnn,mlp": ["'modle'", "Did you mean 'model'?"],
    "train -m optimizer=sgd,adamw optimizer.momentum=0.9": ["'optimizer.momentum'", "betas"],
    "train -m seed=range(0)": ["seed=range(0)", "no value"],
    "train -m seed=range(": ["( and ) do not pair"],
    "train -m seed=choice()": ["seed=choice()", "empty choice"],
    "train -m optimizer=glob(z*)": ["optimizer=glob(z*)", "no value"],
    "train -m optimizer.lr=interval(0.1,1)": ["optimizer.lr=interval(0.1,1)", "list values", "sampler=random"],
    "train -m optimizer.lr=interval(0,1) hydra.sweeper.sampler=random": ["optimizer.lr", "> 0"],
    "train -m optimizer.lr=interval(0.1,1) hydra.sweeper.sampler=sobol": ["hydra.sweeper.samples", "give it"],
    "train -m optimizer.lr=interval(1,0.1) hydra.sweeper.sampler=random hydra.sweeper.samples=3": ["begin below"],
    "train -m seed=range(1000000)": ["1,000,000 jobs", "max_jobs=1000", "--yes"],
    "train -m seed=1,2 seed=3,4": ["seed is swept over and given again", "seed=3,4"],
    "train -m seed=1,2 model.dropout=0,0.1,0.2 hydra.sweeper.zip=[seed,model.dropout]": ["in pairs", "seed has 2"],
    "train -m seed=1,2 hydra.sweeper.zip=[lr]": ["hydra.sweeper.zip", "lr is not swept over"],
    "train -m seed=1,2 hydra.sweeper.sampler=grit": ["hydra.sweeper.sampler", "Did you mean 'grid'?"],
    "train -m seed=1,2 hydra.launcher.jobs=0": ["hydra.launcher.jobs", "got 0"],
    "train -m seed=1,2 hydra.launcher.job=2": ["hydra.launcher.job", "job"],
    "train -m seed=1,2 hydra.launcher.timeout=soon": ["hydra.launcher.timeout", "30m", "'soon'"],
    "train -m seed=1,2 hydra.launcher.memory=8ZB": ["hydra.launcher.memory", "8GB", "'8ZB'"],
    "train --yes": ["--yes", "-m"],
    "train -m seed=1,2 hydra.sweep.dir=a,b": ["hydra.sweep.dir=a,b", "one value"],
    "train -m seed=1,2 hydra.sweep.dir=file.txt/x": ["file.txt", "Not a directory"],
}
PARTS = {
    "train model._target_=dlrun.models.mlp.mpl": ["model._target_", "dlrun.models.mlp.mpl", "Did you mean 'mlp'?"],
    "train model._target_=torch.nn.Liner": ["model._target_", "torch.nn.Liner", "Did you mean 'Linear'?"],
    "train optimizer._target_=torch.optim.AdamZ": ["optimizer._target_", "torch.optim.AdamZ", "Did you mean 'Adam"],
    "train model._target_=nosuch.thing": ["model._target_", "nosuch.thing", "no module 'nosuch'", "PYTHONPATH"],
    "train model._target_=mlp": ["model._target_", "'mlp'", "a dotted path"],
    "train model._target_=torch.nn": ["model._target_", "'torch.nn'", "is a module"],
    "train model._target_=null": ["model._target_", "null", "the dotted path"],
    "train --config-dir mine model=typo": ["'model.witdh'", "nets.Net takes mode, width", "Did you mean 'width'?"],
    "train --config-dir mine model=net model.width=abc": ["model.width", "'abc'", "a whole number"],
    "train --config-dir mine model=wide model.width=abc": ["model.width", "'abc'", "a whole number"],
    "train --config-dir mine model=wide model.widht=3": ["'model.widht'", "Did you mean 'width'?"],
    "train --config-dir mine model=absent": ["model._target_", "nets has no 'Ned'", "Did you mean 'Net'?"],
    "train --config-dir mine model=no_module": ["model._target_", "no module 'netz'", "--config-dir"],
    "train --config-dir mine model=no_file": ["model._target_", "no module 'netz'", "Did you mean 'nets'?"],
    "train --config-dir mine model=syntax": ["model._target_", "unfinished.py", "line 1"],
    "train --config-dir mine model=no_target": ["model has no _target_", "dlrun list model"],
    "train --config-dir mine model=broken": ["broken.yaml", "not YAML", "line 2"],
    "train --config-dir mine model=number": ["YAML", "keys and values", "int"],
    "train --config-dir mine model=loop": ["model.width", "Recursive"],
    "train --config-dir mine model=nett": ["model=nett", "one of the", "Did you mean 'net'?"],
    "train --config-dir mine optimizer=typo": ["'optimizer.momentun'", "Did you mean 'momentum'?"],
    "train --config-dir mine scheduler=typo": ["scheduler.step_size", "missing", "'scheduler.step_sise'"],
    "train --config-dir mine augment=typo": ["'augment.flip.q'", "takes axis, p"],
    "train --config-dir mine callbacks=typo": ["callbacks.own._target_", "no 'Ned'"],
    "train --config-dir mine experiment=typo": ["'trainer.epoch'", "trainer has accumulate", "Did you mean 'epochs'?"],
}
KINDS = (WORDS, CHOICES, KEYS, VALUES, GRAMMAR, SWEEPS, PARTS)
CASES = {case: needles for kind in KINDS for case, needles in kind.items()}
TWO_SENTENCES = {"train data=csv", "train --config-dir mine scheduler=typo"}

DRIVER = """
import contextlib, io, json, os, sys
def refuse_torch(event, arguments):
    if event == "import" and arguments[0] == "torch":
        raise AssertionError("torch is imported")
sys.addaudithook(refuse_torch)
from dlrun.cli import main
answers = []
for words in json.load(sys.stdin):
    path, out, err = list(sys.path), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    sys.path[:] = path
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names)
    answers.append([code, out.getvalue(), err.getvalue(), files])
json.dump(answers, sys.stdout)
"""


def start(arguments: Sequence[str], folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments` in `folder`."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=text,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a user's own parts, right and wrong."""
    home = tmp_path_factory.mktemp("work")
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    return home


@pytest.fixture(scope="module")
def answer_to(folder: Path) -> Callable[[str], Answer]:
    """What a command of `CASES` said, without torch; those of a kind are run together."""
    answers: dict[str, Answer] = {}

    def run(cases: Sequence[str]) -> None:
        before = contents(folder)
        done = start(["-c", DRIVER], folder, json.dumps([case.split() for case in cases]))
        assert done.returncode == 0, done.stderr[-2000:]
        known = {f"./{name}" for name, data in before.items() if data is not None}
        for case, (code, out, err, files) in zip(cases, json.loads(done.stdout), strict=True):
            answers[case] = Answer(case.split(), code, out, err, sorted({*files} ^ known))
        assert contents(folder) == before

    def answer(case: str) -> Answer:
        if case not in answers:
            run(list(next(kind for kind in KINDS if case in kind)))
        return answers[case]

    return answer


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_refused_in_a_sentence(case: str, answer_to: Callable[[str], Answer]):
    answer_to(case).must_refuse(*CASES[case], lines=2 if case in TWO_SENTENCES else 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: next(iter(kind)))
def test_from_outside_too(kind: dict[str, list[str]], folder: Path):
    case = next(iter(kind))
    before = contents(folder)
    done = start(["-m", "dlrun", *case.split()], folder)
    answer = Answer(case.split(), done.returncode, done.stdout, done.stderr)
    answer.must_refuse(*kind[case])
    assert contents(folder) == before


def commands_with(settings: Iterable[str]) -> list[list[str]]:
    """As few lists of settings as have each key once."""
    commands: list[dict[str, str]] = []
    for setting in settings:
        key = setting.split("=")[0]
        free = next((command for command in commands if key not in command), None)
        if free is None:
            commands.append(free := {})
        free[key] = setting
    return [list(command.values()) for command in commands]


@pytest.mark.parametrize("settings", commands_with(MORE_VALUES), ids=len)
def test_every_mistake_has_its_own_sentence(settings: list[str], dlrun: Callable[..., Answer]):
    answer = dlrun("train", *settings)
    needles = [needle for setting in settings for needle in MORE_VALUES[setting]]
    answer.must_refuse(*needles, lines=len(settings))
    for setting in settings:
        key = setting.split("=")[0]
        (line,) = [line for line in answer.err.splitlines() if line.startswith(f"dlrun: {key} ")]
        assert all(needle in line for needle in MORE_VALUES[setting])
