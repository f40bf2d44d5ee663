"""IoU of arrays: by hand, and against torchvision and pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask
from torchvision.ops import box_iou

from detector.ops.box_arrays import coverage, iou_of_sides, iou_xywh, iou_xyxy


def random_xywh(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 40, (count, 4))


def to_xyxy(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)


def test_iou_by_hand():
    box = np.array([0.0, 0, 10, 10])
    others = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 2, 8]])
    assert iou_xyxy(box, others) == pytest.approx([1, 1 / 3, 0, 0])
    others[:, 2:] -= others[:, :2]
    assert iou_xywh(box, others) == pytest.approx([1, 1 / 3, 0, 0])
    assert iou_xywh(box, others, np.array([False, True, True, False])) == pytest.approx([1, 0.5, 0, 0])
    assert iou_of_sides(box[2:], box[2:], np.array([[0, 0], [5, 0], [10, 0], [12, 3]])) == pytest.approx(
        [1, 1 / 3, 0, 0]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs_equal_torchvision(dtype):
    a, b = (to_xyxy(random_xywh(30, seed)).astype(dtype) for seed in (0, 1))
    pairs = iou_xyxy(a[:, None], b)
    assert pairs.dtype == dtype
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.array_equal(pairs, expected) and (pairs == 0).any() and (pairs > 0).any()
    assert np.array_equal(iou_xyxy(a, b), expected.diagonal())


def test_with_crowds_equals_pycocotools_to_the_last_bit():
    found, objects = random_xywh(200, 2), random_xywh(50, 3)
    crowd = np.random.default_rng(4).random(50) < 0.3
    expected = mask.iou(found, objects, crowd.tolist())
    assert np.array_equal(iou_xywh(found[:, None], objects, crowd), expected)
    assert np.array_equal(iou_xywh(found[:, None], objects), mask.iou(found, objects, [0] * 50))


def test_sides_and_distances_say_the_same_as_corners():
    a, b = random_xywh(100, 5), random_xywh(100, 6)
    distances = np.abs((a - b)[:, :2] + (a - b)[:, 2:] / 2)
    assert iou_of_sides(a[:, 2:], b[:, 2:], distances) == pytest.approx(iou_xywh(a, b))


def test_coverage_by_hand():
    windows = np.array([[0.0, 0, 10, 10], [90, 90, 99, 99]])
    boxes = np.array([[2.0, 2, 4, 4], [5, 0, 15, 20]])
    assert coverage(windows, boxes) == pytest.approx(np.array([[1, 0.25], [0, 0]]))


def test_boxes_without_area_have_an_iou_of_0():
    point = np.array([[3.0, 3, 3, 3]])
    with np.errstate(all="raise"):
        assert iou_xyxy(point, point).tolist() == [0]
        assert iou_xywh(np.array([[3.0, 3, 0, 0]]), np.array([[3.0, 3, 0, 0]])).tolist() == [0]


def test_empty():
    none, two = np.zeros((0, 4)), np.ones((2, 4))
    assert iou_xyxy(none, none).shape == iou_xywh(none, none).shape == (0,)
    assert iou_xyxy(none[:, None], two).shape == (0, 2) and coverage(two, none).shape == (2, 0)
