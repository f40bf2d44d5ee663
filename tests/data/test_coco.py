"""Reading COCO files: literal values in, literal values out, and one sentence for everything that can be wrong."""

import json
import math
import pickle

import numpy as np
import pytest

from detector.data import coco_file
from detector.data.coco import check_images_exist, read_coco
from detector.data.descriptor import Split, load_descriptor
from detector.utils.errors import InputError


def test_everything_the_file_says(coco, split_of):
    data = read_coco(split_of(coco))
    assert data.class_names == ["dog", "bird", "cat"]  # by category id
    assert data.category_ids.tolist() == [2, 4, 9]
    assert len(data) == 2
    assert data.image_ids.tolist() == [30, 10]
    assert data.heights.tolist() == [40, 50] and data.widths.tolist() == [60, 20]
    assert [data.file_name(i) for i in range(2)] == ["a.png", "b.png"]
    assert data.first.tolist() == [0, 1, 4]
    assert data.annotation_ids.tolist() == [6, 5, 8, 7]
    assert data.boxes.tolist() == [[50, 30, 20, 5], [1, 2, 3.25, 4], [0, 0, 20, 50], [5, 6, 7, 8]]
    assert data.areas.tolist() == [100, 7.5, 1000, 56]  # 20 * 5 where the file says none
    assert data.labels.tolist() == [0, 2, 0, 1]
    assert data.iscrowd.tolist() == [False, False, True, False]
    assert data.dropped == {}
    assert data.class_counts().tolist() == [1, 1, 1]


def test_image_of_each_box(coco, split_of):
    data = read_coco(split_of(coco))
    assert data.box_images.tolist() == [0, 1, 1, 1]
    assert data.box_images.dtype == np.int64


def test_types_are_flat_and_small(coco, split_of):
    data = read_coco(split_of(coco))
    types = {"image_ids": "int64", "heights": "int32", "widths": "int32", "first": "int64", "boxes": "float64"}
    types |= {"areas": "float64", "labels": "int32", "iscrowd": "bool", "annotation_ids": "int64"}
    assert {name: str(getattr(data, name).dtype) for name in types} == types


def test_targets_are_clipped_and_without_crowds(coco, split_of):
    data = read_coco(split_of(coco))
    boxes, labels = data.target_boxes(0)
    assert boxes.dtype == np.float32 and labels.dtype == np.int64
    assert boxes.tolist() == [[50, 30, 60, 35]]
    boxes, labels = data.target_boxes(1)
    assert boxes.tolist() == [[1, 2, 4.25, 6], [5, 6, 12, 14]]
    assert labels.tolist() == [2, 1]


def test_an_image_without_objects(coco, split_of):
    coco["annotations"] = []
    data = read_coco(split_of(coco))
    boxes, labels = data.target_boxes(0)
    assert boxes.shape == (0, 4) and labels.shape == (0,)
    assert data.class_counts().tolist() == [0, 0, 0]


def test_chosen_classes_in_the_chosen_order(coco, split_of):
    data = read_coco(split_of(coco), ["cat", "dog"])
    assert data.class_names == ["cat", "dog"]
    assert data.category_ids.tolist() == [9, 2]
    assert data.labels.tolist() == [1, 0, 1]
    assert data.dropped == {"of categories not kept: bird": 1}


def test_back_to_coco(coco, split_of):
    api = read_coco(split_of(coco)).to_coco_api()
    assert api["images"] == coco["images"]
    assert api["categories"] == [{"id": 2, "name": "dog"}, {"id": 4, "name": "bird"}, {"id": 9, "name": "cat"}]
    assert {**api["annotations"][1], "id": 5} == coco["annotations"][0]
    assert [a["id"] for a in api["annotations"]] == [1, 2, 3, 4]  # never 0, whatever the file has
    json.dumps(api)


@pytest.mark.parametrize(("ids", "kept"), [([None] * 4, [2, 1, 3, 4]), ([0, 1, 1, 9], [1, 0, 1, 9])])
def test_annotation_ids_are_kept_and_missing_ones_are_positions(coco, split_of, ids, kept):
    for annotation, id_ in zip(coco["annotations"], ids, strict=True):
        del annotation["id"]
        if id_ is not None:
            annotation["id"] = id_
    assert read_coco(split_of(coco)).annotation_ids.tolist() == kept


