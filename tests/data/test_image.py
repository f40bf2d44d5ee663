"""Image files of every kind come out as the RGB pixels that the boxes were drawn on."""

import numpy as np
import pytest
from PIL import Image

from detector.data.image import read_image
from detector.utils.errors import InputError


def _one_pixel(mode: str, value) -> Image.Image:
    return Image.new(mode, (2, 1), value)


@pytest.mark.parametrize(
    ("image", "name", "rgb"),
    [
        (_one_pixel("RGB", (1, 2, 3)), "a.png", (1, 2, 3)),
        (_one_pixel("L", 7), "a.png", (7, 7, 7)),
        (_one_pixel("1", 1), "a.png", (255, 255, 255)),
        (_one_pixel("RGBA", (1, 2, 3, 0)), "a.png", (1, 2, 3)),
        (_one_pixel("LA", (9, 0)), "a.png", (9, 9, 9)),
        (_one_pixel("RGB", (1, 2, 3)).quantize(2), "a.png", (1, 2, 3)),
        (_one_pixel("CMYK", (0, 255, 255, 0)), "a.tif", (255, 0, 0)),
        (Image.fromarray(np.full((1, 2), 65535, np.uint16)), "a.png", (255, 255, 255)),
        (Image.fromarray(np.full((1, 2), 257 * 100, np.uint16)), "a.png", (100, 100, 100)),
        (Image.fromarray(np.full((1, 2), 257 * 100, np.int32)), "a.tif", (100, 100, 100)),
    ],
    ids=["RGB", "grey", "1-bit", "RGBA", "LA", "palette", "CMYK", "16-bit white", "16-bit grey", "32-bit grey"],
)
def test_every_kind_becomes_rgb(tmp_path, image, name, rgb):
    image.save(tmp_path / name)
    array = read_image(tmp_path / name)
    assert array.dtype == np.uint8 and array.shape == (1, 2, 3)
    assert array[0, 1].tolist() == list(rgb)


def test_a_palette_with_transparency_gives_no_warning(tmp_path, recwarn):
    image = Image.fromarray(np.uint8([[[1, 2, 3], [200, 100, 50]]])).quantize(2)
    image.save(tmp_path / "a.png", transparency=b"\x40\x80")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[1, 2, 3], [200, 100, 50]]
    assert not recwarn.list


@pytest.fixture
def turned(tmp_path):
    """A file of 3x2 (width x height) pixels, of which the EXIF data says to turn it by a quarter: red at its left."""
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    return tmp_path / "turned.png"


@pytest.mark.parametrize("stated", [None, (3, 2)])
def test_turned_as_exif_says(turned, stated):
    array = read_image(turned, stated)
    assert array.shape == (3, 2, 3)
    assert array[0, 1].tolist() == [255, 0, 0]


def test_not_turned_where_the_annotations_say_the_size_as_stored(turned):
    array = read_image(turned, (2, 3))
    assert array.shape == (2, 3, 3)
    assert array[0, 0].tolist() == [255, 0, 0]


def test_another_size_than_stated(turned):
    with pytest.raises(InputError, match=r"turned.png: is 2x3 pixels but the annotation file says 5x4"):
        read_image(turned, (4, 5))


def test_missing_damaged_and_cut_files_are_named(tmp_path):
    with pytest.raises(InputError, match="none.jpg: no such image"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(InputError, match="text.jpg: cannot be read as an image"):
        read_image(tmp_path / "text.jpg")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1000])
    with pytest.raises(InputError, match="cut.jpg: cannot be read as an image"):
        read_image(tmp_path / "cut.jpg")
