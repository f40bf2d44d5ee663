"""Weights of images from their labels, the threshold that is chosen, and what an epoch then shows of each class."""

import math
from pathlib import Path

import numpy as np
import pytest

from detector.config.file import load_config
from detector.data.coco import CocoData, read_coco
from detector.data.descriptor import Split, load_descriptor
from detector.data.exposure import exposure
from detector.data.resampling import (
    SAMPLING,
    auto_threshold,
    class_aware_weights,
    image_frequencies,
    image_weights,
    instance_aware_frequencies,
    repeat_factors,
)
from detector.data.sampler import BatchSampler
from detector.utils.errors import InputError

ROOT2 = math.sqrt(2)


def _data(*objects: str, classes: str = "abcd") -> CocoData:
    """A dataset from a word an image, a letter an object; capital letters are crowds."""
    letters = "".join(objects)
    return CocoData(
        class_names=list(classes),
        category_ids=np.arange(len(classes)),
        images_dir=Path("none"),
        image_ids=np.arange(len(objects)),
        heights=np.full(len(objects), 10, np.int32),
        widths=np.full(len(objects), 10, np.int32),
        names=b"",
        name_offsets=np.zeros(len(objects) + 1, np.int64),
        first=np.cumsum([0, *map(len, objects)]),
        boxes=np.tile([1.0, 1, 5, 5], (len(letters), 1)),
        areas=np.full(len(letters), 25.0),
        labels=np.array([classes.index(letter.lower()) for letter in letters], np.int32),
        iscrowd=np.array([letter.isupper() for letter in letters], bool),
        annotation_ids=np.arange(len(letters)),
    )


@pytest.fixture
def five() -> CocoData:
    """a in 4 of 5 images, b in 2, c in 1, d in none; 11 objects; the last image has only a crowd, which counts not."""
    return _data("aa", "ab", "aaabb", "ac", "C")


def test_frequencies(five):
    assert image_frequencies(five).tolist() == [0.8, 0.4, 0.2, 0]
    expected = [math.sqrt(0.8 * 7 / 11), math.sqrt(0.4 * 3 / 11), math.sqrt(0.2 * 1 / 11), 0]
    assert instance_aware_frequencies(five).tolist() == pytest.approx(expected)


def test_repeat_factors_are_the_square_root_and_at_least_1():
    factors = repeat_factors(np.array([0.8, 0.4, 0.2, 0.1, 0.05, 0]), 0.4)
    assert factors.tolist() == pytest.approx([1, 1, ROOT2, 2, 2 * ROOT2, 1])


def test_an_image_is_repeated_for_its_rarest_class(five):
    weights, _ = image_weights(five, "repeat_factor", 0.8)
    assert weights.tolist() == pytest.approx([1, ROOT2, ROOT2, 2, 1])


def test_exposure_under_repeat_factors(five):
    # weights 1, √2, √2, 2, 1, whose sum is 4 + 2√2: times 5 / (4 + 2√2) = 2.5 - 1.25√2
    seen = exposure(five, image_weights(five, "repeat_factor", 0.8)[0])
    assert seen.boxes.tolist() == [7, 3, 1, 0]
    assert seen.images.tolist() == [4, 2, 1, 0]
    assert seen.expected_boxes.tolist() == pytest.approx([5 * ROOT2, 7.5 * ROOT2 - 7.5, 5 - 2.5 * ROOT2, 0])
    assert seen.expected_images.tolist() == pytest.approx([2.5 + 1.25 * ROOT2, 5 * ROOT2 - 5, 5 - 2.5 * ROOT2, 0])
    assert seen.background == 1 and seen.expected_background == pytest.approx(2.5 - 1.25 * ROOT2)
    assert seen.change[:3].tolist() == pytest.approx([1.0101525, 1.0355339, 1.4644661])
    assert math.isnan(seen.change[3])


