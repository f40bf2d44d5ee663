"""Pasted objects: which crops there are, how many an epoch, and that boxes are where the pixels are."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from detector.config.augment import PasteConfig
from detector.data.coco import read_coco
from detector.data.descriptor import Split
from detector.data.mixing.blend import cloned_region, feather, feathered_region
from detector.data.mixing.paste import Paster
from detector.data.mixing.paste_bank import crop_windows, pasted_per_epoch, rare_bank
from detector.data.sample import read_image_of, read_sample
from detector.utils.errors import InputError

NONE = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
RED, GREY = (255, 0, 0), 60


@pytest.fixture
def dataset(tmp_path):
    """Writes (size (h, w), [(category, x, y, w, h), ...]) of each image as PNGs, grey with each object in a colour of
    its category, and reads them: category 0 (`rare`) is red."""

    def write(images: list, name: str = "train", categories: int = 2, iscrowd: int = 0):
        (tmp_path / name).mkdir()
        coco = {"images": [], "annotations": []}
        coco["categories"] = [{"id": k, "name": ["rare", "common", "third"][k]} for k in range(categories)]
        for i, ((height, width), objects) in enumerate(images):
            image = np.full((height, width, 3), GREY, np.uint8)
            coco["images"].append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
            for category, x, y, w, h in objects:
                image[y : y + h, x : x + w] = [RED, (0, 255, 0), (0, 0, 255)][category]
                box = {"id": len(coco["annotations"]), "image_id": i, "category_id": category, "bbox": [x, y, w, h]}
                coco["annotations"].append(box | {"area": w * h, "iscrowd": iscrowd})
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
        (tmp_path / f"{name}.json").write_text(json.dumps(coco))
        return read_coco(Split(tmp_path / name, tmp_path / f"{name}.json"))

    return write


def paster(data, **changes) -> Paster:
    return Paster(data, **PasteConfig(**{"per_image": 3.0, "classes": ["rare"]} | changes).model_dump())


COMMON = [(1, 10 * k, 0, 9, 9) for k in range(10)]
ONE_RARE = [((100, 100), [(0, 30, 40, 20, 12)]), ((100, 100), COMMON)]


def found_red(image: np.ndarray) -> list[int]:
    """xyxy of the pixels that are red rather than grey."""
    rows, columns = np.nonzero(image[..., 0].astype(int) - image[..., 1] > 97)  # half-way: 255 - 0 against 60 - 60
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def pasted_ones(mixer: Paster, size: tuple[int, int], number: int):
    """Images of `size` into which just one object was pasted."""
    target, count = np.full((*size, 3), GREY, np.uint8), 0
    for seed in range(1000):
        image, boxes, labels = mixer.apply(target, *NONE, np.random.default_rng(seed))
        if len(boxes) == 1:
            assert image.dtype == np.uint8 and boxes.dtype == np.float32 and labels.dtype == np.int64
            yield image, boxes[0], labels[0]
            count += 1
        if count == number:
            return
    raise AssertionError("too few")


@pytest.mark.parametrize("context", [0.0, 0.3])
def test_an_object_of_its_own_size_is_pasted_to_the_pixel(dataset, context):
    mixer = paster(dataset(ONE_RARE), scale=[1.0, 1.0], context=context)
    places = set()
    for image, box, label in pasted_ones(mixer, (80, 100), 40):
        assert box.tolist() == found_red(image)
        assert (box[2:] - box[:2]).tolist() == [20, 12] and label == 0
        x1, y1, x2, y2 = box.astype(int).tolist()
        assert (image[y1:y2, x1:x2] == RED).all()
        inside = np.zeros(image.shape[:2], bool)
        inside[y1:y2, x1:x2] = True
        assert (image[~inside] == GREY).all()  # the margin is as grey as what it fades into
        places.add((x1, y1))
    assert len(places) > 30


def test_scaled_objects_have_their_boxes(dataset):
    mixer = paster(dataset([((100, 100), [(0, 30, 20, 20, 32)]), ((100, 100), COMMON)]), scale=[0.5, 2.0], context=0.2)
    sizes = []
    for image, box, _ in pasted_ones(mixer, (150, 200), 40):
        np.testing.assert_allclose(box, found_red(image), atol=0.75)  # whose pixels are whole
        sizes.append(box[2:] - box[:2])
    sizes = np.array(sizes)
    # an image with sides twice as long is fed at half the scale, so its objects are twice as large; at most half of it
    assert sizes[:, 0].min() > 19 and sizes[:, 0].max() < 81 and sizes[:, 0].max() > 40
    assert sizes[:, 1].max() == pytest.approx(75, abs=1)


def test_mirrored_crops_have_mirrored_boxes(dataset):
    """Context is cut off at the image's left border: 2 pixels there and 10 at the right."""
    mixer = paster(dataset([((100, 100), [(0, 2, 40, 20, 12)]), ((100, 100), COMMON)]), context=0.5)
    patches = [mixer._patch(0, (100, 100), np.random.default_rng(seed)) for seed in range(40)]
    lefts = set()
    for patch, box in patches:
        np.testing.assert_allclose(box[0], found_red(patch), atol=0.75)
        lefts.add(bool(box[0, 0] < patch.shape[1] - box[0, 2]))
    assert lefts == {True, False}
    straight = paster(mixer.data, context=0.5, flip=False)
    for seed in range(20):
        patch, box = straight._patch(0, (100, 100), np.random.default_rng(seed))
        assert box[0, 0] < patch.shape[1] - box[0, 2]


