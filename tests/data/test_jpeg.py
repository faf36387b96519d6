import io

import numpy as np
import pytest
from PIL import Image

from dlrun.data.jpeg import decode_exact, load_decoder
from dlrun.inputs import decode_image

DECODER = load_decoder()
PIXELS = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)


def encoded(mode: str = "RGB", form: str = "JPEG", **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(content, form, **options)
    return content.getvalue()


def test_torchvision_has_its_decoder_where_it_is_looked_for():
    assert DECODER is not None


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 75, 100])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_those_of_pil(subsampling: int, quality: int, progressive: bool):
    content = encoded(subsampling=subsampling, quality=quality, progressive=progressive)
    ours = decode_exact(DECODER, content, 3, 13, 21)
    assert ours is not None
    assert np.array_equal(ours, decode_image(io.BytesIO(content), 3, 13, 21))


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_are_those_of_pil(channels: int):
    content = encoded("L")
    ours = decode_exact(DECODER, content, channels, 13, 21)
    assert ours is not None
    assert np.array_equal(ours, decode_image(io.BytesIO(content), channels, 13, 21))


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        (encoded(), (3, 12, 21)),
        (encoded(), (3, 21, 13)),
        (encoded(), (1, 13, 21)),
        (encoded("CMYK"), (3, 13, 21)),
        (encoded(form="PNG"), (3, 13, 21)),
        (encoded()[:300], (3, 13, 21)),
        (b"", (3, 13, 21)),
    ],
    ids=["other height", "turned", "colours to grey", "four inks", "png", "cut off", "empty"],
)
def test_all_else_is_left_to_pil(content: bytes, shape: tuple[int, int, int]):
    assert decode_exact(DECODER, content, *shape) is None
