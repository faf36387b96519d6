"""Test-time augmentation against the average written out by hand."""

import pytest
import torch
from torch import nn

from dlrun.contracts import Arrays, DataSpec, Kind, Task
from dlrun.engine.evaluate import Evaluator
from dlrun.engine.loaders import Preparation
from dlrun.engine.precision import choose_precision
from dlrun.engine.views import check_views, over_views
from dlrun.errors import ConfigError
from dlrun.metrics import for_task

CPU = torch.device("cpu")
IMAGES = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, 5, 7), 4)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(105, 9), nn.Tanh(), nn.Linear(9, 4))


def shifted(images, down, right):
    """Pixel by pixel, an index beyond the edge being reflected at it."""
    result = torch.empty_like(images)
    height, width = images.shape[2:]
    for y in range(height):
        for x in range(width):
            from_y, from_x = abs(y - down), abs(x - right)
            from_y, from_x = min(from_y, 2 * height - 2 - from_y), min(from_x, 2 * width - 2 - from_x)
            result[:, :, y, x] = images[:, :, from_y, from_x]
    return result


def by_hand(model, images, views):
    turned = torch.stack([model(images), model(images.flip(3))]).mean(0)
    if views == "flip":
        return turned
    parts = [shifted(images, 1, 1), shifted(images, -1, -1)]
    moved = torch.stack([model(part) for part in (*parts, *(part.flip(3) for part in parts))]).mean(0)
    return torch.stack([turned, moved]).mean(0)


@pytest.mark.parametrize("views", ["flip", "flip_translate"])
def test_outputs_are_the_average_over_the_views(views):
    model, images = network(), torch.randn(6, 3, 5, 7)
    torch.testing.assert_close(over_views(model, images, views), by_hand(model, images, views))


@pytest.mark.parametrize("views", ["flip", "flip_translate"])
def test_the_evaluator_averages_normalised_images(views):
    pixels = torch.randint(0, 256, (50, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    examples, model = Arrays(pixels, torch.arange(50) % 4), network()
    loss, precision = nn.CrossEntropyLoss(), choose_precision("fp32", CPU)
    evaluate = Evaluator(examples, 20, Preparation(IMAGES, (), 0, CPU), loss, for_task(IMAGES), precision, CPU, views)
    outputs = by_hand(model, pixels / 255, views)
    result = evaluate(model)
    assert result["loss"] == pytest.approx(loss(outputs, examples.targets).item(), rel=1e-5)
    assert result["accuracy"] == pytest.approx((outputs.argmax(1) == examples.targets).float().mean().item())


def test_what_has_no_mirror_image_is_refused():
    check_views("flip", IMAGES)
    check_views(None, DataSpec("wine", Task.CLASSIFICATION, Kind.VECTOR, (13,), 3))
    with pytest.raises(
        ConfigError, match=r"trainer.tta=flip averages .* data=wine gives vectors, of shape \(13,\); set it"
    ):
        check_views("flip", DataSpec("wine", Task.CLASSIFICATION, Kind.VECTOR, (13,), 3))
    with pytest.raises(ConfigError, match="data=photos gives images, whose targets would have to be mirrored too"):
        check_views("flip", DataSpec("photos", Task.RECONSTRUCTION, Kind.IMAGE, (3, 5, 7), 105))