def test_edges_fade(dataset):
    """Over 10 pixels of context left and right the image's part falls linearly from 1 to 0."""
    mixer = paster(dataset(ONE_RARE), context=0.5, scale=[1.0, 1.0], flip=False)
    patch, box = np.full((24, 40, 3), 200, np.uint8), np.array([[10.0, 6.0, 30.0, 18.0]])
    image = np.full((60, 60, 3), 100, np.uint8)
    mixer.blend(image, patch, box, np.array([15, 20]))
    ramp = 100 + 100 * (np.arange(10) + 0.5) / 10
    row = image[32, 15:55, 0]
    np.testing.assert_array_equal(row, np.rint([*ramp, *[200] * 20, *ramp[::-1]]))
    column = 100 + 100 * (np.arange(6) + 0.5) / 6
    np.testing.assert_array_equal(image[20:26, 35, 0], np.rint(column))
    image[20:44, 15:55] = 100
    assert (image == 100).all()


@pytest.mark.parametrize("blend", ["feather", "clone"])
@pytest.mark.parametrize("place", [(-7, -5), (31, 41), (-7, 41)])
def test_a_margin_may_hang_over_the_edge(dataset, blend, place):
    patch, box = np.full((24, 40, 3), 200, np.uint8), np.array([[10.0, 6.0, 30.0, 18.0]])
    image = np.full((60, 61, 3), 100, np.uint8)
    paster(dataset(ONE_RARE), blend=blend).blend(image, patch, box, np.array(place))
    if blend == "feather":
        rows, columns = np.nonzero(image[..., 0] == 200)
        assert (columns.min(), rows.min()) == (place[0] + 10, place[1] + 6)
        assert (columns.max(), rows.max()) == (place[0] + 29, place[1] + 17)


def test_cloning_keeps_the_place_and_takes_the_colours(dataset):
    rng = np.random.default_rng(0)
    patch = (150 + rng.integers(-40, 40, (24, 41, 1))).repeat(3, 2).astype(np.uint8)
    image = np.full((60, 70, 3), 100, np.uint8)
    paster(dataset(ONE_RARE), blend="clone").blend(image, patch, np.array([[5.0, 5, 36, 19]]), np.array([15, 20]))
    cloned = image[20:44, 15:56, 0].astype(float)
    same = np.corrcoef(np.diff(cloned[5:19, 5:36]).ravel(), np.diff(patch[5:19, 5:36, 0].astype(float)).ravel())[0, 1]
    assert same > 0.95  # moved by one pixel it is below 0
    assert abs(image[20:44, 15:56].mean() - 100) < 25  # not 150
    image[20:44, 15:56] = 100
    assert (image == 100).all()


def test_a_clone_that_lost_its_contrast_is_feathered(dataset):
    """Light on dark, cloned into white: all of it is white, and nobody could tell what it is."""
    rng = np.random.default_rng(0)
    patch = (100 + rng.integers(-60, 60, (24, 40, 1))).repeat(3, 2).astype(np.uint8)
    box, place = np.array([[5.0, 5, 35, 19]]), np.array([15, 20])
    white, feathered = np.full((60, 70, 3), 255, np.uint8), np.full((60, 70, 3), 255, np.uint8)
    paster(dataset(ONE_RARE), blend="clone").blend(white, patch, box, place)
    feather(feathered, patch, box, place)
    np.testing.assert_array_equal(white, feathered)
    np.testing.assert_array_equal(white[25:39, 20:50], patch[5:19, 5:35])


