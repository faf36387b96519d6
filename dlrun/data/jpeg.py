"""JPEGs by torchvision's decoder: PIL's pixels, both being libjpeg-turbo, in a third of the time for small images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

MAGIC = b"\xff\xd8\xff"
AS_STORED = 0  # torchvision's ImageReadMode.UNCHANGED

Decoder = Callable[..., torch.Tensor]


def load_decoder() -> Decoder | None:
    """torchvision's decoder, without the rest of torchvision, whose import takes longer than 30,000 small JPEGs.

    None where this build of torchvision does not have it at its usual place: PIL decodes everything as well.
    """
    found = importlib.util.find_spec("torchvision")
    for folder in (found and found.submodule_search_locations) or ():
        for library in sorted(Path(folder).glob("image*.so")):
            with suppress(OSError, AttributeError):
                torch.ops.load_library(str(library))
                return torch.ops.image.decode_jpeg
    return None


def decode_exact(decoder: Decoder, content: bytes, channels: int, height: int, width: int) -> NDArray[Any] | None:
    """The pixels (channels, height, width), uint8, of a JPEG that is just so large.

    None for all that PIL had better look at: other formats and sizes, what is damaged, colours that are to become grey
    (by PIL's weights) or are stored for printing.
    """
    if not content.startswith(MAGIC):
        return None
    try:
        pixels = decoder(torch.frombuffer(bytearray(content), dtype=torch.uint8), AS_STORED, False)
    except RuntimeError:
        return None
    if pixels.shape[1:] != (height, width):
        return None
    if pixels.shape[0] == channels:
        return pixels.numpy()
    return pixels.expand(3, -1, -1).numpy() if (pixels.shape[0], channels) == (1, 3) else None
