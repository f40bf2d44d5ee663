"""Intervals hold the truth as often as they say, in a world whose truth is known; and by hand."""

from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.average_precision import coco_figures, hits_by_class
from detector.evaluation.metrics.bootstrap import (
    draw_images,
    images_with_objects,
    interval,
    mean_over_classes,
    resampled_ap,
)
from detector.evaluation.metrics.matching import match


def world(images: int, seed: int, share: float, logit: float):
    """Images with about 2, 0.7 and 0.2 objects of three classes, a `share` of them found more or less exactly with a
    mean `logit`, and false detections, of -0.7; some images are harder than others. Objects stand 100 px apart, false
    detections below them."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.array([2.0, 0.7, 0.2]) * rng.gamma(2, 0.5, (images, 3)))
    of_image = counts.sum(axis=1)
    first = np.append(0, np.cumsum(of_image))
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in counts]).astype(np.int32)
    image = np.repeat(np.arange(images), of_image)
    boxes = np.zeros((len(labels), 4))
    boxes[:, 0], boxes[:, 2:] = 100 * (np.arange(len(labels)) - first[image]), 50
    sizes = np.full(images, 10_000, np.int32)
    data = CocoData(
        ["a", "b", "c"], np.arange(1, 4), Path("nowhere"), np.arange(images), sizes, sizes, b"", first[:1], first,
        boxes, boxes[:, 2] * boxes[:, 3], labels, np.zeros(len(labels), bool), np.arange(len(labels)),
    )  # fmt: skip
    hardness = rng.normal(0, 0.5, images)
    found = rng.random(len(labels)) < share
    logits = rng.normal(logit, 1, len(labels)) - hardness[image]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + 50], axis=1) + rng.normal(0, 4, boxes.shape)
    false_image = np.repeat(np.arange(images), rng.poisson(3 * np.exp(hardness)))
    images_found = np.concatenate([image[found], false_image])
    order = np.argsort(images_found, kind="stable")
    scores = 1 / (1 + np.exp(-np.concatenate([logits[found], rng.normal(-0.7, 1, len(false_image))])))
    detections = Detections(
        images_found[order],
        np.concatenate([corners[found], np.tile([0.0, 300, 50, 350], (len(false_image), 1))])[order].astype(np.float32),
        scores[order].astype(np.float32),
        np.concatenate([labels[found], rng.integers(0, 3, len(false_image))])[order].astype(np.int64),
    )
    hits = hits_by_class(match(detections, data))
    return hits, coco_figures(hits, data.class_names)


def test_intervals_hold_the_truth_in_93_to_97_of_100_samples():
    share = shares_held(images=100, samples=400, share=0.85, logit=0.7)
    assert all(0.93 <= held <= 0.97 for held in share.values()), share


def test_intervals_of_a_far_better_detector_are_a_little_too_high():
    share = shares_held(images=100, samples=200, share=0.98, logit=3)
    assert all(0.84 <= held <= 0.97 for held in share.values()), share


def shares_held(images: int, samples: int, **detector) -> dict[str, float]:
    """How many of the intervals of AP, and of each class, hold the true value."""
    _, truth = world(100_000, seed=10**6, **detector)
    held: dict[str, list[bool]] = {}
    for seed in range(samples):
        hits, figures = world(images, seed, **detector)
        draws = resampled_ap(hits, draw_images(images, draws=300, seed=seed)).mean(axis=1)
        cases = [("AP", truth["AP"], figures["AP"], mean_over_classes(draws), hits)]
        cases += [
            (name, truth["per_class"][name]["AP"], figures["per_class"][name]["AP"], draws[k], [hits[k]])
            for k, name in enumerate("abc")
        ]
        for name, true_value, value, own_draws, own in cases:
            low, high = interval(value, own_draws, images_with_objects(own))
            held.setdefault(name, []).append(low <= true_value <= high)
    return {name: float(np.mean(cases)) for name, cases in held.items()}


def test_every_image_once_gives_the_area_under_precision_and_recall(scene):
    data, found = scene(
        ["a"],
        [(0, "a", 0, 0, 10, 10), (1, "a", 0, 0, 10, 10)],
        [(0, "a", 0.9, 0, 0, 10, 10), (0, "a", 0.8, 50, 50, 10, 10), (1, "a", 0.7, 0, 0, 10, 10)],
    )
    hits = hits_by_class(match(found, data))
    counts = np.array([[1, 1], [2, 0], [0, 2], [0, 0]], np.float32)
    # right, wrong, right; image 0 twice: both copies right before both wrong; image 1 twice: right only; nothing
    assert resampled_ap(hits, counts)[0, 0] == pytest.approx([(1 + 2 / 3) / 2, 1, 1, np.nan], nan_ok=True)


def test_the_same_images_for_every_detector():
    counts = draw_images(7, draws=5)
    np.testing.assert_array_equal(counts, draw_images(7, draws=5))
    assert (counts.sum(axis=1) == 7).all() and len(np.unique(counts, axis=0)) == 5


def test_too_few_images_or_all_alike_say_nothing():
    draws = np.linspace(0.4, 0.6, 100)
    assert interval(0.5, draws, images=4) is None and interval(0.5, draws, images=5) is not None
    assert interval(0.0, np.zeros(100), images=12) is None
    assert interval(-1, np.full(100, np.nan), images=50) is None
