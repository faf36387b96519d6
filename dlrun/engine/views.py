"""Test-time augmentation: several views of each image, the mean of what the model makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError

View = Literal["flip", "flip_translate"]


def check_views(views: View | None, spec: DataSpec) -> None:
    """Refuse views of what is no image, or whose answer is itself an image.

    Raises: ConfigError.
    """
    if views is None or (spec.kind is Kind.IMAGE and spec.task is not Task.RECONSTRUCTION):
        return
    what = "whose targets would have to be mirrored too" if spec.kind is Kind.IMAGE else f"of shape {spec.shape}"
    raise ConfigError(
        f"trainer.tta={views} averages over mirrored images, but data={spec.name} gives {spec.kind.plural}, {what}; "
        "set it to null."
    )


def over_views(model: Callable[[Tensor], Tensor], images: Tensor, views: View) -> Tensor:
    """The weighted mean of the model's outputs over views of (B, C, H, W), in float32.

    flip: the image and its mirror image, left and right. flip_translate: those two count for half; the other half are
    the image shifted by a pixel up and left and by one down and right, edges reflected, each mirrored and not.

    Source: Jordan 2024, sec. 3.5 (arXiv:2404.00498).
    """

    def both(images: Tensor) -> Tensor:
        return (model(images).float() + model(images.flip(3)).float()) / 2

    if views == "flip":
        return both(images)
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = (both(padded[:, :, i : i + height, i : i + width]) for i in (0, 2))
    return both(images) / 2 + sum(shifted) / 4