def test_more_records_than_a_chunk(coco, split_of, monkeypatch):
    expected = read_coco(split_of(coco))
    monkeypatch.setattr(coco_file, "CHUNK", 1)
    data = read_coco(split_of(coco))
    assert data.boxes.tolist() == expected.boxes.tolist()
    assert data.names == expected.names


def test_a_file_that_is_only_almost_json(coco, split_of):
    split = split_of(coco)
    coco["annotations"][0]["area"] = math.nan  # Python's json writes NaN, which JSON does not have
    text = json.dumps(coco)
    split.annotations.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_coco(split).areas.tolist() == [100, 13, 1000, 56]


BAD_BOXES = {
    "of zero width or height": [1, 2, 0, 4],
    "of negative width or height": [1, 2, 3, -4],
    "of zero width or height ": [1, 2, 3, 1e-12],
    "with NaN or Infinity": [1, math.nan, 3, 4],
    "with NaN or Infinity ": [1, 2, math.inf, 4],
    "outside their image": [60, 2, 3, 4],
}


@pytest.mark.parametrize("what", BAD_BOXES)
def test_a_bad_box_is_named_or_dropped(coco, split_of, what):
    coco["annotations"][1]["bbox"] = BAD_BOXES[what]
    split = split_of(coco)
    with pytest.raises(InputError) as error:
        read_coco(split)
    for said in ("1 of 4", "annotation 6", "image a.png", what.strip(), "data.bad_annotations=drop", "coco.json"):
        assert said in str(error.value)
    data = read_coco(split, bad="drop")
    assert data.first.tolist() == [0, 0, 3]
    assert data.dropped == {f"boxes {what.strip()}": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "corners where COCO has width and height"),
        (lambda x, y, w, h: [x / 100, y / 80, w / 100, h / 80], "fractions of the image's sides, not pixels"),
    ],
)
def test_a_file_of_another_format_is_refused_whole(split_of, change, said):
    """Some of its boxes stay inside their image, and are wrong all the same."""
    boxes = [[4.0 * i, 3.0 * i, 20.0, 20.0] for i in range(20)]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 80, "width": 100}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box, "area": 400} for box in boxes],
        "categories": [{"id": 1, "name": "cat"}],
    }
    assert len(read_coco(split_of(coco)).boxes) == 20
    for annotation in coco["annotations"]:
        annotation["bbox"] = change(*annotation["bbox"])
    with pytest.raises(InputError, match=said):
        read_coco(split_of(coco))
    with pytest.raises(InputError, match=f"no object is left: 20 boxes that are {said}"):
        read_coco(split_of(coco), bad="drop")


def test_lesser_doubts_are_counted(coco, split_of):
    coco["annotations"].append(coco["annotations"][0] | {"id": 50})
    coco["categories"].append({"id": 20, "name": "owl"})
    for name in ("train", "val"):
        data = read_coco(split_of(coco), name=name)
        assert data.warnings[:2] == [
            "1 of 5 boxes sticks out of their image, by up to 10 pixels (sticks-out)",
            "two boxes of one class are nearly the same (IoU 0.95 or more): 1 time (duplicate-box)",
        ]
        assert [w for w in data.warnings if "no object" in w] == (
            ["1 of 4 classes has no object (class-without-objects)"] if name == "train" else []
        )
    assert data.remarks()[0].startswith("warning: 1 of 5 boxes")


def test_a_bad_box_of_a_class_that_is_not_kept_does_not_matter(coco, split_of):
    coco["annotations"][3]["bbox"] = [0, 0, 0, 0]
    assert len(read_coco(split_of(coco), ["cat", "dog"]).boxes) == 3


def _set(place: str, value):
    """A change to the contents at `list index key`."""

    def change(coco: dict) -> None:
        name, index, key = place.split()
        coco[name][int(index)][key] = value

    return change


