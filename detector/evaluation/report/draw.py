"""Boxes drawn on pictures, and pictures put side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from detector.evaluation.detections import Detections
from detector.pages.outlines import Outline, draw_outlines

TRUTH_COLOUR = "#ffffff"
LINE, FONT = 400, 45  # the longer side of a picture in widths of its lines, and in heights of its letters
SMALLEST_FONT = 9  # pixels
GAP = 6  # pixels between two pictures of one image


def class_colour(label: int) -> str:
    """The colour of a class. Hues a golden ratio apart stay distinct however many classes there are."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.9, 1.0)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None = None,
    width: int | None = None,
) -> np.ndarray:
    """A copy of image (H, W, 3) uint8 RGB with n boxes drawn on it; lines and letters grow with it.

    boxes: (n, 4) xyxy pixels. labels: (n,), which the colours depend on. names: n, what to write on each box.
    scores: (n,); None = ground truth, drawn in white. width: in pixels, to which the copy is resized before boxes are
    drawn; None = that of the image.
    """
    picture = Image.fromarray(image)
    scale = width / picture.width if width else 1.0
    if width:
        picture = picture.resize((width, max(1, round(scale * picture.height))))
    side = max(picture.size)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable").tolist()  # the surest on top
    outlines = [
        Outline(
            box=tuple((scale * boxes[i]).tolist()),
            colour=TRUTH_COLOUR if scores is None else class_colour(int(labels[i])),
            width=max(1, side // LINE),
            label=names[i] if scores is None else f"{names[i]} {scores[i]:.2f}",
        )
        for i in order
    ]
    draw_outlines(picture, outlines, font_size=max(SMALLEST_FONT, side / FONT))
    return np.asarray(picture)


def truth_beside_detections(
    image: np.ndarray,
    truth: tuple[np.ndarray, np.ndarray],
    detections: Detections,
    class_names: Sequence[str],
    width: int = 640,
) -> np.ndarray:
    """(H', width, 3) uint8 RGB: the image (H, W, 3) twice, with ground truth at the left and detections at the right.

    truth: boxes (M, 4) xyxy pixels and labels (M,). detections: those of this image.
    """
    boxes, labels = truth
    half = (width - GAP) // 2
    left = draw_boxes(image, boxes, labels, [class_names[label] for label in labels], width=half)
    names = [class_names[label] for label in detections.labels]
    right = draw_boxes(image, detections.boxes, detections.labels, names, detections.scores, width=half)
    middle = np.full((len(left), width - 2 * half, 3), 128, np.uint8)
    return np.concatenate([left, middle, right], axis=1)


def contact_sheet(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: pictures (h, w, 3), all as wide, in a grid."""
    width = pictures[0].shape[1]
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights = [max(len(picture) for picture in row) for row in rows]
    sheet = np.full((sum(heights), columns * width, 3), 128, np.uint8)
    for y, row in zip(np.cumsum([0, *heights]).tolist(), rows, strict=False):
        for column, picture in enumerate(row):
            sheet[y : y + len(picture), column * width : (column + 1) * width] = picture
    return sheet
