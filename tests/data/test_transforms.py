"""What an image and its boxes are after resizing, cropping and augmentation."""

import numpy as np
import pytest

from detector.config.data import ShortLong
from detector.data.transforms import build_transform, crop_boxes, evaluated, fed_size, letterbox
from detector.utils.errors import InputError

NO_BOXES = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "image_size", "fed"),
    [
        ((480, 640), 640, (480, 640)),
        ((480, 640), 320, (240, 320)),
        ((1000, 333), 500, (500, 166)),
        ((1, 1000), 100, (1, 100)),
        ((480, 640), ShortLong(short=800, long=1333), (800, 1067)),
        ((640, 480), ShortLong(short=800, long=1333), (1067, 800)),
        ((400, 1000), ShortLong(short=800, long=1333), (533, 1333)),
        ((480, 640), ShortLong(short=[640, 800], long=1333), (800, 1067)),
    ],
)
def test_fed_size(size, image_size, fed):
    assert fed_size(size, image_size) == fed


def test_boxes_are_scaled_by_what_each_side_was_resized_to():
    image = np.zeros((333, 1000, 3), np.uint8)
    boxes, labels = np.float32([[10, 33.3, 500, 333]]), np.array([4])
    image, boxes, labels = build_transform(500, None)(image, boxes, labels, 0)
    assert image.shape == (166, 500, 3)
    np.testing.assert_allclose(boxes, [[5, 33.3 * 166 / 333, 250, 166]], rtol=1e-6)
    assert labels.tolist() == [4]
    assert boxes.dtype == np.float32 and labels.dtype == np.int64


def test_nothing_is_dropped_that_is_not_cut(photo):
    boxes = np.float32([[0, 0, 80, 60], [1, 1, 1.5, 1.5]])
    assert len(build_transform(80, "none")(photo, boxes, np.array([0, 1]), 0)[1]) == 2


def test_an_image_of_the_right_size_is_left_as_it_is(photo):
    assert np.array_equal(build_transform(80, None)(photo, *NO_BOXES, 0)[0], photo)


def test_shrinking_a_lot_averages():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    assert np.unique(build_transform(16, None)(stripes, *NO_BOXES, 0)[0]).tolist() == [64]


