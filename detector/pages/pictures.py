"""Pictures inside a page: cut out around what they show, small, with boxes drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from detector.utils.errors import InputError

SIDE = 320  # pixels of the longer side of a picture in a page
QUALITY = 78  # of its JPEG: 10-25 kB each
LEAST_DRAWN = 20  # pixels of the picture: a smaller box is drawn as large as this
CONTEXT = 1.0  # of the box's longer side is shown on each side of it
LEAST = 64  # pixels of the image to show on either side of a small box

Box = tuple[float, float, float, float]  # xyxy pixels of the image


@dataclass
class Card:
    """A picture of a page and what it shows, once `take` has taken it."""

    title: str
    text: str
    image: int | str  # which, for `read`
    boxes: list[tuple[Box, str, int]]  # to draw: (box, colour, width), the last on top
    around: Box | None = None  # the part to show, with some context; None: all of the image
    tag: str = ""  # one word, in a corner
    tone: str = ""  # of the tag: good, warn, bad
    picture: str | None = None  # data: URI; None where it could not be taken
    width: int = 0
    height: int = 0

    @property
    def alt(self) -> str:
        """For who cannot see the picture."""
        return ": ".join(filter(None, (self.tag, self.title, self.text)))


def take(cards: Iterable[Card], read: Callable[[int | str], np.ndarray]) -> None:
    """Take the pictures of cards; read: `image` → (H, W, 3) uint8 RGB. Each image is read once.

    An image that `read` raises InputError for leaves its cards without.
    """
    by_image: dict[int | str, list[Card]] = {}
    for card in cards:
        by_image.setdefault(card.image, []).append(card)
    for which, of_it in by_image.items():
        try:
            image = read(which)
        except InputError:
            continue
        for card in of_it:
            small = thumbnail(image, card.boxes, card.around)
            card.width, card.height = small.size
            card.picture = as_uri(small)


def as_uri(picture: Image.Image) -> str:
    """The picture as a JPEG in a data: URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)  # thin lines keep their colour
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(image: np.ndarray, boxes: list[tuple[Box, str, int]], around: Box | None = None) -> Image.Image:
    """The part of image (H, W, 3) uint8 RGB with boxes drawn, its longer side SIDE pixels."""
    left, top, right, bottom = _part(image, around)
    cut = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    scale = SIDE / max(cut.size)
    size = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
    small = cut.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(small)
    for box, colour, width in boxes:
        if not np.isfinite(box).all():
            continue
        x1, x2 = _visible(*((x - left) * scale for x in box[::2]))
        y1, y2 = _visible(*((y - top) * scale for y in box[1::2]))
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black")  # to be seen on any background
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
    return small


def _visible(a: float, b: float) -> tuple[int, int]:
    """The ends of a box's side in order, and far enough apart to see something between them."""
    middle, half = (a + b) / 2, max(abs(b - a) / 2, LEAST_DRAWN / 2)
    return round(middle - half), round(middle + half)


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
