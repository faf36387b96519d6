"""`dlrun doctor`: what this machine has for training, and whatever would bite, each with a way out."""

import importlib
import importlib.metadata
import itertools
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dlrun
from dlrun.commands.doctor_devices import GIB, devices
from dlrun.commands.finding import ERROR, NOTE, OK, WARNING, Finding, in_a_line, installed
from dlrun.config.catalog import Catalog
from dlrun.errors import DlrunError, UsageError
from dlrun.machine.cores import usable_cores

HELP = """dlrun doctor          versions, devices and their number formats, data found, and anything that would bite

Exit code 1 if something makes training impossible, else 0."""

REQUIRED = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "scikit-learn", "matplotlib", "pillow", "rich")
EXTRAS = {"tensorboard": "tensorboard"}
MARKS = {OK: "✓", NOTE: "-", WARNING: "!", ERROR: "✗"}
OUTPUTS = Path("outputs")


def run(arguments: list[str]) -> int:
    """Print the report. Returns: 1 if something makes training impossible, else 0."""
    if arguments:
        raise UsageError(f"dlrun doctor takes no arguments, got '{' '.join(arguments)}'.")
    findings: list[Finding] = []
    for title, section in (
        ("Software", software()),
        ("Devices", devices()),
        ("Machine", machine(os.environ, Path("/sys/fs/cgroup/cpu.max"), Path("/dev/shm"))),
        ("Data and outputs", itertools.chain(data(os.environ.get("DLRUN_DATA") or "data"), writable(OUTPUTS))),
    ):
        before = len(findings)
        print(title)
        for finding in section:
            findings.append(finding)
            print(f"  {MARKS[finding.level]} {finding.what:<16} {finding.detail}".rstrip(), flush=True)
            if finding.way_out:
                print(f"{'':<21}-> {finding.way_out}")
        if len(findings) == before:
            print(f"  {MARKS[OK]} nothing in the way")
    print(f"\n{_verdict(findings)}")
    return int(any(finding.level == ERROR for finding in findings))


def _verdict(findings: list[Finding]) -> str:
    errors, warned = (sum(finding.level == level for finding in findings) for level in (ERROR, WARNING))
    tail = f", {warned} warning{'s' * (warned != 1)}" if warned else ""
    if errors:
        return f"Training is impossible here: {errors} error{'s' * (errors != 1)}{tail}."
    return f"Ready to train{tail}."


def software() -> Iterator[Finding]:
    """Versions, and whether the packages load and fit one another."""
    yield Finding(OK, "python", f"{platform.python_version()}  {sys.executable}")
    yield Finding(OK, "dlrun", f"{dlrun.__version__}  {Path(dlrun.__file__).parent}")
    for package in REQUIRED:
        version = installed(package)
        if version is None:
            yield Finding(ERROR, package, "not installed", f"pip install {package}")
        elif package == "torch":
            yield _torch(version)
        elif package == "torchvision":
            yield torchvision_fits(version, importlib.metadata.requires(package) or [], installed("torch") or "")
        else:
            yield Finding(OK, package, version)
    for extra, package in EXTRAS.items():
        version = installed(package)
        yield Finding(OK if version else NOTE, package, version or f"not installed; pip install 'dlrun[{extra}]'")
    yield _default_config()


def _torch(version: str) -> Finding:
    try:
        import torch
    except Exception as error:  # a broken library raises OSError, ImportError or RuntimeError
        return Finding(ERROR, "torch", f"{version} cannot be imported: {in_a_line(error)}", "reinstall it: pytorch.org")
    return Finding(OK, "torch", f"{version}  {f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU only'}")


def torchvision_fits(version: str, requires: list[str], torch_version: str) -> Finding:
    """Whether torchvision was built for this torch and loads beside it; another pair lacks operators."""
    pins = [need.partition("torch==")[2].split(";")[0].strip() for need in requires if need.startswith("torch==")]
    way_out = f"pip install torch=={pins[0]} torchvision=={version}, both from the same index" if pins else ""
    if pins and torch_version.split("+")[0] != pins[0].split("+")[0]:
        return Finding(WARNING, "torchvision", f"{version} is for torch {pins[0]}, here is {torch_version}", way_out)
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # the operators fail with RuntimeError, the libraries with OSError
        return Finding(WARNING, "torchvision", f"{version} cannot be imported: {in_a_line(error)}", way_out)
    return Finding(OK, "torchvision", version)


