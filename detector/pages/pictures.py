"""Pictures inside a page: the part of an image that matters, small, with boxes drawn on it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from detector.pages.outlines import Box, Outline, draw_outlines
from detector.utils.errors import InputError

SIDE = 320  # pixels of the longer side of a picture
JPEG_QUALITY = 78  # 10-25 kB a picture
MIN_DRAWN = 20  # pixels of the picture; a box with a shorter side is drawn with this side
FONT = 17  # pixels of the picture, which the page shows at about two thirds of its size
CONTEXT = 1.0  # how much of the image to show around a box, in lengths of its longer side
MIN_CONTEXT = 64  # pixels of the image; around a small box

Key = TypeVar("Key", int, str)  # what names an image: its index, or its file


@dataclass
class Card(Generic[Key]):
    """A picture of a page and the text below it. `take_pictures` adds the picture."""

    title: str
    text: str
    image: Key
    outlines: list[Outline]  # boxes in pixels of the image; widths in pixels of the picture; the last one on top
    around: Box | None = None  # the part of the image to show, with some context; None = all of it
    tag: str = ""  # one word, in a corner
    tone: str = ""  # of the tag: good, warn, bad
    picture: str | None = None  # data: URI; None where the image cannot be read
    width: int = 0  # pixels of the picture
    height: int = 0

    @property
    def alt(self) -> str:
        """The text for those who cannot see the picture."""
        return ": ".join(filter(None, (self.tag, self.title, self.text)))


def take_pictures(cards: Iterable[Card[Key]], read: Callable[[Key], np.ndarray]) -> None:
    """Add the pictures to cards. read: the card's `image` → (H, W, 3) uint8 RGB, called once for each image.

    Where `read` raises InputError, the cards keep no picture.
    """
    cards_of: dict[Key, list[Card[Key]]] = {}
    for card in cards:
        cards_of.setdefault(card.image, []).append(card)
    for key, cards_of_image in cards_of.items():
        try:
            image = read(key)
        except InputError:
            continue
        for card in cards_of_image:
            small = thumbnail(image, card.outlines, card.around)
            card.width, card.height = small.size
            card.picture = as_uri(small)


def as_uri(picture: Image.Image) -> str:
    """The picture as a JPEG in a data: URI."""
    buffer = io.BytesIO()
    # subsampling=0: thin lines keep their colour
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(image: np.ndarray, outlines: Sequence[Outline], around: Box | None = None) -> Image.Image:
    """A picture with a longer side of SIDE pixels, of all of the image or of what is `around` a box.

    image: (H, W, 3) uint8 RGB. outlines: see Card; one with a NaN is not drawn.
    """
    left, top, right, bottom = _part(image, around)
    cut = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    scale = SIDE / max(cut.size)
    size = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
    small = cut.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    shown = []
    for outline in outlines:
        x1, y1, x2, y2 = outline.box
        if np.isfinite(outline.box).all():
            x1, x2 = _visible_side((x1 - left) * scale, (x2 - left) * scale)
            y1, y2 = _visible_side((y1 - top) * scale, (y2 - top) * scale)
            if x1 < small.width and x2 > 0 and y1 < small.height and y2 > 0:
                shown.append(replace(outline, box=(x1, y1, x2, y2)))
    draw_outlines(small, shown, FONT)
    return small


def _visible_side(a: float, b: float) -> tuple[float, float]:
    """The ends of a side of a box in rising order, at least MIN_DRAWN apart."""
    middle, half = (a + b) / 2, max(abs(b - a) / 2, MIN_DRAWN / 2)
    return middle - half, middle + half


def _part(image: np.ndarray, around: Box | None) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels of the part to show: inside the image, at least one pixel."""
    height, width = image.shape[:2]
    if around is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = around
    margin = max(CONTEXT * max(x2 - x1, y2 - y1), MIN_CONTEXT)
    left, top = (int(np.clip(v - margin, 0, side - 1)) for v, side in ((x1, width), (y1, height)))
    right, bottom = (int(np.clip(v + margin, low + 1, side)) for v, low, side in ((x2, left, width), (y2, top, height)))
    return left, top, right, bottom
