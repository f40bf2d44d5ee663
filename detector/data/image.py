"""Image files of any kind as RGB arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from detector.utils.errors import InputError


def read_image(path: str | Path, stated_size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file as (H,W,3) uint8 RGB, turned upright as its EXIF orientation says.

    16-bit values are scaled to 8 bits (v / 257), grey, palette, 1-bit and CMYK images become RGB, alpha is ignored.
    stated_size: (h, w) as the annotation file has it. Where it is the size before turning, the boxes were drawn on the
        image as stored, and that is what is returned.

    Raises InputError when the file is missing, is not an image, is cut short, or has another size than stated.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = turned_upright(image)
            if stated_size in (None, (upright.height, upright.width)):
                return to_rgb(upright)
            if stated_size == (image.height, image.width):
                return to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as problem:
        raise InputError(f"{path}: cannot be read as an image ({' '.join(str(problem).split())})") from None
    h, w = stated_size
    raise InputError(
        f"{path}: is {upright.width}x{upright.height} pixels but the annotation file says {w}x{h} (width x height); "
        "its boxes cannot be trusted, so correct the file or the image"
    )


def turned_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data says nothing, and is no reason to refuse the pixels
        return image


def to_rgb(image: Image.Image) -> np.ndarray:
    """Any mode as (H, W, 3) uint8 RGB."""
    """A PIL image of any mode as (H,W,3) uint8 RGB, as `read_image` describes; the orientation is left as it is."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P":  # a palette whose transparency is given as bytes is only understood on the way to RGBA
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
