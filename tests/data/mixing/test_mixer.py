"""Mosaic and mixup to the pixel, and what the mixer makes of them."""

import json
import pickle

import numpy as np
import pytest

from detector.config.augment import AugmentConfig, PasteConfig
from detector.config.data import ShortLong
from detector.config.file import load_config
from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.data.mixing.mixer import Mixer
from detector.data.mixing.mixup import cover, mixup
from detector.data.mixing.mosaic import mosaic
from detector.data.mixing.paste import Paster
from detector.data.mixing.source import RandomImages
from detector.data.sample import read_sample
from detector.utils.errors import InputError

NO_BOXES = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def sample(value: int, size: tuple[int, int], boxes=(), label: int = 0):
    boxes = np.float32(boxes).reshape(-1, 4)
    return np.full((*size, 3), value, np.uint8), boxes, np.full(len(boxes), label, np.int64)


def whole(value: int, size: tuple[int, int], label: int):
    """An image that is one object."""
    return sample(value, size, [[0, 0, size[1], size[0]]], label)


def mixer_of(data, settings: AugmentConfig, weights=None, image_size=60, mixed_epochs=12) -> Mixer:
    """For 12 epochs."""
    weights = np.ones(len(data)) if weights is None else weights
    return Mixer(data, settings, weights=weights, image_size=image_size, epochs=12, mixed_epochs=mixed_epochs)


def test_a_mosaic_is_crops_of_four_images_around_a_centre():
    sizes = [(60, 80), (80, 40), (30, 80), (80, 79)]  # all as long, so none is rescaled
    samples = [whole(50 * k, size, k) for k, size in enumerate(sizes, start=1)]
    centres, grey = set(), 0
    for seed in range(200):
        image, boxes, labels = mosaic(samples, np.random.default_rng(seed), image_size=80)
        assert image.shape == (60, 80, 3) and image.dtype == np.uint8
        assert boxes.dtype == np.float32 and labels.dtype == np.int64
        y, x = int((image[:, 0, 0] == 50).sum()), int((image[0, :, 0] == 50).sum())
        assert 12 <= y <= 48 and 16 <= x <= 64
        centres.add((x, y))
        expected = np.full((60, 80), 114)
        quarters = [(y, x), (y, 80 - x), (60 - y, x), (60 - y, 80 - x)]
        for k, ((height, width), quarter) in enumerate(zip(sizes, quarters, strict=True), start=1):
            h, w = min(height, quarter[0]), min(width, quarter[1])
            top, left = (y - h if k <= 2 else y), (x - w if k % 2 else x)
            expected[top : top + h, left : left + w] = 50 * k
            # of the objects that a crop leaves a quarter of, the box is the whole crop
            kept = boxes[labels == k].tolist()
            assert kept == ([[left, top, left + w, top + h]] if h * w >= 0.25 * height * width else [])
        assert (image == expected[..., None]).all()
        grey += (expected == 114).any()
    assert len(centres) > 150 and 20 < grey < 180  # the second is at times too narrow, the third too low


@pytest.mark.parametrize(
    ("resized", "sides"),
    [
        # fed alone, 20 px of 200 are 10, of 400 px 5, of 100x200 px 10, of 50 px 40; and in 200 px twice that
        (100, [20, 10, 20, 80]),
        # short sides of 200, 400, 100 and 50 become 100, but the third's long one would then be 200 and not 150
        (ShortLong(short=[60, 100], long=150), [20, 10, 30, 80]),
    ],
)
def test_objects_of_a_mosaic_keep_the_sizes_that_they_are_fed_in(resized, sides):
    """An object of 20 px in each of four images, where no crop cuts it."""
    samples = [
        sample(k, size, [[a / 2 - 10, b / 2 - 10, a / 2 + 10, b / 2 + 10]], k)
        for k, size in enumerate([(200, 200), (400, 400), (100, 200), (50, 50)])
        for b, a in [size]
    ]
    found = [[], [], [], []]
    for seed in range(150):
        _, boxes, labels = mosaic(samples, np.random.default_rng(seed), image_size=resized)
        for k, (width, height) in zip(labels.tolist(), (boxes[:, 2:] - boxes[:, :2]).tolist(), strict=True):
            found[k].append(max(width, height))
    for side, own in zip(sides, found, strict=True):
        assert max(own) == pytest.approx(side, abs=0.6)
        assert np.isclose(own, side, rtol=0.04).sum() > 20  # whole pixels of a crop that is enlarged are up to 4 % off


