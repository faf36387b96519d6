"""The fourteen operations of RandAugment and TrivialAugment, each image of a batch by its own one and its own level.

name                       what it does at signed level l in [-1, 1]
identity                   nothing
shear_x, shear_y           moves rows (columns) by l · shear times their distance from the top (left)
translate_x, translate_y   moves by l · (shift_share · side + shift_pixels), cut to whole pixels
rotate                     by l · degrees counter-clockwise about the centre
brightness                 x + l · blend · x
color                      x + l · blend · (x - its grey image)
contrast                   x + l · blend · (x - mean of its grey image)
sharpness                  x + l · blend · (x - its 3x3 blur)
posterize                  keeps the highest 8 - round(|l| · bits) bits
solarize                   inverts what is at least 1 - |l|
autocontrast               stretches each channel to the full range
equalize                   flattens the histogram of each channel, as PIL does

Pixels are taken from the nearest place. Source: Cubuk et al. 2018, table 6 (arXiv:1805.09501); directions and formulas
as in torchvision, but bytes are rounded where it cuts them off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.augment.common import choose

GREY = (0.2989, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Space:
    """What level 1 means for each operation; see the table above."""

    shear: float
    shift_share: float
    shift_pixels: float
    degrees: float
    blend: float
    bits: int


def warp(images: Tensor, operation: Tensor, level: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """Shear, translate or rotate (B, C, H, W), any dtype, where `operation` says so.

    Args:
        operation: (B,) indices into `OPERATIONS`.
        level: (B,) in [-1, 1].

    Returns: the images, and (B, 1, H, W), true where a pixel would have come from outside.
    """
    if images.device.type != "cpu":
        return warp_everywhere(images, operation, level, space)
    # Here, reading which images an operation has costs nothing, and only they are worked on.
    at = ((operation >= OPERATIONS.index("shear_x")) & (operation <= OPERATIONS.index("rotate"))).nonzero().flatten()
    warped, outside = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
    warped[at], outside[at] = warp_everywhere(images[at], operation[at], level[at], space)
    return warped, outside


def warp_everywhere(images: Tensor, operation: Tensor, level: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """What `warp` gives, without waiting for the device to say which images are to be moved: the others go nowhere."""
    height, width = images.shape[2:]

    def amount(name: str, largest: float) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), level * largest, 0.0)[:, None, None]

    shear_x, shear_y = amount("shear_x", space.shear), amount("shear_y", space.shear)
    right = amount("translate_x", space.shift_share * width + space.shift_pixels).trunc()
    down = amount("translate_y", space.shift_share * height + space.shift_pixels).trunc()
    angle = torch.deg2rad(amount("rotate", space.degrees))
    cos, sin = angle.cos(), angle.sin()
    # Where each pixel of the result comes from, measured from the centre; exactly itself where nothing is to be done.
    y = (torch.arange(height, device=images.device, dtype=level.dtype) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device, dtype=level.dtype) - (width - 1) / 2
    from_x = x * cos - y * sin + shear_x * (y + height / 2) - right
    from_y = y * cos + x * sin + shear_y * (x + width / 2) - down
    column, row = (from_x + (width - 1) / 2).round(), (from_y + (height - 1) / 2).round()
    inside_column, inside_row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    outside = (column != inside_column) | (row != inside_row)
    index = (inside_row * width + inside_column).long().flatten(1)[:, None]
    moved = images.flatten(2).gather(2, index.expand(-1, images.shape[1], -1)).view(images.shape)
    return moved, outside[:, None]


def tone(images: Tensor, operation: Tensor, level: Tensor, space: Space) -> Tensor:
    """Change the colours of (B, C, H, W), uint8 0-255 or float in [0, 1], where `operation` says so; see `warp`."""
    if images.device.type != "cpu":
        return tone_everywhere(images, operation, level, space)
    changed = images.clone()
    for name in TONES:
        at = (operation == OPERATIONS.index(name)).nonzero().flatten()
        if len(at) > 0:
            changed[at] = _change(name, images[at], level[at], space)
    return changed


def tone_everywhere(images: Tensor, operation: Tensor, level: Tensor, space: Space) -> Tensor:
    """What `tone` gives, without waiting for the device to say which images an operation has: all get all."""
    changed = images
    for name in TONES:
        chosen = (operation == OPERATIONS.index(name))[:, None, None, None]
        changed = choose(chosen, _change(name, images, level, space), changed)
    return changed


def _change(name: str, images: Tensor, level: Tensor, space: Space) -> Tensor:
    """Every image changed by the operation called `name`."""
    is_byte = not images.is_floating_point()
    x = images if images.dtype in (torch.float32, torch.float64) else images.float()
    level = level.to(x.dtype)[:, None, None, None]
    changed = TONES[name](x, level, space, is_byte).clamp(0, 255 if is_byte else 1)
    return changed.round_().to(images.dtype) if is_byte else changed.to(images.dtype)


# Each takes x (B, C, H, W), whole numbers 0-255 if `is_byte` or else in [0, 1], and level (B, 1, 1, 1); its result is
# cut to that range and, for bytes, rounded.


def brightness(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    return x * (1 + level * space.blend)


def color(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    return torch.lerp(x, _grey(x, is_byte), -level * space.blend)


def contrast(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    return torch.lerp(x, _grey(x, is_byte).mean((1, 2, 3), keepdim=True), -level * space.blend)


def sharpness(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    """The blur is the mean of each pixel, five times, and its eight neighbours; the border is as it was."""
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = x[..., 1:-1, 1:-1]
    blurred = around.add(inner, alpha=4).div(13)
    sharp = x.clone()
    sharp[..., 1:-1, 1:-1] = torch.lerp(inner, blurred.round() if is_byte else blurred, -level * space.blend)
    return sharp


def posterize(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    steps = (8 - (level.abs() * space.bits).round()).exp2()
    size = (256.0 if is_byte else 1.0) / steps
    return (x / size).floor().minimum(steps - 1) * size


def solarize(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    top = 255.0 if is_byte else 1.0
    return torch.where(x >= top - top * level.abs(), top - x, x)


def autocontrast(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    top = 255.0 if is_byte else 1.0
    flat = low == high  # stays as it is
    return (x - low * ~flat) * (top / (high - low)).where(~flat, 1.0)


def equalize(x: Tensor, level: Tensor, space: Space, is_byte: bool) -> Tensor:
    """Values by their rank, in 256 steps; a channel whose other values are fewer than 255 pixels stays as it is."""
    value = (x if is_byte else (x * 255.999).clamp(0, 255)).long().flatten(2)  # (B, C, H·W)
    counts = torch.zeros(*value.shape[:2], 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, value, torch.ones_like(value))
    below = counts.cumsum(2) - counts
    of_highest = counts.gather(2, value.amax(2, keepdim=True))
    step = (value.shape[2] - of_highest) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(x.dtype)
    ranked = table.gather(2, value).view(x.shape)
    return torch.where((step > 0)[..., None], ranked if is_byte else ranked / 255, x)


def _grey(x: Tensor, is_byte: bool) -> Tensor:
    """(B, 1, H, W), the luma of three channels, the mean of any other number; of bytes the whole number below."""
    if x.shape[1] == 3:
        red, green, blue = x.split(1, dim=1)
        grey: Tensor = red * GREY[0] + green * GREY[1] + blue * GREY[2]
    else:
        grey = x.mean(1, keepdim=True)
    return grey.floor() if is_byte else grey


TONES: dict[str, Callable[[Tensor, Tensor, Space, bool], Tensor]] = {
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
OPERATIONS = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", *TONES)
