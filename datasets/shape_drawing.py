"""Draws an image for make_shapes.py: a background, shapes and look-alikes on it, and noise over everything.

Colours are BGR in 0..255; `rng` is a numpy Generator.
"""

import itertools
import math

import cv2
import numpy as np
from shape_outlines import LOOKALIKES, SHAPES

SIZES = ((256, 192), (192, 256), (224, 224), (256, 256), (256, 160), (208, 256))  # width, height in px
MIN_SIDE = 8  # px, least side of a box
MAX_COVERED = 0.4  # greatest fraction of an object that later ones hide
APART = 0.85  # fraction of the shapes that are placed where they hide nothing, if such a place is found
TRIES = 20  # random places tried for one of these
SUPERSAMPLE = 4  # masks are drawn this much larger, then averaged down


def turned(outline: list[np.ndarray], rng) -> list[np.ndarray]:
    """The outline, randomly squashed a little, then randomly rotated."""
    squash = np.diag(np.exp(rng.uniform(-0.08, 0.08, 2)))
    cos, sin = np.cos(angle := rng.uniform(0, 2 * math.pi)), np.sin(angle)
    matrix = squash @ np.array([(cos, sin), (-sin, cos)])
    return [polygon @ matrix for polygon in outline]


def placed(outline: list[np.ndarray], side: float, width: int, height: int, rng) -> list[np.ndarray]:
    """The outline in pixels, at a random place entirely inside the image, its box's longer side `side` px long."""
    low, high = outline[0].min(0), outline[0].max(0)
    scale = max(side / (high - low).max(), MIN_SIDE / (high - low).min())
    room = np.array([width, height]) - scale * (high - low)
    corner = rng.uniform(0, 1, 2) * room
    return [(polygon - low) * scale + corner for polygon in outline]


def window_of(outline: list[np.ndarray]) -> tuple[slice, slice]:
    """The rows and columns of the pixels that the outline touches."""
    x0, y0 = np.floor(outline[0].min(0) + 1e-6).astype(int)  # an edge on the border may be off by rounding
    x1, y1 = np.ceil(outline[0].max(0) - 1e-6).astype(int)
    return slice(y0, y1), slice(x0, x1)


def mask_of(outline: list[np.ndarray]) -> np.ndarray:
    """The outline's coverage of each pixel of its window, (h, w) float32 in 0..1."""
    rows, columns = window_of(outline)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    large = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    corners = [((polygon - (columns.start, rows.start)) * SUPERSAMPLE - 0.5) * 256 for polygon in outline]
    cv2.fillPoly(large, [np.round(polygon).astype(np.int32) for polygon in corners], 255, shift=8)
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)


def noise(width: int, height: int, rng) -> np.ndarray:
    """Noise of several scales, (height, width) float32 in about 0..1."""
    field = np.zeros((height, width), np.float32)
    for cells in (3, 8, 24, 80):
        grid = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
        layer = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        field += layer * np.float32(rng.uniform(0.1, 0.4))
    return field


