"""Labels lie beside small boxes and apart from each other, in the picture; lines lie around what is in a box."""

import numpy as np
import pytest
from PIL import Image

from detector.pages.labels import place_labels
from detector.pages.outlines import Outline, draw_outlines

WIDTH, HEIGHT = 640, 480
LABEL = np.array([70, 13])


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) bool: which of boxes a (n, 4) share a pixel with which of b (m, 4)."""
    return ((a[:, None, :2] < b[None, :, 2:]) & (b[None, :, :2] < a[:, None, 2:])).all(axis=2)


def place(boxes: list, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    boxes = np.array(boxes, np.float64)
    return place_labels(boxes, np.tile(LABEL, (len(boxes), 1)), boxes, width, height)


@pytest.mark.parametrize("seed", range(4))
def test_labels_cover_neither_each_other_nor_small_boxes(seed):
    """Of 20 objects, most of them smaller than their labels."""
    rng = np.random.default_rng(seed)
    sides = rng.choice([8, 14, 25, 60], (20, 1)) * rng.uniform(0.8, 1.2, (20, 2))
    corners = rng.uniform(0, (WIDTH, HEIGHT) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    labels = place(boxes)
    assert labels[:, 2:] - labels[:, :2] == pytest.approx(np.tile(LABEL, (20, 1)))
    assert (labels >= 0).all() and (labels <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()
    assert not np.triu(overlap(labels, labels), 1).any()
    small = sides.prod(axis=1) < LABEL.prod()
    assert small.sum() >= 10 and not overlap(labels, boxes[small]).any()


def test_label_stands_above_its_box_where_nothing_is_in_the_way():
    assert place([(200, 200, 300, 300)]).tolist() == [[200, 187, 270, 200]]


def test_label_leaves_the_place_above_to_a_small_object():
    (label, _) = place([(200, 200, 300, 300), (205, 188, 215, 198)])
    assert not overlap(label[None], np.array([(205, 188, 215, 198)])).any()


def test_labels_of_boxes_in_one_place_are_stacked():
    labels = place([(200, 200, 230, 230)] * 6)
    assert not np.triu(overlap(labels, labels), 1).any()


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (620, 460, 640, 480), (-50, -50, 700, 500), (5, 470, 6, 471)])
def test_label_of_a_box_at_the_edge_stays_in_the_picture(box):
    (label,) = place([box])
    assert (label >= 0).all() and (label <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()


def test_labels_without_room_are_left_out():
    """Of 12 boxes in a picture as large as four labels."""
    boxes = [(12 * i, 12, 12 * i + 6, 13) for i in range(12)]
    labels = place(boxes, width=140, height=26)
    placed = labels[~np.isnan(labels).any(axis=1)]
    assert not np.isnan(labels[0]).any() and 1 < len(placed) <= 4


def drawn(outlines: list[Outline], size: tuple[int, int] = (100, 80), font_size: float = 10) -> np.ndarray:
    picture = Image.new("RGB", size, (50, 50, 50))
    draw_outlines(picture, outlines, font_size)
    return np.asarray(picture)


@pytest.mark.parametrize("width", [1, 3])
def test_lines_lie_around_what_is_in_the_box(width):
    picture = drawn([Outline((40, 30, 50, 38), "#ff0000", width)])
    assert (picture[30:38, 40:50] == 50).all()
    assert (picture[30:38, 39] == (255, 0, 0)).all() and (picture[38, 40:50] == (255, 0, 0)).all()
    beyond = picture[34, 39 - width]
    assert (beyond == (0 if width > 1 else 50)).all()  # thick lines have a dark edge


def test_lines_of_a_box_that_leaves_the_picture_stay_in_it():
    picture = drawn([Outline((-20, -20, 300, 300), "#ff0000", 1)])
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == (255, 0, 0)).all()


def test_a_long_label_is_shortened_but_for_its_score():
    columns = np.flatnonzero(
        (drawn([Outline((40, 40, 60, 60), "#ffffff", 1, "x" * 90 + " 0.93")]) == 255).any(axis=(0, 2))
    )
    assert 40 < columns.max() - columns.min() < 70  # of 100 pixels


def test_letters_are_black_on_light_colours_and_white_on_dark_ones():
    for colour, ink in (("#ffff00", 0), ("#0000ff", 255)):
        label = drawn([Outline((10, 40, 90, 70), colour, 1, "HHH")])[28:38, 10:25]
        assert (abs(label.astype(int) - ink) < 30).all(axis=2).any()