def test_boxes_of_a_mosaic_are_on_their_objects():
    def with_square(channel):
        image = np.zeros((200, 200, 3), np.uint8)
        image[80:120, 90:130, channel] = 200
        return image, np.float32([[90, 80, 130, 120]]), np.array([channel])

    checked = 0
    for seed in range(40):
        samples, rng = [*map(with_square, range(3)), sample(0, (9, 9))], np.random.default_rng(seed)
        image, boxes, labels = mosaic(samples, rng, image_size=200)
        for box, label in zip(boxes, labels.tolist(), strict=True):
            rows, columns = np.nonzero(image[..., label] > 150)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, found, atol=0.75)
            checked += 1
    assert checked > 80


def test_objects_cut_below_a_quarter_are_dropped_and_others_clipped():
    """From 100x100 to 100x50: half of the width is cut away, wherever that is."""
    boxes = [[40, 0, 60, 10], [0, 20, 100, 30], [0, 50, 10, 60], [90, 50, 100, 60]]
    kept = {0: [], 1: [], 2: [], 3: []}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        gradient = np.tile(np.arange(100, dtype=np.uint8)[:, None], (100, 1, 3))
        image, found, labels = cover((gradient, np.float32(boxes), np.arange(4)), (100, 50), rng)
        start = int(image[0, 0, 0])
        assert (image[..., 0] == np.arange(start, start + 50)).all()
        for k, (x1, y1, x2, y2) in enumerate(boxes):
            left, right = max(x1 - start, 0), min(x2 - start, 50)
            if (right - left) >= 0.25 * (x2 - x1):
                assert found[labels == k].tolist() == [[left, y1, right, y2]]
                kept[k].append(start)
            else:
                assert k not in labels
    assert len(kept[1]) == 100 and 0 < len(kept[2]) < 40 and 0 < len(kept[3]) < 40


def test_covering_enlarges():
    image, boxes, _ = cover(sample(7, (10, 10), [[3, 2, 5, 4]]), (30, 20), np.random.default_rng(0))
    assert image.shape == (30, 20, 3) and (image == 7).all()
    assert boxes[0, 1::2].tolist() == [6, 12]
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(2 * 20 / 7)  # 7 columns became 20


def test_images_without_objects_and_of_one_pixel():
    rng = np.random.default_rng(0)
    image, boxes, labels = mosaic([sample(k, (8, 9)) for k in range(4)], rng, image_size=9)
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32 and labels.shape == (0,) and labels.dtype == np.int64
    for thin in ((1, 1), (1, 50), (2, 2), (300, 2)):
        samples = [whole(9, size, 0) for size in (thin, (5, 5), (1, 70), (70, 1))]
        image, boxes, _ = mosaic(samples, rng, image_size=50)
        assert image.shape == (*thin, 3) and np.isin(image, [9, 114]).all() and image[0, 0, 0] == 9
        assert (boxes >= 0).all() and (boxes[:, 2:] <= [thin[1], thin[0]]).all()


