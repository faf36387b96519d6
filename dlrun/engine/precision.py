"""In which number format to compute: fp32, tf32, bf16 or fp16."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.amp import GradScaler

from dlrun.errors import ConfigError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Precision:
    """A number format on a device.

    Attributes:
        name: fp32, tf32, bf16 or fp16.
        scaler: of the loss, for fp16, whose range does not hold small gradients; else None.
        warning: what the user should know about this choice; else empty.
    """

    name: str
    device: torch.device
    scaler: GradScaler | None = None
    warning: str = ""

    def autocast(self) -> AbstractContextManager[object]:
        """The context for forward passes."""
        if self.name not in AUTOCAST:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.name])


def choose_precision(word: str, device: torch.device) -> Precision:
    """The precision for `trainer.precision`; auto takes bf16 on a GPU that computes in it and fp32 elsewhere.

    Raises: ConfigError if the device cannot do what was asked.
    """
    bf16_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    name = ("bf16" if bf16_gpu else "fp32") if word == "auto" else word
    if name == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"trainer.precision=tf32 needs a CUDA device, and training is on {device.type}; use fp32 or bf16."
        )
    if name == "bf16" and device.type == "cuda" and not bf16_gpu:
        raise ConfigError("trainer.precision=bf16: this GPU does not compute in bf16; use fp16 or fp32.")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = name == "tf32"
    scaler = GradScaler(device.type) if name == "fp16" else None
    return Precision(name, device, scaler, _slowness(name, device))


def _slowness(name: str, device: torch.device) -> str:
    """A warning if the CPU has to imitate the format in software, which is right to the bit and slow."""
    if device.type != "cpu" or name not in AUTOCAST:
        return ""
    supported = f"_is_mkldnn_{name}_supported"
    if hasattr(torch.ops.mkldnn, supported) and getattr(torch.ops.mkldnn, supported)():
        return ""
    return (
        f"trainer.precision={name}: this CPU does not compute in {name}; PyTorch imitates it, several times slower "
        "than trainer.precision=fp32."
    )
