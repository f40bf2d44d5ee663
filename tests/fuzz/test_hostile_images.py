"""Hostile images are refused in one line before they are decoded; unusual but sound ones are read."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from detector.data.image import MAX_SIDE, read_image
from detector.data.image_files import inspect


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of these pixels (zlib-compressed), whose header claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore")  # pytest replaces the filter that detector.data.image sets
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png(50_000, 50_000, b""), "2500000000 pixels"),
        (png(50_000, 2, b""), f"50000x2 pixels; at most {MAX_SIDE} a side and 100 million in all are read"),
        (png(12_000, 12_000, b""), "12000x12000 pixels"),
        (png(20_000, 100, b"\0" * 50), "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not recognised as JPEG, PNG"),
    ],
)
def test_images(tmp_path, refusal, content, said):
    (tmp_path / "a.jpg").write_bytes(content)
    assert said in refusal(lambda: read_image(tmp_path / "a.jpg"))
    assert said.split(" as an")[0] in inspect(tmp_path / "a.jpg").problem or "read" in said


def test_an_image_of_another_size_than_stated_is_not_decoded(tmp_path, refusal):
    (tmp_path / "a.png").write_bytes(png(9000, 9000, b""))
    message = refusal(lambda: read_image(tmp_path / "a.png", (48, 64)))
    assert "is 9000x9000 pixels but the annotation file says 64x48" in message


def test_more_pixels_than_the_header_says_are_not_unpacked(tmp_path):
    (tmp_path / "a.png").write_bytes(png(4, 4, b"\0" * 20_000_000))
    assert read_image(tmp_path / "a.png").shape == (4, 4, 3)


def test_reading_does_not_wait_for_a_pipe_or_a_folder(tmp_path, refusal):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for name in ("a.png", "b.png"):
        assert "not a file" in refusal(lambda name=name: read_image(tmp_path / name))
        assert inspect(tmp_path / name).problem == "not a file"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    red, green, blue = read_image(tmp_path / "a").reshape(-1, 3).mean(axis=0)
    assert red > 200 and green < 50 and blue < 50


def test_a_tiff_with_a_rotation_in_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "a.tif", exif=exif)
    assert read_image(tmp_path / "a.tif").shape == read_image(tmp_path / "a.tif", (9, 4)).shape == (9, 4, 3)
    assert inspect(tmp_path / "a.tif").upright == (9, 4)