def test_mixup_averages_and_keeps_both():
    first, second = sample(200, (60, 80), [[10, 10, 20, 20]], 1), sample(100, (30, 40), [[5, 5, 10, 15]], 2)
    weights = []
    for seed in range(300):
        image, boxes, labels = mixup([first, second], np.random.default_rng(seed))
        assert image.shape == (60, 80, 3) and image.dtype == np.uint8
        assert boxes.tolist() == [[10, 10, 20, 20], [10, 10, 20, 30]] and labels.tolist() == [1, 2]
        assert len(np.unique(image)) == 1
        weights.append((int(image[0, 0, 0]) - 100) / 100)
    # Beta(8, 8): mean 1/2, variance 1 / (4 * 17)
    assert np.mean(weights) == pytest.approx(0.5, abs=0.03)
    assert np.std(weights) == pytest.approx((1 / 68) ** 0.5, rel=0.15)


def test_mixup_to_the_pixel():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    weight = np.random.default_rng(3).beta(8, 8)
    image = mixup([(a, *NO_BOXES), (b, *NO_BOXES)], np.random.default_rng(3))[0]
    assert abs(image - (weight * a + (1 - weight) * b)).max() <= 0.51


@pytest.fixture
def data(tiny_dataset):
    return read_coco(load_descriptor(tiny_dataset).split("train"))


@pytest.fixture
def imbalanced(tiny_dataset):
    """The same with one light square only, so that there is a class to paste."""
    file = tiny_dataset.parent / "train.json"
    coco = json.loads(file.read_text())
    light = [box for box in coco["annotations"] if box["category_id"] == 7]
    coco["annotations"] = [box for box in coco["annotations"] if box not in light[1:]]
    file.write_text(json.dumps(coco))
    return read_coco(load_descriptor(tiny_dataset).split("train"))


PASTE = PasteConfig(classes=["light"], per_image=3.0, max_factor=100.0)


def test_the_mixer_keeps_size_and_input_and_depends_on_the_generator_only(imbalanced):
    data = imbalanced
    mixer = mixer_of(data, AugmentConfig(paste=PASTE, mosaic=0.5, mixup=0.5))
    other = pickle.loads(pickle.dumps(mixer))
    results = {}
    for index in range(len(data)):
        given = read_sample(data, index)
        copies = [array.copy() for array in given]
        image, boxes, labels = results[index] = mixer.apply(*given, np.random.default_rng((1, index)), 0)
        assert image.shape == given[0].shape and image.dtype == np.uint8
        assert boxes.dtype == np.float32 and labels.dtype == np.int64 and len(boxes) == len(labels)
        for array, copy in zip(given, copies, strict=True):
            np.testing.assert_array_equal(array, copy)
    for index in reversed(range(len(data))):
        again = other.apply(*read_sample(data, index), np.random.default_rng((1, index)), 0)
        for array, before in zip(again, results[index], strict=True):
            np.testing.assert_array_equal(array, before)


def test_mosaic_then_mixup_then_pasting(imbalanced):
    """One generator serves all, so the order is also that of the random numbers."""
    data, paster = imbalanced, Paster(imbalanced, image_size=60, **PASTE.model_dump())
    assert paster.rate > 0.3
    mixer = mixer_of(data, AugmentConfig(paste=PASTE, mosaic=1.0, mixup=1.0))
    source = RandomImages(data, np.ones(len(data)))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.random()
        sample = mosaic([read_sample(data, 1), *(source.draw(rng) for _ in range(3))], rng, image_size=60)
        rng.random()
        sample = mixup([sample, source.draw(rng)], rng)
        expected = paster.apply(*sample, rng)
        found = mixer.apply(*read_sample(data, 1), np.random.default_rng(seed), 0)
        for array, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, other)


def test_a_mosaic_of_the_mixer_keeps_the_sizes_that_objects_are_fed_in(coco, split_of):
    """Of two images, 60 and 50 pixels long."""
    data = read_coco(split_of(coco, images=True))
    mixer = mixer_of(data, AugmentConfig(mosaic=1.0), image_size=30)
    source = RandomImages(data, np.ones(len(data)))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.random()
        samples = [read_sample(data, 0), *(source.draw(rng) for _ in range(3))]
        expected = mosaic(samples, rng, image_size=30)
        for array, other in zip(mixer.apply(*samples[0], np.random.default_rng(seed), 0), expected, strict=True):
            np.testing.assert_array_equal(array, other)