def _default_config() -> Finding:
    try:
        from dlrun.config.compose import compose  # loads Hydra, whose absence must not end the report

        name = compose([]).config["name"]
    except (DlrunError, ImportError) as error:
        return Finding(ERROR, "configuration", in_a_line(error), "reinstall dlrun, or undo the change in conf/")
    return Finding(OK, "configuration", f"`dlrun train` would run {name}")


def machine(environment: Mapping[str, str], cpu_quota: Path, shared_memory: Path) -> Iterator[Finding]:
    """Settings of the machine that make training slow or fail late."""
    cores = usable_cores()
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads == "1" and cores > 1:
        yield Finding(WARNING, "threads", f"OMP_NUM_THREADS=1 leaves {cores - 1} cores idle", "unset OMP_NUM_THREADS")
    quota = _quota(cpu_quota)
    if quota is not None and quota < cores:
        yield Finding(
            WARNING,
            "cores",
            f"the container may use {quota:g} of {cores} cores; more threads than that get in each other's way",
            f"export OMP_NUM_THREADS={max(round(quota), 1)}",
        )
    if environment.get("CUDA_LAUNCH_BLOCKING") == "1":
        yield Finding(WARNING, "CUDA", "CUDA_LAUNCH_BLOCKING=1 waits for every kernel", "unset CUDA_LAUNCH_BLOCKING")
    if shared_memory.is_dir():
        total = shutil.disk_usage(shared_memory).total
        if total < GIB:
            yield Finding(
                WARNING,
                "shared memory",
                f"{shared_memory} holds {total / 2**20:.0f} MiB; data.loader=streaming may crash in it",
                "docker run --shm-size=2g, or data.workers=0",
            )


def _quota(path: Path) -> float | None:
    """The cores that a control group allows; None if all."""
    try:
        limit, period = path.read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def writable(folder: Path) -> Iterator[Finding]:
    """Whether runs can be written below `folder`, and the space left for them."""
    exists = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=exists):
            pass
    except OSError as error:
        way_out = "change to a folder of your own, or hydra.run.dir=FOLDER"
        yield Finding(ERROR, "outputs", f"{exists} cannot be written ({error.strerror})", way_out)
        return
    free = shutil.disk_usage(exists).free
    low = free < GIB
    yield Finding(
        WARNING if low else OK,
        "outputs",
        f"{folder.absolute()}, {free / GIB:.1f} GiB free",
        "make room, or hydra.run.dir=FOLDER on another disk" if low else "",
    )


def data(root: str) -> Iterator[Finding]:
    """Which of the published sets lie below `root`. Sets that ship inside dependencies are always there."""
    folder = Path(root).expanduser().absolute()
    origin = "DLRUN_DATA" if os.environ.get("DLRUN_DATA") else "the default; DLRUN_DATA or data.root= names another"
    if not folder.is_dir():
        yield Finding(NOTE, "data.root", f"{folder} does not exist ({origin}); embedded and generated data need none")
        return
    yield Finding(OK, "data.root", f"{folder} ({origin})")
    for source in _sources():
        lacking = [name for name in source.files if not (folder / source.folder / name).is_file()]
        packed = source.archive is not None and (folder / source.archive[0]).is_file()
        if not lacking or packed:
            yield Finding(OK, source.name, "found")
        elif len(lacking) < len(source.files):
            where = folder / source.folder
            yield Finding(WARNING, source.name, f"incomplete: no {', '.join(lacking)}", f"put them into {where}")
        else:
            yield Finding(NOTE, source.name, "not there; data.download=true fetches it")


def _sources() -> Iterator[Any]:
    """The published files behind the choices of conf/data, from the table SOURCES of each choice's module."""
    for choice in Catalog().choices("data"):
        try:
            module = importlib.import_module(choice.target.rpartition(".")[0])
        except Exception:  # torch is missing, which Software reports
            continue
        source = getattr(module, "SOURCES", {}).get(choice.name)
        if source is not None:
            yield source
