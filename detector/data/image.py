"""Image files of many formats as RGB arrays.

A file may be malicious: its size is checked against limits before decoding, and only decoders that run no other program
(as PostScript's does) are used.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from detector.utils.errors import InputError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")  # JPEG also reads MPO
MAX_SIDE = 32_767  # pixels: OpenCV, which augments, counts them in 16 bits
MAX_PIXELS = 100_000_000  # 1.4 GB while decoded: 14 bytes per pixel to turn and convert it
MAX_BYTES = 1 << 30  # of a file: MAX_PIXELS of uncompressed 16-bit RGB are 0.6 GB
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns above 89 million pixels; here, images above MAX_PIXELS are refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: str | Path, stated_size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file as (H,W,3) uint8 RGB, turned upright by its EXIF orientation.

    16-bit values are scaled to 8 bits (v / 257); grey, palette, 1-bit and CMYK images become RGB; alpha is ignored. Of
    a file with several pictures (animations, pages, stereo), the first is read.
    stated_size: (h, w) from the annotation file. Where it is the size before turning, the boxes were drawn on the
        image as stored, and the image is not turned.

    Raises InputError when the file is missing, is not an image, is truncated, exceeds MAX_SIDE, MAX_PIXELS or
    MAX_BYTES, or has another size than stated. Sizes are checked before any pixel is decoded.
    """
    with refusals_named(path):
        check_file(path)
        return _decoded(path, path, stated_size)


def decode_image(content: bytes, name: str) -> np.ndarray:
    """`read_image` of an image file's content, with the same checks. name: what errors call it."""
    with refusals_named(name):
        check_length(len(content))
        return _decoded(io.BytesIO(content), name, None)


@contextlib.contextmanager
def refusals_named(name: str | Path) -> Iterator[None]:
    """Whatever is raised while the image `name` is opened and decoded becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such image") from None
    # Pillow's decoders raise exceptions of many types: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as problem:
        raise InputError(f"{name}: cannot be read as an image ({problem})") from None


def _decoded(file: str | Path | IO[bytes], name: str | Path, stated_size: tuple[int, int] | None) -> np.ndarray:
    with open_image(file) as image:
        turned = orientation(image) >= 5
        stored = image.height, image.width
        upright = stored[::-1] if turned else stored
        if stated_size in (None, upright, stored):
            image.load()
            picture = turned_upright(image) if stated_size in (None, upright) else image
            if picture is not image:
                image.close()  # saves memory: both, and RGB, can be gigabytes
            return to_rgb(picture)
    (h, w), (height, width) = stated_size, upright
    raise InputError(
        f"{name}: is {width}x{height} pixels but the annotation file says {w}x{h} (width x height); "
        "its boxes cannot be trusted, so correct the file or the image"
    )


def check_file(path: str | Path) -> None:
    """Raise OSError or ValueError unless the path is a regular file (a pipe would block) of at most MAX_BYTES."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    check_length(status.st_size)


def check_length(length: int) -> None:
    """Raise ValueError for an image file of more than MAX_BYTES."""
    if length > MAX_BYTES:
        raise ValueError(f"{length / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.1f} GB are read")


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """Image.open for the allowed formats and sizes. Raises ValueError for others, and whatever Pillow raises."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:  # its text may hold an address in memory
        raise ValueError(f"its content is not recognised as {', '.join(FORMATS)}") from None
    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(
            f"{image.width}x{image.height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS / 1e6:.0f} million in all "
            "are read: make it smaller, or cut it into tiles"
        )
    if image.format == "TIFF":
        image.load()  # Pillow turns TIFFs while loading, which changes their size
    return image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8: 1 = upright as stored; from 5 on, height and width are exchanged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data is no reason to refuse the pixels
        return 1
    return value if value in TURNS else 1


def turned_upright(image: Image.Image) -> Image.Image:
    """The image turned upright by its EXIF orientation."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode as (H,W,3) uint8 RGB (see `read_image`), without turning it."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image), 0, 65535).astype(np.int32)
        grey = ((values + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P":  # Pillow converts a palette with transparency given as bytes correctly only to RGBA
        return np.array(image.convert("RGBA").convert("RGB"))
    return np.array(image.convert("RGB"))


def list_folders(folder: Path, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Folder of the file names, relative to `folder` → the names in it; empty if there is no such folder."""
    listings = {}
    for directory in {os.path.dirname(name) for name in names}:
        try:
            with os.scandir(folder / directory) as entries:
                listings[directory] = frozenset(entry.name for entry in entries)
        except (OSError, ValueError):  # no such folder, or a name that no folder can have
            listings[directory] = frozenset()
    return listings
