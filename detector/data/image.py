"""Image files of any kind as RGB arrays.

A file may come from anywhere: its header is believed only within limits, and only decoders that need no other program
(as PostScript's does) get to see it.
"""

from __future__ import annotations

import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from detector.utils.errors import InputError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")  # JPEG also reads MPO
MAX_SIDE = 32_767  # pixels: OpenCV, which augments, counts them in 16 bits
MAX_PIXELS = 100_000_000  # 14 bytes each while they are turned and made RGB, 1.4 GB; detectors are fed a hundredth
MAX_BYTES = 1 << 30  # of a file: MAX_PIXELS of 16-bit RGB, stored plainly, are 0.6 GB
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

# Pillow's warning, from 89 million pixels on: what is too large is refused here, in a sentence.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: str | Path, stated_size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file as (H,W,3) uint8 RGB, turned upright as its EXIF orientation says.

    16-bit values are scaled to 8 bits (v / 257), grey, palette, 1-bit and CMYK images become RGB, alpha is ignored. Of
    a file with several pictures (animations, pages, stereo) it is the first, the one that other programs show.
    stated_size: (h, w) as the annotation file has it. Where it is the size before turning, the boxes were drawn on the
        image as stored, and that is what is returned.

    Raises InputError when the file is missing, is not an image, is cut short, is larger than MAX_SIDE, MAX_PIXELS or
    MAX_BYTES, or has another size than stated; the last two before any pixel is decoded.
    """
    try:
        check_file(path)
        with open_image(path) as image:
            turned = orientation(image) >= 5
            stored = image.height, image.width
            upright = stored[::-1] if turned else stored
            if stated_size in (None, upright, stored):
                image.load()
                picture = turned_upright(image) if stated_size in (None, upright) else image
                if picture is not image:
                    image.close()  # both of them, and RGB, would be gigabytes
                return to_rgb(picture)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as problem:
        raise InputError(f"{path}: cannot be read as an image ({problem})") from None
    (h, w), (height, width) = stated_size, upright
    raise InputError(
        f"{path}: is {width}x{height} pixels but the annotation file says {w}x{h} (width x height); "
        "its boxes cannot be trusted, so correct the file or the image"
    )


def check_file(path: str | Path) -> None:
    """Raise OSError or ValueError unless the path names a file, of MAX_BYTES at most: a pipe would be waited for."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size / 1e9:.1f} GB; {MAX_BYTES / 1e9:.1f} GB are the most")


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """Image.open for the formats and sizes that are taken. Raises whatever Pillow does, and ValueError."""
    image = Image.open(file, formats=FORMATS)
    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(
            f"{image.width}x{image.height} pixels; {MAX_SIDE} a side and {MAX_PIXELS / 1e6:.0f} million in all are the "
            "most: make it smaller, or cut it into tiles"
        )
    if image.format == "TIFF":
        image.load()  # Pillow turns these itself then, and their size changes
    return image


def orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts them; 1 = upright as stored, from 5 on height and width are exchanged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data says nothing, and is no reason to refuse the pixels
        return 1
    return value if value in TURNS else 1


def turned_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode as (H,W,3) uint8 RGB, as `read_image` describes; the orientation is left as it is."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image), 0, 65535).astype(np.int32)
        grey = ((values + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P":  # a palette whose transparency is given as bytes is only understood on the way to RGBA
        return np.array(image.convert("RGBA").convert("RGB"))
    return np.array(image.convert("RGB"))