def test_objects_keep_their_height_in_the_image(dataset):
    """Its centre is at 0.25 of its image's height; here at 0.25 +- 0.1 of another, but never cut off."""
    data = dataset([((100, 100), [(0, 30, 20, 20, 10)]), ((100, 100), COMMON)])
    centres = [(box[1] + box[3]) / 2 for _, box, _ in pasted_ones(paster(data, scale=[1.0, 1.0]), (200, 100), 60)]
    assert 29.5 <= min(centres) < 36 and 64 < max(centres) <= 70.5


def test_objects_go_where_it_looks_like_their_surroundings(dataset):
    """The crop's edge is grey: it goes to the grey third of the image."""
    mixer = paster(dataset(ONE_RARE), scale=[1.0, 1.0])
    image = np.full((100, 300, 3), 250, np.uint8)
    image[:, 100:200] = GREY
    for seed in range(60):
        boxes = mixer.apply(image, *NONE, np.random.default_rng(seed))[1]
        first = boxes[:1]  # others must not hide it
        assert ((first[:, 0] >= 96) & (first[:, 2] <= 204)).all()  # a quarter of the places: none of 20 once in 300


def test_objects_too_small_as_fed_are_no_crops(dataset):
    data = dataset([((100, 200), [(0, 30, 40, 20, 12), (0, 80, 40, 20, 20)])])
    assert len(rare_bank(data, np.array([0]), 0.0).images) == 2
    assert len(rare_bank(data, np.array([0]), 0.0, image_size=133).images) == 1  # 12 px become 7.98
    assert len(rare_bank(data, np.array([0]), 0.0, image_size=800).images) == 2


def test_what_sampling_shows_need_not_be_pasted(dataset):
    data = dataset([((120, 120), [(1, 12 * k, 2, 10, 10) for k in range(9)] + [(0, 50, 60, 20, 20)])])
    assert paster(data, per_image=9.0).expected.tolist() == [4, 0]  # to an equal share, 5
    drawn = np.array([3.5, 9.0])
    mixer = Paster(data, drawn=drawn, **PasteConfig(per_image=9.0, classes=["rare"]).model_dump())
    assert mixer.expected.tolist() == [1.5, 0]


def test_what_is_no_good_to_crop(dataset):
    good = (0, 30, 30, 20, 20)
    images = [
        ((100, 100), [good]),
        ((100, 100), [(0, 0, 30, 20, 20)]),  # touches the border: left, bottom
        ((100, 100), [(0, 30, 80, 20, 20)]),
        ((100, 100), [(0, 30, 30, 20, 7)]),  # tiny
        ((100, 100), [(0, 30, 30, 8, 8)]),  # just not
        ((100, 100), [good, (1, 45, 45, 10, 10)]),  # shows half of another's sides: a quarter
        ((100, 100), [good, (1, 42, 45, 10, 10)]),  # 8 x 5 of 10 x 10: too much
        ((100, 100), [good, (0, 51, 30, 10, 10)]),  # beside each other
        ((100, 100), []),
        ((100, 100), [(1, 30, 30, 20, 20)]),
    ]
    bank = rare_bank(dataset(images), np.array([0]), context=0.0)
    assert list(zip(bank.images.tolist(), bank.boxes[:, 0].tolist(), strict=True)) == [
        (0, 30), (4, 30), (5, 30), (7, 30), (7, 51)
    ]  # fmt: skip
    assert bank.labels.tolist() == [0] * 5
    # with margins of 4 pixels, the two that are beside each other show 3/10 and 3/20 of each other; of 6, 5/10
    assert rare_bank(dataset(images, "again"), np.array([0]), context=0.2).images.tolist() == [0, 4, 7, 7]
    assert rare_bank(dataset(images, "more"), np.array([0]), context=0.3).images.tolist() == [0, 4, 7]


def test_crowds_are_not_cropped(dataset):
    assert len(rare_bank(dataset(ONE_RARE, iscrowd=1), np.array([0]), context=0.1).images) == 0


def test_crop_windows_by_hand():
    boxes = np.float32([[10, 20, 30, 60], [1, 1, 99, 49], [10.5, 20.5, 20.5, 30.5]])
    windows = crop_windows(boxes, (50, 100), 0.1)
    assert windows.tolist() == [[8, 16, 32, 50], [0, 0, 100, 50], [9, 19, 22, 32]]


