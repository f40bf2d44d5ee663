"""Boxes drawn on a picture, with labels: thin, around objects instead of on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from detector.pages.labels import place_labels
from detector.pages.svg import plain

Box = tuple[float, float, float, float]  # xyxy pixels
WIDEST_LABEL = 0.6  # of the picture's width; the middle of a longer label is left out
SHORTEST_LABEL = 9  # characters: "dog…0.93"
PADDING = 1  # pixels around the text of a label


@dataclass(frozen=True)
class Outline:
    """A box to draw."""

    box: Box
    colour: str  # such as #ffd400
    width: int  # of the line, in pixels
    label: str = ""


def draw_outlines(picture: Image.Image, outlines: Sequence[Outline], font_size: float) -> None:
    """Draw boxes and then their labels onto an RGB picture. The last is on top, and its label has the first choice. A
    label that there is no room for is left out (`place_labels`).

    The lines lie around the boxes, inside the picture. font_size: in pixels.
    """
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=font_size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # wherever Pillow is installed from a wheel
    for outline in outlines:
        if outline.width > 1:  # stands out from any background
            pen.rectangle(_frame(outline, picture.size, 1), outline="black")
        pen.rectangle(_frame(outline, picture.size), outline=outline.colour, width=outline.width)
    frames = np.array([_frame(outline, picture.size) for outline in outlines], np.float64).reshape(-1, 4)
    frames[:, 2:] += 1  # the last pixel belongs to the box
    labelled = [i for i in reversed(range(len(outlines))) if outlines[i].label]
    texts = [_fitting(outlines[i].label, font, picture.width) for i in labelled]
    sizes = np.array([_size(text, font) for text in texts]).reshape(-1, 2)
    places = place_labels(frames[labelled], sizes, frames, *picture.size)
    for i, text, place in zip(labelled, texts, places, strict=True):
        if np.isnan(place).any():
            continue
        left, top, right, bottom = place.round().tolist()
        pen.rectangle((left, top, right - 1, bottom - 1), fill=outlines[i].colour)
        pen.text((left + PADDING, top + PADDING), text, fill=_ink(outlines[i].colour), font=font, anchor="la")


def _frame(outline: Outline, size: tuple[int, int], further: int = 0) -> tuple[int, int, int, int]:
    """The outermost pixels of the box's lines, or of one `further` out: left, top, right, bottom."""
    (x1, y1, x2, y2), line, (width, height) = outline.box, outline.width + further, size
    left, top = (min(max(0, round(v) - line), side - 1) for v, side in ((x1, width), (y1, height)))
    right, bottom = (min(round(v) + line, side) - 1 for v, side in ((x2, width), (y2, height)))
    return left, top, max(left, right), max(top, bottom)


def _size(text: str, font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    """Width and height of a label; all labels of a font are as high."""
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)) + 2 * PADDING, ascent + descent + 2 * PADDING


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The label on one line, at most WIDEST_LABEL wide."""
    share = WIDEST_LABEL * width / max(1.0, font.getlength(text))
    return plain(text, len(text) if share >= 1 else max(SHORTEST_LABEL, int(len(text) * share)))


def _ink(colour: str) -> str:
    """Black or white, whichever is easier to read on the colour (WCAG 2, relative luminance)."""
    red, green, blue = (((v / 255 + 0.055) / 1.055) ** 2.4 for v in ImageColor.getrgb(colour)[:3])
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"
