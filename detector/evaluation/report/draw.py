"""Boxes drawn on pictures, and pictures put side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detector.evaluation.detections import Detections

TRUTH_COLOUR = (255, 255, 255)


def class_colour(label: int) -> tuple[int, int, int]:
    """RGB for a class. Hues a golden ratio apart stay distinct however many classes there are."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of image (H, W, 3) uint8 RGB with n boxes drawn on it.

    boxes: (n, 4) xyxy pixels. labels: (n,), which the colours depend on. names: n, what to write on each box.
    scores: (n,); None = ground truth, drawn in white.
    """
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    width, font = max(1, side // 400), ImageFont.load_default(size=max(9, side // 60))
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable").tolist()  # the surest on top
    for i in order:
        colour = TRUTH_COLOUR if scores is None else class_colour(int(labels[i]))
        text = names[i] if scores is None else f"{names[i]} {scores[i]:.2f}"
        x1, y1, x2, y2 = boxes[i].tolist()
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)
        _, _, text_width, text_height = pen.textbbox((0, 0), text, font=font)
        left, top = min(x1, picture.width - text_width), max(0, y1 - text_height)
        pen.rectangle((left, top, left + text_width, top + text_height), fill=colour)
        pen.text((left, top), text, fill=(0, 0, 0), font=font)
    return np.asarray(picture)


def truth_beside_detections(
    image: np.ndarray, truth: tuple[np.ndarray, np.ndarray], detections: Detections, class_names: Sequence[str]
) -> np.ndarray:
    """(H, W', 3) uint8 RGB: the image (H, W, 3) twice, with ground truth at the left and detections at the right.

    truth: boxes (M, 4) xyxy pixels and labels (M,). detections: those of this image.
    """
    boxes, labels = truth
    left = draw_boxes(image, boxes, labels, [class_names[label] for label in labels])
    names = [class_names[label] for label in detections.labels]
    right = draw_boxes(image, detections.boxes, detections.labels, names, detections.scores)
    gap = np.full((image.shape[0], max(2, image.shape[1] // 50), 3), 128, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def contact_sheet(pictures: Sequence[np.ndarray], columns: int, cell_width: int = 640) -> np.ndarray:
    """(H, W, 3) uint8 RGB: pictures (h, w, 3) in a grid, each resized to `cell_width` pixels."""
    cells = [
        Image.fromarray(p).resize((cell_width, max(1, round(p.shape[0] * cell_width / p.shape[1])))) for p in pictures
    ]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (columns * cell_width, sum(heights)), (128, 128, 128))
    for y, row in zip(np.cumsum([0, *heights]).tolist(), rows, strict=False):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * cell_width, y))
    return np.asarray(sheet)