def test_the_budget_by_hand():
    counts, plenty = np.array([100, 40, 10, 2]), np.array([0, 1000, 1000, 1000])
    assert pasted_per_epoch(counts, plenty, 50, 1000).tolist() == [0, 10, 40, 48]
    np.testing.assert_allclose(pasted_per_epoch(counts, plenty, 50, 28), [0, 0, 10, 18])  # both to 20
    np.testing.assert_allclose(pasted_per_epoch(counts, np.array([0, 1000, 1000, 5]), 50, 25), [0, 0, 20, 5])
    assert pasted_per_epoch(counts, 0 * plenty, 50, 25).tolist() == [0, 0, 0, 0]


def test_the_table_is_what_is_pasted(dataset):
    """600 epochs of 4 images, one without objects: 13 common boxes, 3 rare, 1 third, of which two can be cut out."""
    images = [
        ((120, 120), [(1, 12 * k, 2, 10, 10) for k in range(9)] + [(0, 50, 60, 20, 20), (0, 90, 90, 12, 12)]),
        ((120, 120), [(1, 12 * k, 2, 10, 10) for k in range(4)] + [(2, 50, 60, 20, 20), (0, 0, 30, 10, 10)]),
        ((120, 120), []),
        ((60, 120), []),
    ]
    data = dataset(images, categories=3)
    mixer = paster(data, classes=["rare", "third"], max_factor=2.0)
    # an equal share is 17 / 3 = 5.67: 2.67 more of `rare`, and at most twice the one crop of `third`
    np.testing.assert_allclose(mixer.expected, [8 / 3, 0, 2])
    assert [line.split() for line in mixer.lines()[1:]] == [
        ["class", "own", "boxes", "good", "crops", "drawn", "pasted", "together"],
        ["rare", "3", "2", "3", "3", "6"],
        ["third", "1", "1", "1", "2", "3"],
    ]
    assert "1.17 objects an image on average; in an epoch of 4 images" in mixer.lines()[0]
    samples = [read_sample(data, i) for i in range(4)]
    pasted = np.zeros(3)
    for epoch in range(600):
        for i, sample in enumerate(samples):
            labels = mixer.apply(*sample, np.random.default_rng((epoch, i)))[2]
            pasted += np.bincount(labels, minlength=3) - np.bincount(sample[2], minlength=3)
    np.testing.assert_allclose(pasted[[0, 2]] / 600, [8 / 3, 2], rtol=0.08)  # standard deviations are 2.5 and 3 %
    assert -0.2 < pasted[1] / 600 <= 0


def test_which_classes_are_rare(dataset):
    """Half an equal share of the 26 boxes is 4.33: `third` has fewer, `rare` has not."""
    objects = [(1, 10 * k, 0, 9, 9) for k in range(19)] + [(0, 10 * k, 40, 9, 9) for k in range(1, 6)]
    data = dataset([((100, 200), objects + [(2, 60, 70, 9, 9), (2, 90, 70, 9, 9)])], categories=3)
    mixer = paster(data, classes="auto", context=0.0)
    np.testing.assert_allclose(mixer.expected, [0, 0, 26 / 6 - 2])
    assert [line.split()[0] for line in mixer.lines()[2:]] == ["third"]


def test_nothing_to_paste_is_said(dataset):
    balanced = dataset([((100, 100), [(0, 30, 40, 20, 12), (1, 70, 40, 20, 12)])], "balanced")
    sample = (np.zeros((9, 9, 3), np.uint8), *NONE)
    for mixer, words in (
        (paster(balanced, classes="auto"), "no class has less than half an equal share"),
        (paster(balanced), "shows the chosen classes often enough"),
        (paster(dataset([((100, 100), [(0, 0, 0, 20, 20), *COMMON])], "border")), "no good crop of rare"),
        (paster(dataset([((100, 100), [])], "empty"), classes="auto"), "nothing is pasted"),
    ):
        assert len(mixer.lines()) == 1 and words in mixer.lines()[0]
        assert mixer.apply(*sample, np.random.default_rng(0))[0] is sample[0]


def test_a_class_that_is_not_there(dataset):
    with pytest.raises(InputError, match=r"augment.paste.classes: no class 'comon' in the data; did you mean 'common'"):
        paster(dataset(ONE_RARE), classes=["rare", "comon"])