def _delete(name: str, index: int | None = None, key: str | None = None):
    def change(coco: dict) -> None:
        del (coco if index is None else coco[name][index])[key or name]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("categories 1 id", 9), "category id 9 occurs twice"),
        (_set("categories 1 name", "cat"), "category name 'cat' occurs twice"),
        (_set("images 1 id", 30), "image id 30 occurs twice"),
        (_set("annotations 0 image_id", 11), "annotation 5: image_id 11 is not the id of any image"),
        (_set("annotations 0 category_id", 3), "annotation 5: category_id 3 is not the id of any category"),
        (_set("annotations 0 category_id", 9.5), "annotation 5: category_id: expected `int`, got `float`"),
        (_set("annotations 0 bbox", [1, 2, 3]), "annotation 5: bbox: expected `array` of length 4"),
        (_set("annotations 0 bbox", [1, 2, 3, None]), "annotation 5: bbox[3]: expected `float`, got `null`"),
        (_delete("annotations", 0, "bbox"), "annotation 5: object missing required field `bbox`"),
        (_set("images 1 id", "b"), "image 'b': id: expected `int`, got `str`"),
        (_set("images 1 height", 0), "image 10: height: expected `int` >= 1"),
        (_delete("images", 1, "id"), "image number 2 of the list: object missing required field `id`"),
        (_delete("annotations"), "not a COCO annotation file, object missing required field `annotations`"),
        (_delete("categories"), "not a COCO annotation file, object missing required field `categories`"),
        (lambda coco: coco["categories"].clear(), "the list of categories is empty"),
        (lambda coco: coco["images"].clear(), "the list of images is empty"),
        (lambda coco: coco.update(images={}), "images: expected `array`, got `object`"),
    ],
)
@pytest.mark.parametrize("almost_json", [False, True])
def test_a_wrong_file_is_answered_with_one_sentence(coco, split_of, change, said, almost_json):
    change(coco)
    if almost_json:
        coco["info"] = math.nan
    with pytest.raises(InputError) as error:
        read_coco(split_of(coco))
    assert said in str(error.value)
    assert "coco.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"images": [' * 100_000])
def test_what_is_not_json(tmp_path, content):
    (tmp_path / "coco.json").write_bytes(content)
    with pytest.raises(InputError, match=r"coco\.json: not "):
        read_coco(Split(tmp_path, tmp_path / "coco.json"))


def test_a_class_that_the_file_lacks(coco, split_of):
    with pytest.raises(InputError, match="has no category 'Dog'; did you mean 'dog'?"):
        read_coco(split_of(coco), ["Dog"])
    with pytest.raises(InputError, match="has no category 'zebra'; there is: cat, dog, bird"):
        read_coco(split_of(coco), ["zebra"])
    with pytest.raises(InputError, match="'dog' is listed twice"):
        read_coco(split_of(coco), ["dog", "dog"])


def test_images_that_are_there(coco, split_of):
    check_images_exist(read_coco(split_of(coco, images=True)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("A.png", "missing: 1 of the 2 images of the annotation file, the first is 'A.png'"),
        ("A.png", "did you mean 'a.png'?"),
        ("a.jpg", "did you mean 'a.png'?"),
        ("deeper/a.png", "did you mean 'a.png'?"),
        ("/a.png", "names must be relative"),
        ("deeper/../../a.png", "names must be relative"),
    ],
)
def test_images_that_are_not_there(coco, split_of, name, said):
    split = split_of(coco, images=True)
    coco["images"][0]["file_name"] = name
    split.annotations.write_text(json.dumps(coco))
    with pytest.raises(InputError) as error:
        check_images_exist(read_coco(split))
    assert said in str(error.value)


def test_it_can_be_sent_to_spawned_workers(coco, split_of):
    data = pickle.loads(pickle.dumps(read_coco(split_of(coco))))
    assert data.file_name(1) == "b.png"


def test_real_coco_comes_back_as_it_was(real_data):
    split = load_descriptor(real_data("coco_tiny") / "coco_tiny.yaml").split("val")
    original = json.loads(split.annotations.read_text())
    api = read_coco(split).to_coco_api()
    key = "image_id", "category_id", "bbox", "area", "iscrowd"
    as_tuples = [sorted([a[k] for k in key] for a in x["annotations"]) for x in (api, original)]
    assert as_tuples[0] == as_tuples[1]
    names = [[(c["id"], c["name"]) for c in x["categories"]] for x in (api, original)]
    assert names[0] == names[1]


def test_real_data_with_a_box_of_zero_size(real_data):
    split = load_descriptor(real_data("bccd") / "bccd.yaml").split("train")
    with pytest.raises(InputError, match=r"zero width .*annotation 2288 \(image BloodImage_00343.jpg\)"):
        read_coco(split)
    data = read_coco(split, bad="drop")
    assert dict(zip(data.class_names, data.class_counts().tolist(), strict=True)) == {
        "RBC": 2381,
        "WBC": 214,
        "Platelets": 209,
    }