def test_images_are_mixed_in_by_their_weights(data):
    """The sampler's, so that mosaics do not dilute it."""
    only = mixer_of(data, AugmentConfig(mixup=1.0), weights=np.eye(len(data))[3])
    (_, own, _), (_, third, _) = read_sample(data, 1), read_sample(data, 3)
    for seed in range(5):
        _, boxes, _ = only.apply(*read_sample(data, 1), np.random.default_rng(seed), 0)
        np.testing.assert_array_equal(boxes, np.concatenate([own, third]))


def test_probabilities(data):
    given = read_sample(data, 1)
    assert mixer_of(data, AugmentConfig()).apply(*given, np.random.default_rng(0), 0) == given
    mixer = mixer_of(data, AugmentConfig(mosaic=0.3))
    rng = np.random.default_rng(0)
    changed = sum(mixer.apply(*given, rng, 0)[0] is not given[0] for _ in range(600))
    assert 145 < changed < 215  # 180, of standard deviation 11
    only = mixer_of(data, AugmentConfig(mixup=1.0))
    boxes = only.apply(*given, np.random.default_rng(2), 0)[1]  # not with the empty image
    assert boxes[:2].tolist() == given[1].tolist() and len(boxes) > 2


def test_lines_say_how_often_and_how_long(imbalanced):
    assert mixer_of(imbalanced, AugmentConfig(), mixed_epochs=0).lines() == []
    both = AugmentConfig(mosaic=0.3, mixup=1.0)
    assert mixer_of(imbalanced, both).lines() == ["mosaic: 30% of the images", "mixup: 100% of the images"]
    ending = mixer_of(imbalanced, AugmentConfig(mosaic=0.3), mixed_epochs=11)
    assert ending.lines() == ["mosaic: 30% of the images up to epoch 11"]
    closed = mixer_of(imbalanced, AugmentConfig(mosaic=0.3, paste=PASTE), mixed_epochs=0).lines()
    assert closed and not any("mosaic" in line for line in closed)


def test_mosaic_and_mixup_end_and_pasting_goes_on(imbalanced):
    given = read_sample(imbalanced, 1)
    for probabilities in ({"mosaic": 1.0}, {"mixup": 1.0}):
        mixer = mixer_of(imbalanced, AugmentConfig(**probabilities), mixed_epochs=2)
        changed = [mixer.apply(*given, np.random.default_rng(0), epoch)[0] is not given[0] for epoch in range(4)]
        assert changed == [True, True, False, False]
    mixer = mixer_of(imbalanced, AugmentConfig(paste=PASTE, mosaic=1.0, mixup=1.0), mixed_epochs=2)
    paster = Paster(imbalanced, image_size=60, **PASTE.model_dump())
    for seed in range(5):
        late = mixer.apply(*given, np.random.default_rng(seed), 2)
        for array, other in zip(late, paster.apply(*given, np.random.default_rng(seed)), strict=True):
            np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(mixer.shown, imbalanced.class_counts() + paster.expected)


def test_the_section_in_a_config(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("data: {dataset: a.yaml}\n")
    assert load_config(path).augment == AugmentConfig(paste=None, mosaic=0.0, mixup=0.0)
    assert load_config(path, ["augment.paste={}"]).augment.paste == PasteConfig()
    assert load_config(path, ["augment.paste.per_image=2"]).augment.paste.per_image == 2
    for override, words in (
        ("augment.paste={scale: [2, 1]}", r"`augment.paste`: scale \(\[2.0, 1.0\]\) must be \[least, greatest\]"),
        ("augment.paste={contxt: 1}", "unknown key `augment.paste.contxt`; did you mean `context`?"),
        ("augment.mosaic=1.5", "`augment.mosaic`: input should be less than or equal to 1"),
    ):
        with pytest.raises(InputError, match=words):
            load_config(path, [override])
