"""The shapes of make_shapes.py as outlines: lists of polygons, (P,2) float arrays around the origin.

The first polygon is the outermost; where two overlap is a hole (even-odd rule). `rng`, a numpy Generator, varies the
proportions. The size has no meaning: drawing scales the outline.
"""

import math

import numpy as np


def arc(start: float, stop: float, radius: float = 1.0, centre=(0.0, 0.0), points: int = 48) -> np.ndarray:
    """Points on a circle, from angle `start` to `stop` in radians."""
    angle = np.linspace(start, stop, points)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius + centre


def regular(corners: int) -> np.ndarray:
    """A regular polygon; with many corners, a disc."""
    return arc(0, 2 * math.pi * (1 - 1 / corners), points=corners)


def spiked(points: int, inner: float) -> np.ndarray:
    """A star with outer corners at radius 1 and inner ones at `inner`."""
    corners = regular(2 * points)
    corners[1::2] *= inner
    return corners


def thick_arc(start: float, stop: float, inner: float) -> np.ndarray:
    """A part of a ring, from angle `start` to `stop` in radians, between radius `inner` and 1."""
    return np.concatenate([arc(start, stop), arc(stop, start, inner)])


def cross(arm: float) -> np.ndarray:
    """A plus sign whose arms are 2 * `arm` wide."""
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def arrow(rng) -> np.ndarray:
    """An arrow that points right."""
    shaft, neck = rng.uniform(0.16, 0.26), rng.uniform(-0.1, 0.2)
    head = rng.uniform(0.6, 0.75)
    half = [(-1, shaft), (neck, shaft), (neck, head), (1, 0)]
    return np.array(half + [(x, -y) for x, y in half[-2::-1]])


def crescent(rng) -> np.ndarray:
    """A disc minus a disc of radius `bite` whose centre is `shift` to the right."""
    bite, shift = rng.uniform(0.75, 0.9), rng.uniform(0.4, 0.55)
    x = (1 + shift**2 - bite**2) / (2 * shift)
    y = math.sqrt(1 - x**2)
    outer, inner = math.atan2(y, x), math.atan2(y, x - shift)
    edge = arc(2 * math.pi - inner, inner, bite, (shift, 0))
    return np.concatenate([arc(outer, 2 * math.pi - outer), edge])


def heart(rng) -> np.ndarray:
    """A heart, always the same."""
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1) / 16


def blob(rng) -> np.ndarray:
    """A smooth lump: a circle whose radius varies with the angle."""
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    swing = sum(rng.uniform(0.1, 0.2) * np.sin(k * t + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 4))
    return np.stack([np.cos(t), np.sin(t)], 1) * (1 + swing)[:, None]


def open_outline(rng) -> np.ndarray:
    """The thin outline of a square or triangle with half of one side missing."""
    corners = regular(int(rng.integers(3, 5)))
    path = np.concatenate([corners, (corners[-1:] + corners[:1]) / 2])
    return np.concatenate([path, path[::-1] * 0.8])


SHAPES = {
    "disc": lambda rng: [regular(64)],
    "square": lambda rng: [regular(4)],
    "triangle": lambda rng: [regular(3)],
    "ring": lambda rng: [regular(64), regular(64) * rng.uniform(0.45, 0.7)],
    "cross": lambda rng: [cross(rng.uniform(0.25, 0.4))],
    "hexagon": lambda rng: [regular(6)],
    "diamond": lambda rng: [regular(4) * (1, rng.uniform(0.42, 0.52))],
    "arrow": lambda rng: [arrow(rng)],
    "crescent": lambda rng: [crescent(rng)],
    "star": lambda rng: [spiked(5, rng.uniform(0.38, 0.46))],
}
LOOKALIKES = (
    lambda rng: [heart(rng)],
    lambda rng: [blob(rng)],
    lambda rng: [open_outline(rng)],
    lambda rng: [np.array([(-1, 0.6), (1, 0.6), (0.45, -0.6), (-0.45, -0.6)])],  # trapezoid
    lambda rng: [arc(0, math.pi)],  # half-disc
    lambda rng: [thick_arc(0, rng.uniform(1.2, 1.6) * math.pi, rng.uniform(0.55, 0.7))],  # broken ring
    lambda rng: [spiked(int(rng.integers(7, 11)), rng.uniform(0.5, 0.7))],  # burst
    lambda rng: [
        np.array([(-1, -1), (1, -1), (1, -0.4), (0.3, -0.4), (0.3, 1), (-0.3, 1), (-0.3, -0.4), (-1, -0.4)])
    ],  # letter T
)