def test_class_aware_draws_every_class_alike_and_keeps_the_share_of_images_without_objects(five):
    # of 4 draws with objects, 4/3 are for each class: a's in 4 images, b's in 2, c's in 1
    weights = class_aware_weights(five)
    assert weights.tolist() == pytest.approx([1 / 3, 1 / 3 + 2 / 3, 1 / 3 + 2 / 3, 1 / 3 + 4 / 3, 1])
    seen = exposure(five, weights)
    assert seen.expected_boxes.tolist() == pytest.approx([2 / 3 + 1 + 3 + 5 / 3, 3, 5 / 3, 0])
    assert seen.expected_images.tolist() == pytest.approx([4, 2, 5 / 3, 0])
    assert seen.expected_background == pytest.approx(1)


def test_uniform_changes_nothing(five):
    weights, sentences = image_weights(five, "uniform")
    assert weights.tolist() == [1] * 5 and sentences == []
    seen = exposure(five, weights)
    assert seen.expected_boxes.tolist() == seen.boxes.tolist()
    assert seen.expected_images.tolist() == seen.images.tolist()
    assert seen.change[:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", SAMPLING)
def test_1000_epochs_of_batches_show_what_the_table_says(method):
    rng = np.random.default_rng(0)
    letters = rng.choice(list("abcd"), size=900, p=[0.7, 0.2, 0.08, 0.02])
    objects = ["".join(part) for part in np.split(letters, np.sort(rng.integers(0, 900, 249)))]
    data = _data(*objects)
    weights, _ = image_weights(data, method)
    sampler = BatchSampler(250, 16, seed=0, weights=weights)
    boxes, images = np.zeros(4), np.zeros(4)
    per_image = np.array([[word.count(letter) for letter in "abcd"] for word in objects])
    for epoch in range(1000):
        drawn = per_image[sampler.draws(epoch)]
        boxes += drawn.sum(axis=0)
        images += (drawn > 0).sum(axis=0)
    seen = exposure(data, weights)
    assert boxes / 1000 == pytest.approx(seen.expected_boxes, rel=0.01)
    assert images / 1000 == pytest.approx(seen.expected_images, rel=0.01)
    assert (seen.change[3] > 1.5) == (method != "uniform")


def test_the_table(five):
    assert exposure(five, image_weights(five, "repeat_factor", 0.8)[0]).lines() == [
        "                   in the data      an epoch, expected",
        "class           boxes   images         boxes    images   change",
        "a                   7        4           7.1       4.3    x1.01",
        "b                   3        2           3.1       2.1    x1.04",
        "c                   1        1           1.5       1.5    x1.46",
        "d                   0        0           0.0       0.0        -",
        "(no object)         -        1             -       0.7    x0.73",
    ]


def test_auto_is_the_median_of_the_classes_with_objects():
    assert auto_threshold(np.array([0.8, 0.1, 0.3, 0, 0])) == (0.3, "the median class's frequency")


def test_auto_stops_where_the_rarest_class_would_be_repeated_more_than_ten_times():
    threshold, why = auto_threshold(np.array([0.5, 0.4, 0.001]))
    assert threshold == pytest.approx(0.1)
    assert repeat_factors(np.array([0.001]), threshold).tolist() == pytest.approx([10])
    assert why == "at the median class's, 0.4, the rarest would repeat more than 10 times"


def test_auto_leaves_balanced_data_alone():
    weights, _ = image_weights(_data("ab", "ab", "c", "c", classes="abc"), "repeat_factor")
    assert weights.tolist() == [1, 1, 1, 1]


def test_what_is_said(five):
    assert image_weights(five, "repeat_factor")[1] == [
        "data.repeat_threshold 0.4 (auto: the median class's frequency): the rarest class, c, has a frequency of 0.2 "
        "and a repeat factor of 1.41",
        "data.sampling repeat_factor: an epoch stays 5 images; on average an image comes 0.92 to 1.31 times in it",
    ]
    assert image_weights(five, "class_aware")[1] == [
        "data.sampling class_aware: an epoch stays 5 images; on average an image comes 0.33 to 1.67 times in it"
    ]


@pytest.mark.parametrize("method, rarest, auto", [("repeat_factor", 0.2, 0.4), ("instance_repeat_factor", 0.135, 0.33)])
def test_a_threshold_that_does_nothing_is_warned_of(five, method, rarest, auto):
    weights, sentences = image_weights(five, method, 1e-3)
    assert weights.tolist() == [1] * 5
    assert sentences[0] == (
        f"warning: data.repeat_threshold 0.001 repeats nothing: even the rarest class, c, has a frequency of {rarest}; "
        f"auto would be {auto}"
    )


def test_what_cannot_be_sampled(five):
    with pytest.raises(InputError, match="data.sampling: no 'repeat_facto'; did you mean 'repeat_factor'"):
        image_weights(five, "repeat_facto")
    for method in set(SAMPLING) - {"uniform"}:
        with pytest.raises(InputError, match="data.sampling: the data has no object to sample by; use uniform"):
            image_weights(_data("", "A"), method)


@pytest.mark.parametrize("method", SAMPLING)
def test_a_threshold_that_does_nothing_is_told_of(five, method):
    weights, sentences = image_weights(five, method, 0.1)
    unused = [line for line in sentences if f"data.repeat_threshold 0.1 is not used by data.sampling {method}" in line]
    assert len(unused) == (0 if method.endswith("repeat_factor") else 1)
    if unused:
        np.testing.assert_array_equal(weights, image_weights(five, method)[0])


def _literal(data: CocoData, threshold: float, instance_aware: bool) -> list[float]:
    """LVIS's appendix B and IRFS's section 3, image by image and class by class."""
    own = [set(data.target_boxes(i)[1].tolist()) for i in range(len(data))]
    counts = data.class_counts()
    factor = {}
    for c in set().union(*own):
        f = sum(c in classes for classes in own) / len(data)
        if instance_aware:
            f = math.sqrt(f * counts[c] / counts.sum())
        factor[c] = max(1, math.sqrt(threshold / f))
    return [max((factor[c] for c in classes), default=1) for classes in own]


@pytest.mark.parametrize("method", ["repeat_factor", "instance_repeat_factor"])
def test_a_long_tail_of_real_litter(real_data, method):
    data = read_coco(Split(Path("none"), real_data("taco") / "annotations.json"), bad="drop")
    weights, sentences = image_weights(data, method)
    threshold, _ = auto_threshold(
        (image_frequencies if method == "repeat_factor" else instance_aware_frequencies)(data)
    )
    assert weights == pytest.approx(_literal(data, threshold, method == "instance_repeat_factor"))
    assert 0.005 < threshold < 0.05 and 4 < weights.max() < 6
    assert "Carded blister pack" in sentences[0]
    change = exposure(data, weights).change
    counts = data.class_counts()
    assert (change[(counts > 0) & (counts < 10)] > 1.3).all()
    assert np.abs(change[counts > 250] - 1).max() < 0.1


def test_blood_cells_that_hardly_need_it(real_data):
    data = read_coco(load_descriptor(real_data("bccd") / "bccd.yaml").split("train"), bad="drop")
    weights, _ = image_weights(data, "repeat_factor")
    assert weights.max() == pytest.approx(math.sqrt(197 / 117))
    assert weights.min() + 1e-9 > 1 and exposure(data, weights).change.max() < 1.2


@pytest.mark.parametrize(
    "overrides, problem",
    [
        (["data.repeat_threshold=0", "data.sampling=repeat_factor"], "greater than 0, got 0"),
        (["data.repeat_threshold=1.5", "data.sampling=repeat_factor"], "less than or equal to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be(tiny_config, overrides, problem):
    with pytest.raises(InputError, match=problem):
        load_config(tiny_config, overrides)


@pytest.mark.parametrize("method", SAMPLING)
def test_the_config_takes_every_method(tiny_config, five, method):
    data = load_config(tiny_config, [f"data.sampling={method}"]).data
    assert len(image_weights(five, data.sampling, data.repeat_threshold)[0]) == 5


@pytest.mark.parametrize("method", ["repeat_factor", "instance_repeat_factor"])
def test_a_threshold_of_the_config(tiny_config, method):
    config = load_config(tiny_config, [f"data.sampling={method}", "data.repeat_threshold=1"])
    assert config.data.repeat_threshold == 1
