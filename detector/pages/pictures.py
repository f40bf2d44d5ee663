"""Pictures inside a page: cut out around what they show, small, with boxes drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from detector.utils.errors import InputError

SIDE = 320  # pixels of the longer side of a picture in a page
QUALITY = 78  # of its JPEG: 10-25 kB each
CONTEXT = 1.0  # of the box's longer side is shown on each side of it
LEAST = 64  # pixels of the image to show on either side of a small box

Box = tuple[float, float, float, float]  # xyxy pixels of the image


@dataclass
class Shot:
    """What a picture shows: where on which image, and the boxes to draw, (box, colour, width), the last on top."""

    image: int
    boxes: list[tuple[Box, str, int]]
    around: Box | None = None  # the part to show, with some context; None: all of the image
    picture: dict = field(default_factory=dict)  # once taken: picture (data: URI), width, height


def take(shots: Iterable[Shot], read: Callable[[int], np.ndarray]) -> None:
    """Fill in `picture` of the shots; read: index → (H, W, 3) uint8 RGB. Each image is read once.

    An image that `read` raises InputError for leaves its shots without.
    """
    at, image = None, None
    for shot in sorted(shots, key=lambda s: s.image):
        if shot.image != at:
            try:
                at, image = shot.image, read(shot.image)
            except InputError:
                at, image = shot.image, None
        if image is not None:
            shot.picture = thumbnail(image, shot.boxes, shot.around)


def thumbnail(image: np.ndarray, boxes: list[tuple[Box, str, int]], around: Box | None = None) -> dict:
    """{picture: data: URI of a JPEG of at most SIDE pixels, width, height} of image (H, W, 3) uint8 RGB."""
    left, top, right, bottom = _part(image, around)
    cut = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    scale = SIDE / max(cut.size)
    size = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
    small = cut.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(small)
    for box, colour, width in boxes:
        if not np.isfinite(box).all():
            continue
        x1, x2 = (round((x - left) * scale) for x in (min(box[::2]), max(box[::2])))
        y1, y2 = (round((y - top) * scale) for y in (min(box[1::2]), max(box[1::2])))
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black")  # to be seen on any background
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)  # thin lines keep their colour
    code = base64.b64encode(buffer.getvalue()).decode()
    return {"picture": f"data:image/jpeg;base64,{code}", "width": small.width, "height": small.height}


def _part(image: np.ndarray, around: Box | None) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels: the box with context, inside the image and of at least one pixel."""
    height, width = image.shape[:2]
    if around is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = around
    margin = max(CONTEXT * max(x2 - x1, y2 - y1), LEAST)
    left, top = (int(np.clip(v - margin, 0, side - 1)) for v, side in ((x1, width), (y1, height)))
    right, bottom = (int(np.clip(v + margin, low + 1, side)) for v, low, side in ((x2, left, width), (y2, top, height)))
    return left, top, right, bottom