def hiding(dataset, occlusion: float, label: int) -> tuple[int, int, int]:
    """Of 200 images of one 40x40 object and 20x12 pasted ones: in which something was pasted, in which the object
    lost its label, and in which more than `occlusion` of it is red. A label is lost where it is covered, only there."""
    data = dataset([((48, 48), [(0, 14, 18, 20, 12)]), ((100, 100), COMMON)])
    mixer = paster(data, scale=[1.0, 1.0], occlusion=occlusion, context=0.0)
    box, own = np.float32([[4, 4, 44, 44]]), np.array([label])
    pasted = lost = hidden = 0
    for seed in range(200):
        target = np.full((48, 48, 3), GREY, np.uint8)
        image, boxes, labels = mixer.apply(target, box, own, np.random.default_rng(seed))
        kept = len(labels) > 0 and labels[0] == label and (boxes[0] == box[0]).all()
        part = (image[4:44, 4:44] == RED).all(axis=2).mean()
        pasted += len(labels) > kept
        lost += not kept
        hidden += part > occlusion
        assert not (kept and part > occlusion)  # parts are added up: no more can be covered than that
    return pasted, lost, hidden


def test_hidden_objects_lose_their_labels(dataset):
    # an object of 20 x 12 in a corner of the 48 pixels covers 16 x 8 of the 40 x 40: wherever it is put, 0.08 or more
    pasted, lost, hidden = hiding(dataset, occlusion=0.02, label=1)
    assert pasted > 100 and lost == pasted and hidden == lost


def test_objects_that_may_be_covered_keep_their_labels(dataset):
    pasted, lost, _ = hiding(dataset, occlusion=1.0, label=1)
    assert pasted > 100 and lost == 0


def test_what_several_crops_cover_is_added_up(dataset):
    # one covers 20 x 12 of 40 x 40 at most, which is 0.15
    pasted, lost, hidden = hiding(dataset, occlusion=0.2, label=1)
    assert 20 < hidden <= lost < pasted


def testfeathered_region_counts_as_covered():
    patch, box = np.zeros((24, 40, 3), np.uint8), np.array([[10.0, 6.0, 34.0, 18.0]])
    assert cloned_region(patch, box).tolist() == [[0, 0, 40, 24]]
    opaque = feathered_region(patch, box)
    assert opaque.tolist() == [[5, 3, 37, 21]]


def test_objects_of_pasted_classes_are_not_hidden(dataset):
    pasted, lost, hidden = hiding(dataset, occlusion=0.02, label=0)
    assert pasted == lost == hidden == 0


def test_a_place_that_hides_nothing_is_preferred(dataset):
    mixer = paster(dataset(ONE_RARE), occlusion=0.2)
    boxes, labels = np.float32([[0, 0, 100, 30], [0, 70, 100, 100]]), np.array([1, 1])
    big = np.float32([[0, y, 30, y + 4] for y in range(0, 30, 5)])
    boxes, labels = np.concatenate([boxes, big]), np.append(labels, [1] * len(big))
    for seed in range(200):
        kept = mixer.apply(np.full((100, 100, 3), GREY, np.uint8), boxes, labels, np.random.default_rng(seed))[1]
        assert (kept[: len(boxes)] == boxes).all()


def test_the_generator_decides_and_nothing_is_changed(dataset):
    mixer = paster(dataset(ONE_RARE), blend="clone")
    image, box, label = np.full((80, 90, 3), GREY, np.uint8), np.float32([[5, 5, 20, 20]]), np.array([1])
    first = [mixer.apply(image, box, label, np.random.default_rng(seed)) for seed in range(10)]
    other = pickle.loads(pickle.dumps(mixer))
    for seed in reversed(range(10)):
        for a, b in zip(first[seed], other.apply(image, box, label, np.random.default_rng(seed)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (image == GREY).all() and box.tolist() == [[5, 5, 20, 20]] and label.tolist() == [1]
    assert len({len(sample[1]) for sample in first}) > 2


def test_crops_come_from_the_data_given_only(dataset, monkeypatch):
    """val has rare objects too, of which a bank of train knows nothing: no other file is opened."""
    train = dataset(ONE_RARE)
    dataset([ONE_RARE[0]] * 5, "val")
    opened = set()

    def spy(data, index):
        opened.add(data.images_dir / data.file_name(index))
        return read_image_of(data, index)

    monkeypatch.setattr("detector.data.mixing.paste.read_image_of", spy)
    list(pasted_ones(paster(train), (80, 80), 20))
    assert opened == {train.images_dir / "0.png"} and train.images_dir.name == "train"


def test_a_clone_hides_what_its_whole_patch_covers(dataset):
    data = dataset(ONE_RARE)
    assert paster(data, blend="clone").opaque is cloned_region and paster(data).opaque is feathered_region