def ramp(width: int, height: int, rng) -> np.ndarray:
    """A gradient in a random direction, (height, width) float32 in -1..1."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return (x * math.cos(angle) + y * math.sin(angle)).astype(np.float32)


def background(width: int, height: int, rng) -> np.ndarray:
    """Two colours mixed by noise and a gradient, with soft blobs and lines: (height, width, 3) float32."""
    first, second = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    second = first + np.float32(rng.uniform(0.1, 0.5)) * (second - first)
    mix = noise(width, height, rng) + np.float32(rng.uniform(0, 0.3)) * ramp(width, height, rng)
    image = first + (second - first) * mix[..., None]
    for _ in range(rng.integers(0, 5)):
        layer = np.zeros((height, width), np.float32)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(8, 50)), int(rng.integers(8, 50)))
        cv2.ellipse(layer, centre, axes, float(rng.uniform(0, 180)), 0, 360, rng.uniform(0.15, 0.4), -1)
        layer = cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(3, 9)))[..., None]
        image += (rng.uniform(0, 255, 3).astype(np.float32) - image) * layer
    for _ in range(rng.integers(0, 6)):
        ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        colour = tuple(image[ends[0][1], ends[0][0]].astype(float) + rng.uniform(-60, 60, 3))
        cv2.line(image, *ends, colour, int(rng.integers(1, 4)))
    return image


def texture(width: int, height: int, colour: np.ndarray, rng) -> np.ndarray:
    """A fill around `colour`, (height, width, 3) float32: plain, shaded, mottled, or striped."""
    kind = rng.integers(4)
    if kind == 0:
        pattern = np.zeros((height, width), np.float32)
    elif kind == 1:
        pattern = ramp(width, height, rng)
    elif kind == 2:
        pattern = 2 * noise(width, height, rng) - 1
    else:
        pattern = np.sin(ramp(width, height, rng) * np.float32(rng.uniform(6, 20)))
    return colour + pattern[..., None] * rng.uniform(-30, 30, 3).astype(np.float32)


def paint(image: np.ndarray, mask: np.ndarray, rng) -> None:
    """Fill the mask, in place, with the one of five random colours that differs most from the image under it."""
    behind = np.average(image.reshape(-1, 3), 0, mask.ravel())
    colours = rng.uniform(0, 255, (5, 3)).astype(np.float32)
    colour = colours[np.abs(colours - behind).sum(1).argmax()]
    image += (texture(image.shape[1], image.shape[0], colour, rng) - image) * mask[..., None]


def find_place(
    outline: list[np.ndarray], width: int, height: int, objects: list[dict], visible: list[np.ndarray], rng
) -> list[np.ndarray]:
    """The outline in pixels, at a place where it hides no object, if found soon, and never too much of one.

    objects, visible: see `add_shapes`.
    """
    side = math.exp(rng.triangular(math.log(14), math.log(52), math.log(min(width, height) / 2)))
    apart = TRIES if rng.random() < APART else 0
    for attempt in itertools.count():
        candidate = placed(outline, side, width, height, rng)
        if not hides(candidate, objects, visible, 0 if attempt < apart else MAX_COVERED):
            return candidate
        if attempt >= apart:
            side = max(side * 0.95, MIN_SIDE)


def hides(outline: list[np.ndarray], objects: list[dict], visible: list[np.ndarray], limit: float) -> bool:
    """Whether the outline would raise the hidden fraction of an object above `limit`."""
    window, mask = window_of(outline), mask_of(outline)
    for item, seen in zip(objects, visible, strict=True):
        hidden = float((seen[window] * mask).sum())
        if hidden > 0 and float(seen.sum()) - hidden < (1 - limit) * item["area"]:
            return True
    return False


def add_shapes(image: np.ndarray, labels: list[str | None], rng) -> list[dict]:
    """Draw shapes one over the other, in place, so that none hides too much of an earlier one; None: a look-alike.

    Returns the objects: `name`, `bbox` (x, y, w, h in px) of the whole shape, hidden parts included, and
    `area` (px²) of its mask.
    """
    height, width = image.shape[:2]
    objects, visible = [], []  # visible: for each object, (H,W) float32, the fraction of each pixel that shows it
    for label in labels:
        make = SHAPES[label] if label else LOOKALIKES[rng.integers(len(LOOKALIKES))]
        outline = find_place(turned(make(rng), rng), width, height, objects, visible, rng)
        window, mask = window_of(outline), mask_of(outline)
        paint(image[window], mask, rng)
        for seen in visible:
            seen[window] *= 1 - mask
        if label:
            low, high = outline[0].min(0), outline[0].max(0)
            box = [round(float(v), 2) for v in (*low, *(high - low))]
            objects.append({"name": label, "bbox": box, "area": round(float(mask.sum()), 1)})
            visible.append(np.zeros((height, width), np.float32))
            visible[-1][window] = mask
    return objects


def draw(labels: list[str], seed: int, split: int, index: int) -> tuple[np.ndarray, list[dict]]:
    """An image (H,W,3) uint8 BGR with an object of each label, and its objects (see `add_shapes`)."""
    rng = np.random.default_rng([seed, split, 1 + index])  # 1 +: numpy seeds [seed, split, 0] as [seed, split]
    width, height = SIZES[rng.integers(len(SIZES))]
    image = background(width, height, rng)
    shapes = [*labels, *[None] * int(rng.integers(0, 4))]
    objects = add_shapes(image, [shapes[i] for i in rng.permutation(len(shapes))], rng)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.3)))
    image += rng.normal(0, rng.uniform(1, 6), image.shape).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), objects