def test_letterbox():
    image = np.full((2, 3, 3), 9, np.uint8)
    square = letterbox(image, 4)
    assert square[..., 0].tolist() == [[9, 9, 9, 0], [9, 9, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert letterbox(image, ShortLong(short=2, long=4)) is image


def test_what_a_crop_leaves_of_objects():
    boxes = np.float32(
        [
            [10, 10, 20, 20],  # whole
            [-5, 10, 5, 20],  # half of it
            [-30, 10, 5, 20],  # a seventh
            [90, 10, 101, 20],  # nearly whole, at the right edge
            [99, 0, 101, 100],  # half of it, but one pixel wide
            [10, 10, 10.5, 20],  # whole and half a pixel wide
            [200, 10, 220, 20],  # outside
        ]
    )
    kept, labels = crop_boxes(boxes, np.arange(7), window=(100, 100), out=(100, 100))
    assert labels.tolist() == [0, 1, 3, 5]
    assert kept.tolist() == [[10, 10, 20, 20], [0, 10, 5, 20], [90, 10, 100, 20], [10, 10, 10.5, 20]]


@pytest.mark.parametrize("image_size", [64, ShortLong(short=48, long=64), ShortLong(short=[40, 48], long=64)])
@pytest.mark.parametrize("augment", ["light", "strong"])
def test_boxes_stay_on_their_objects(image_size, augment):
    """A white object on black: where it went is where its box is, to about a pixel."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:90, 40:80] = 255
    box, label = np.float32([[40, 30, 80, 90]]), np.array([3])
    transform, checked = build_transform(image_size, augment), 0
    for seed in range(60):
        fed, boxes, labels = transform(image, box, label, seed)
        assert fed.dtype == np.uint8 and fed.shape[0] <= 64 and fed.shape[1] <= 64
        if len(boxes):
            rows, columns = np.nonzero(fed.max(axis=2) > 115)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(boxes[0], found, atol=2.5)
            assert labels.tolist() == [3]
            checked += 1
    assert checked > 50


def test_the_flip_is_exact():
    transform = build_transform(80, [{"name": "HorizontalFlip", "p": 1}])
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 0] = 200
    flipped, boxes, labels = transform(image, np.float32([[0, 5, 10.25, 20]]), np.array([70]), 0)
    assert flipped[:, 79].min() == 200
    np.testing.assert_allclose(boxes, [[69.75, 5, 80, 20]], atol=1e-4)
    assert labels.tolist() == [70]


@pytest.mark.parametrize(
    "augment", ["light", "strong", [{"name": "RandomCrop", "height": 30, "width": 30}, {"name": "GaussNoise", "p": 1}]]
)
def test_the_seed_decides_whatever_came_before(photo, augment):
    boxes, labels = np.float32([[5, 5, 30, 30], [20, 10, 60, 50]]), np.array([0, 1])
    transform = build_transform(64, augment)
    first = transform(photo, boxes, labels, 11)
    for seed in range(5):
        transform(photo[:50], boxes[:1], labels[:1], seed)
    for a, b in zip(first, transform(photo, boxes, labels, 11), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(first, build_transform(64, augment)(photo, boxes, labels, 11), strict=True):
        assert np.array_equal(a, b)
    assert any(not np.array_equal(first[0], transform(photo, boxes, labels, seed)[0]) for seed in (12, 13))


def test_transforms_of_a_list_are_drawn_independently():
    transform = build_transform(2, [{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}])
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    corners = {int(transform(image, *NO_BOXES, seed)[0][0, 0, 0]) for seed in range(40)}
    assert corners == {0, 1, 2, 3}


def test_a_crop_from_a_list_is_still_fed_at_image_size(photo):
    transform = build_transform(64, [{"name": "CenterCrop", "height": 20, "width": 40}])
    image, boxes, labels = transform(photo, np.float32([[20, 20, 60, 40], [0, 0, 21, 21]]), np.array([1, 2]), 0)
    assert image.shape == (32, 64, 3)
    np.testing.assert_allclose(boxes, [[0, 0, 64, 32]], atol=1e-4)
    assert labels.tolist() == [1]


@pytest.mark.parametrize("augment", ["light", "strong", [{"name": "Rotate"}], [{"name": "Blur"}]])
def test_images_without_objects(photo, augment):
    _, boxes, labels = build_transform(64, augment)(photo, *NO_BOXES, 1)
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32
    assert labels.shape == (0,) and labels.dtype == np.int64


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ("lihgt", "augment.transforms: no 'lihgt'; did you mean 'light'?"),
        (["HorizontalFlip"], "every entry needs a name"),
        ([{"p": 1}], "every entry needs a name"),
        ([{"name": "HorizontalFlop"}], "did you mean 'HorizontalFlip'?"),
        ([{"name": "ToTensorV2"}], "no albumentations transform 'ToTensorV2' for boxes"),
        ([{"name": "RandomCrop", "heigth": 3, "width": 3}], "no argument 'heigth'; did you mean 'height'?"),
        ([{"name": "RandomCrop"}], "RandomCrop: height: Field required"),
        ([{"name": "HorizontalFlip", "p": 2}], "HorizontalFlip: p: Input should be less than or equal to 1, got 2"),
        ([{"name": "Blur", "blur_limit": [5, 1]}], "Blur: blur_limit: Invalid kernel size range"),
        ([{"name": "LongestMaxSize"}], "LongestMaxSize: Either max_size or max_size_hw must be specified"),
        ([{"name": "Mosaic"}], "Mosaic needs more than an image and its boxes"),
    ],
)
def test_what_is_wrong_with_an_augmentation(augment, said):
    with pytest.raises(InputError) as error:
        build_transform(64, augment)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "RandomCrop", "height": 99, "width": 9}, "RandomCrop failed on an image of 80x60 pixels: Crop size"),
        ({"name": "Normalize", "p": 1}, "Normalize must leave a uint8 RGB image"),
    ],
)
def test_an_augmentation_that_fails_on_an_image(photo, entry, said):
    with pytest.raises(InputError, match=said):
        build_transform(64, [entry])(photo, *NO_BOXES, 0)


def test_a_range_of_short_sides_is_drawn_from_in_training(photo):
    """Of 60x80, each short side from 30 to 60 as often; from 53 on the long side stops at 70."""
    transform = build_transform(ShortLong(short=[30, 60], long=70), "none")
    box = np.float32([[8, 6, 40, 30]])
    shorts = []
    for seed in range(3100):
        image, boxes, _ = transform(photo, box, np.array([0]), seed)
        (height, width), drawn = image.shape[:2], int(np.random.default_rng(seed).integers(30, 61))
        shorts.append(drawn)
        scale = min(drawn / 60, 70 / 80)
        assert (height, width) == (round(60 * scale), round(80 * scale)), drawn
        np.testing.assert_allclose(boxes, box * [width / 80, height / 60, width / 80, height / 60], rtol=1e-5)
    counts = np.bincount(shorts)[30:]
    assert len(counts) == 31 and abs(counts - 100).max() < 45  # of standard deviation 10


@pytest.mark.parametrize("short", [60, [30, 60]])
def test_evaluation_takes_the_greatest_short_side(photo, short):
    image_size = ShortLong(short=short, long=200)
    assert evaluated(image_size) == ShortLong(short=60, long=200) and evaluated(64) == 64
    assert fed_size((30, 40), image_size) == (60, 80)
    for seed in range(20):
        assert build_transform(image_size, None)(photo, *NO_BOXES, seed)[0].shape == (60, 80, 3)


def test_a_range_of_one_size_is_that_size(photo):
    """To the last random number, so that a training does not change when it is written so."""
    one, same = (build_transform(ShortLong(short=short, long=90), "strong") for short in (50, [50, 50]))
    for seed in range(10):
        assert np.array_equal(one(photo, *NO_BOXES, seed)[0], same(photo, *NO_BOXES, seed)[0])


@pytest.mark.parametrize("image_size", [100, ShortLong(short=100, long=200)])
def test_large_scale_jitter(image_size):
    """A gradient of 100x100: its values tell the scale, which is uniform from 0.1 to 2."""
    image = np.tile(np.arange(100, dtype=np.uint8)[:, None], (100, 1, 3))
    transform = build_transform(image_size, "lsj")
    scales = []
    for seed in range(400):
        fed, boxes, _ = transform(image, np.float32([[0, 0, 100, 100]]), np.array([0]), seed)
        height, width = fed.shape[:2]
        np.testing.assert_allclose(boxes, [[0, 0, width, height]], atol=1e-3)  # a crop leaves a quarter at least
        assert letterbox(fed, image_size).shape[:2] == ((100, 100) if image_size == 100 else (height, width))
        values = int(fed.max()) - int(fed.min()) + 1  # columns of the image that are seen
        scales.append(width / values if width == 100 else width / 100)
        assert height == width
    assert min(scales) < 0.12 and 1.9 < max(scales) <= 2.05
    assert np.mean(scales) == pytest.approx(1.05, abs=0.1)  # of standard deviation 0.55 / 20
    assert np.mean(np.array(scales) < 1) == pytest.approx(0.9 / 1.9, abs=0.09)


def test_boxes_stay_on_their_objects_at_any_scale():
    image = np.zeros((300, 400, 3), np.uint8)
    image[90:210, 120:240] = 255
    transform, checked = build_transform(320, "lsj"), 0
    for seed in range(60):
        fed, boxes, labels = transform(image, np.float32([[120, 90, 240, 210]]), np.array([3]), seed)
        if len(boxes):
            rows, columns = np.nonzero(fed.max(axis=2) > 115)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(boxes[0], found, atol=1.5)
            checked += 1
    assert checked > 40
