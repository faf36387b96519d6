"""The devices of this machine, for `dlrun doctor`: memory, number formats, and whether torch.compile would work."""

import os
import platform
import shutil
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlrun.commands.finding import OK, WARNING, Finding, in_a_line, installed
from dlrun.machine.cores import usable_cores

GIB = 1 << 30


def devices() -> Iterator[Finding]:
    """Every device with its memory and the number formats it computes in."""
    try:
        import torch
    except Exception:  # reported under Software
        return
    cores = usable_cores()
    memory = _total_memory()
    yield Finding(OK, "cpu", f"{_cpu_name()}, {cores} cores, {torch.get_num_threads()} threads, {memory} GiB")
    yield Finding(OK, "", cpu_precisions(_cpu_flags()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        yield from _gpu(torch, index)
    if torch.backends.mps.is_available():
        yield Finding(OK, "mps", "Apple GPU; fp32, fp16, bf16")
    if not count and (reason := _hidden_gpu(torch, [str(item.message) for item in caught])):
        yield reason
    yield compiler(os.environ, bool(count))


def _gpu(torch: Any, index: int) -> Iterator[Finding]:
    name = f"cuda:{index}"
    try:
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        torch.ones(8, 8, device=name).mm(torch.ones(8, 8, device=name)).sum().item()
    except RuntimeError as error:  # no kernel for this GPU, or out of memory
        yield Finding(
            WARNING, name, f"does not compute: {in_a_line(error)}", "trainer.device=cpu, or another torch build"
        )
        return
    busy = total - free > total / 2
    yield Finding(
        WARNING if busy else OK,
        name,
        f"{properties.name}, {total / GIB:.0f} GiB, {free / GIB:.0f} free",
        "another process holds most of its memory; see nvidia-smi, or take another: trainer.device=cuda:N"
        if busy
        else "",
    )
    yield Finding(OK, "", gpu_precisions((properties.major, properties.minor)))


def _hidden_gpu(torch: Any, messages: list[str]) -> Finding | None:
    """Why PyTorch sees no GPU although one is there."""
    if not Path("/proc/driver/nvidia/version").exists() and not messages:
        return None
    if torch.version.cuda is None:
        return Finding(WARNING, "cuda", "a GPU is here, but this torch is for the CPU only", "install torch for CUDA")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return Finding(WARNING, "cuda", "CUDA_VISIBLE_DEVICES hides the GPUs", "unset CUDA_VISIBLE_DEVICES")
    reason = " ".join(messages[0].split()) if messages else "the driver does not answer"
    return Finding(WARNING, "cuda", f"not usable: {reason}", "update the NVIDIA driver, or a torch for the older CUDA")


def cpu_precisions(flags: set[str]) -> str:
    """Number formats of a CPU with these flags of /proc/cpuinfo (x86) or features (ARM)."""
    native = flags & {"avx512_bf16", "amx_bf16", "bf16"}
    return f"fp32; bf16 {'native' if native else 'emulated: right, but slower than fp32'}; no tf32"


def gpu_precisions(capability: tuple[int, int]) -> str:
    """Number formats of an NVIDIA GPU by compute capability (CUDA C++ programming guide, table of arithmetic)."""
    if capability >= (8, 0):
        return "fp32, tf32, bf16, fp16 native"
    return f"fp32, fp16{' native' if capability >= (7, 0) else ' (slow)'}; no tf32, no bf16"


def compiler(environment: Mapping[str, str], has_gpu: bool) -> Finding:
    """Whether trainer.compile=true would work: torch.compile writes C++ (CPU) or Triton (GPU)."""
    candidates = [environment.get("CXX", ""), "g++", "clang++", "c++"]
    found = next(
        (path for name in candidates if name and (path := shutil.which(name, path=environment.get("PATH")))), None
    )
    if found is None:
        return Finding(WARNING, "torch.compile", "no C++ compiler", "apt install g++, or keep trainer.compile=false")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return Finding(
            WARNING, "torch.compile", "no Python.h", "apt install python3-dev, or keep trainer.compile=false"
        )
    if has_gpu and installed("triton") is None:
        return Finding(WARNING, "torch.compile", "no triton for the GPU", "pip install triton")
    return Finding(OK, "torch.compile", found)


def _total_memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.0f}"
    except (ValueError, OSError):
        return "?"


def _cpu_lines() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_name() -> str:
    return _cpu_lines().get("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    lines = _cpu_lines()
    return set((lines.get("flags") or lines.get("Features") or "").split())
