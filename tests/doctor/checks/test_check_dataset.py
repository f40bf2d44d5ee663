"""Every way to break a dataset is found by its name, and nothing else is; the sound one is called sound."""

import copy
import json
import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import check_images_exist, read_coco
from detector.data.descriptor import descriptor_of, load_descriptor
from detector.data.image import read_image
from detector.doctor.checks.check_dataset import check_dataset
from detector.doctor.repair.repair import fix
from detector.utils.errors import InputError


@dataclass
class Dataset:
    """The tiny dataset, its annotation files as Python objects; `save` writes them back."""

    descriptor: Path

    def __post_init__(self):
        self.folder = self.descriptor.parent
        self.train, self.val = (json.loads((self.folder / f"{s}.json").read_text()) for s in ("train", "val"))
        self.text = {}  # what to write instead of JSON

    @property
    def images(self) -> list[dict]:
        return self.train["images"]

    @property
    def boxes(self) -> list[dict]:
        return self.train["annotations"]

    def box(self, *bbox: float) -> None:
        """Give the third annotation, 104 on image 25 (2.png), this box."""
        self.boxes[2] |= {"bbox": list(bbox), "area": 1}

    def save(self) -> None:
        for split, tree in (("train", self.train), ("val", self.val)):
            content = self.text.get(split, json.dumps(tree))
            path = self.folder / f"{split}.json"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


@dataclass
class Case:
    """A way to break it, and what the doctor has to say."""

    check: str
    says: str  # in the message or an example
    break_it: object  # called with the Dataset
    count: int = 1
    severity: str = "error"
    fixable: bool = True  # by --fix
    also: tuple[str, ...] = ()  # other errors and warnings that this is bound to cause

    def __call__(self, dataset: Dataset) -> None:
        self.break_it(dataset)
        dataset.save()


def text(content):
    return lambda d: d.text.update(train=content)


def cut(d):
    d.text["train"] = json.dumps(d.train)[:300]


def latin(d):
    d.images[1]["file_name"] = "é.png"
    d.text["train"] = json.dumps(d.train, ensure_ascii=False).encode("latin-1")


def latin_and_nan(d):
    d.images[1]["file_name"] = "é.png"
    d.box(math.nan, 1, 2, 3)
    d.text["train"] = json.dumps(d.train, ensure_ascii=False).encode("latin-1")


def put(kind, k, **values):
    return lambda d: d.train[kind][k].update(values)


def without(kind, k, key):
    return lambda d: d.train[kind][k].pop(key)


def box(*bbox):
    return lambda d: d.box(*bbox)


def append(kind, k, **values):
    """A copy of a record, in which some values differ."""
    return lambda d: d.train[kind].append(d.train[kind][k] | values)


def move(d, change):
    for record in d.boxes:
        x, y, w, h = record["bbox"]
        record["bbox"] = change(x, y, w, h)


def xyxy(d):
    move(d, lambda x, y, w, h: [x, y, x + w, y + h])


def fractions(d):
    move(d, lambda x, y, w, h: [x / 64, y / 48, w / 64, h / 48])
    d.boxes[0]["bbox"] = [-0.002, 0.25, 1.001, 0.5]  # rounded


def drop_class(d):
    d.train["annotations"] = [a for a in d.boxes if a["category_id"] != 3]


def both_drop_class(d):
    drop_class(d)
    d.val["annotations"] = [a for a in d.val["annotations"] if a["category_id"] != 3]


def bytes_of(name, change):
    def rewrite(d):
        path = d.folder / "train" / name
        path.write_bytes(change(path.read_bytes()))

    return rewrite


def remove(name):
    return lambda d: (d.folder / "train" / name).unlink()


def rename(name, to):
    return lambda d: (d.folder / "train" / name).rename(d.folder / "train" / to)


def picture(name, change):
    """Save another picture in place of one of train's."""

    def save(d):
        path = d.folder / "train" / name
        image = Image.open(path).convert("RGB")
        change(image).save(path)

    return save


def duplicate(source, to):
    return lambda d: shutil.copy(d.folder / source, d.folder / to)


def resized_into_val(d):
    image = Image.open(d.folder / "train" / "2.png").resize((128, 96))
    image.save(d.folder / "val" / "3.png")
    d.val["images"][3] |= {"width": 128, "height": 96}


def exif(size, orientation):
    """Image 1.png as a JPEG that is to be turned; size: (w, h) as stated."""

    def save(d):
        tag = Image.Exif()
        tag[0x0112] = orientation
        rng = np.random.default_rng(7)
        pixels = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(d.folder / "train" / "1.jpg", exif=tag)
        d.images[1] |= {"file_name": "1.jpg", "width": size[0], "height": size[1]}

    return save


def same_folder(d):
    d.descriptor.write_text(d.descriptor.read_text().replace("images: val", "images: train"))


def no_folder(d):
    shutil.rmtree(d.folder / "train")


def everything_to(kind, value):
    return lambda d: d.train.update({kind: copy.deepcopy(value)})


def kept_class(d):
    d.descriptor.write_text(d.descriptor.read_text() + "classes: [light, drak]\n")


SEEN = "annotation 104 (image 2.png)"

CASES = {
    "a file that is not there": Case("no-file", "train.json", lambda d: None, fixable=False),
    "an empty file": Case("empty-file", "train.json", text(""), fixable=False),
    "only blanks": Case("empty-file", "train.json", text(" \n\n"), fixable=False),
    "no JSON": Case("broken-json", "line 2, column 6", text('{"images": [],\n "x" 5}'), fixable=False),
    "cut short": Case("broken-json", "column", cut, fixable=False),
    "nested without end": Case("broken-json", "train.json", text("[" * 100_000), fixable=False),
    "another encoding": Case("not-utf8", "image 15", latin, fixable=False),
    "another encoding and NaN": Case("not-utf8", "line 1", latin_and_nan, fixable=False),
    "a list": Case("not-an-object", "list", text("[1, 2]"), fixable=False),
    "a number": Case("not-an-object", "int", text("5"), fixable=False),
    "no images": Case("missing-list", "images", lambda d: d.train.pop("images"), fixable=False),
    "no annotations": Case("missing-list", "annotations", lambda d: d.train.pop("annotations"), fixable=False),
    "images in an object": Case("not-a-list", "images", everything_to("images", {"a": 1}), fixable=False),
    "categories null": Case("not-a-list", "categories", everything_to("categories", None), fixable=False),
    "an empty list of images": Case(
        "no-images", "list of images", everything_to("images", []), fixable=False, also=("unknown-image", "no-objects")
    ),
    "an empty list of categories": Case(
        "no-categories",
        "list of categories",
        everything_to("categories", []),
        fixable=False,
        also=("unknown-category", "category-extra"),
    ),
    "no objects": Case(
        "no-objects", "no object", everything_to("annotations", []), fixable=False, also=("class-not-trained",)
    ),
    "an image id of text": Case("image-record", "image 15: id", put("images", 1, id="15")),
    "ids that are floats": Case("image-record", "image 15.0: id", put("images", 1, id=15.0)),
    "an image without a size": Case("image-record", "width", without("images", 1, "width")),
    "an image of height 0": Case("image-record", "image 15: height", put("images", 1, height=0)),
    "an image without a name": Case("image-record", "file_name", without("images", 1, "file_name")),
    "an image that is a number": Case("image-record", "number 7 of", lambda d: d.images.append(5)),
    "a category id of text": Case("category-record", "category 7", put("categories", 0, id="7")),
    "a category without a name": Case("category-record", "category 3", without("categories", 1, "name"), fixable=False),
    "an annotation without an image": Case(
        "annotation-record", "annotation 104", without("annotations", 2, "image_id")
    ),
    "a category_id that is a float": Case(
        "annotation-record", "104: category_id", put("annotations", 2, category_id=7.0)
    ),
    "a category id that is a float": Case("category-record", "category 7.0", put("categories", 0, id=7.0)),
    "a category_id of text": Case("annotation-record", "annotation 104", put("annotations", 2, category_id="7")),
    "an area of text": Case("annotation-record", "annotation 104: area", put("annotations", 2, area="large")),
    "iscrowd null": Case("annotation-record", "annotation 104: iscrowd", put("annotations", 2, iscrowd=None)),
    "an annotation that is null": Case("annotation-record", "number 11 of", lambda d: d.boxes.append(None)),
    "a box of 3 numbers": Case("not-4-numbers", "annotation 104", put("annotations", 2, bbox=[1, 2, 3])),
    "a box of text": Case("not-4-numbers", "annotation 104", put("annotations", 2, bbox=["1", "2", "3", "4"])),
    "a box that is null": Case("not-4-numbers", "annotation 104", put("annotations", 2, bbox=None)),
    "an image id twice": Case(
        "duplicate-image-id", "image 15 (2.png)", put("images", 2, id=15), also=("unknown-image",)
    ),
    "a file twice": Case("duplicate-file-name", "image 99 (1.png)", append("images", 1, id=99), severity="warning"),
    "an annotation id twice": Case(
        "duplicate-annotation-id", "annotation 102 (image 2.png)", put("annotations", 2, id=102), severity="warning"
    ),
    "no annotation id": Case(
        "no-annotation-id", "annotation 3 (image 2.png)", without("annotations", 2, "id"), severity="note"
    ),
    "a category id twice": Case(
        "duplicate-category-id",
        "category 7 (grey)",
        append("categories", 0, name="grey"),
        fixable=False,
        also=("category-missing",),
    ),
    "a category name twice": Case("duplicate-category-name", "category 8 (light)", append("categories", 0, id=8)),
    "an unknown image_id": Case("unknown-image", "annotation 104 (image 77)", put("annotations", 2, image_id=77)),
    "an unknown category_id": Case("unknown-category", "category_id 5", put("annotations", 2, category_id=5)),
    "a box of no width": Case("zero-size", SEEN, box(5, 6, 0, 7)),
    "a box too thin for float32": Case("zero-size", SEEN, box(30, 6, 1e-9, 7)),
    "a negative box": Case("negative-size", SEEN, box(30, 30, -5, 6)),
    "a box of NaN": Case("not-finite", SEEN, box(math.nan, 6, 5, 7)),
    "an infinite box": Case("not-finite", SEEN, box(1, 6, math.inf, 7)),
    "a box beside the image": Case("outside", "in 64x48", box(64, 6, 5, 7)),
    "a box above the image": Case("outside", SEEN, box(5, -20, 5, 7)),
    "a box that sticks out": Case("sticks-out", SEEN, box(50, 6, 20, 7), severity="warning"),
    "a box that sticks out by half a pixel": Case("sticks-out-slightly", SEEN, box(50, 6, 14.5, 7), severity="note"),
    "a tiny box": Case("tiny", SEEN, box(50, 6, 0.5, 7), severity="note", fixable=False),
    "corners": Case("xyxy-as-xywh", "corners", xyxy, count=7),
    "fractions": Case("normalised", "10 boxes", fractions, count=10, fixable=False),
    "no area": Case("no-area", SEEN, without("annotations", 2, "area"), severity="note"),
    "too large an area": Case("area-contradicts", "area 900", put("annotations", 2, area=900), severity="note"),
    "no iscrowd": Case("no-iscrowd", SEEN, without("annotations", 2, "iscrowd"), severity="note"),
    "a box twice": Case("duplicate-box", "annotation 999", append("annotations", 2, id=999), severity="warning"),
    "a box of two classes": Case(
        "two-classes",
        "light and dark",
        append("annotations", 2, id=999, category_id=3),
        severity="warning",
        fixable=False,
    ),
    "a class of no object": Case("class-without-objects", "dark", both_drop_class, severity="warning", fixable=False),
    "a class of objects in val only": Case(
        "class-not-trained", "dark", drop_class, severity="warning", fixable=False, also=("class-without-objects",)
    ),
    "a class that val has not": Case(
        "category-missing",
        "grey",
        append("categories", 0, id=8, name="grey"),
        fixable=False,
        also=("class-without-objects",),
    ),
    "a class that train has not": Case(
        "category-extra",
        "grey",
        lambda d: d.val["categories"].append({"id": 8, "name": "grey"}),
        severity="warning",
        fixable=False,
    ),
    "other ids in val": Case(
        "category-ids-differ",
        "dark: 3 in train, 4 in val",
        lambda d: (
            d.val["categories"][1].update(id=4),
            [a.update(id=a["id"], category_id=4) for a in d.val["annotations"] if a["category_id"] == 3],
        ),
        severity="note",
        fixable=False,
    ),
    "a class misspelt in the descriptor": Case(
        "no-such-class", "drak", kept_class, fixable=False, count=1, also=("no-such-class",)
    ),
    "an image without objects": Case(
        "image-without-objects", "image 5 (0.png)", lambda d: None, severity="note", fixable=False
    ),
    "a file that is missing": Case("missing-file", "image 15 (1.png)", remove("1.png")),
    "a file in capitals": Case("missing-file", "did you mean '1.PNG'?", rename("1.png", "1.PNG")),
    "a name with backslashes": Case("missing-file", "train\\1.png", put("images", 1, file_name="train\\1.png")),
    "a name with a zero byte": Case("missing-file", "image 15", put("images", 1, file_name="1\0.png")),
    "an absolute name": Case("leaves-folder", "/data/1.png", put("images", 1, file_name="/data/1.png")),
    "a drive's name": Case("leaves-folder", "C:\\data\\1.png", put("images", 1, file_name="C:\\data\\1.png")),
    "a name that leaves": Case("leaves-folder", "../train/1.png", put("images", 1, file_name="../train/1.png")),
    "an empty name": Case("leaves-folder", "image 15 ()", put("images", 1, file_name="")),
    "no folder": Case("no-image-folder", "train", no_folder, fixable=False),
    "a file of zero bytes": Case("zero-bytes", "image 15 (1.png)", bytes_of("1.png", lambda b: b"")),
    "a file cut short": Case("truncated-image", "image 15 (1.png)", bytes_of("1.png", lambda b: b[: len(b) // 2])),
    "a file that is no image": Case("unreadable-image", "image 15 (1.png)", bytes_of("1.png", lambda b: b"<html>" * 9)),
    "an image of another size": Case(
        "another-size", "is 32x24, stated 64x48", picture("1.png", lambda i: i.resize((32, 24)))
    ),
    "height and width exchanged": Case(
        "another-size", "is 64x48, stated 48x64", put("images", 5, width=48, height=64), also=("sticks-out",)
    ),
    "turned by EXIF, stated as stored": Case(
        "exif-stored", "orientation 6", exif((64, 48), 6), severity="note", fixable=False
    ),
    "turned by EXIF, stated upright": Case(
        "exif-upright", "orientation 8", exif((48, 64), 8), severity="note", fixable=False, also=("sticks-out",)
    ),
    "upside down by EXIF": Case("exif-unclear", "orientation 3", exif((64, 48), 3), severity="warning", fixable=False),
    "a picture twice in train": Case(
        "same-image", "image 25 (2.png)", duplicate("train/1.png", "train/2.png"), severity="warning", fixable=False
    ),
    "a picture in train and val": Case(
        "same-image-in-both",
        "val image 35 (3.png)",
        duplicate("train/2.png", "val/3.png"),
        severity="warning",
        fixable=False,
    ),
    "a picture resized into val": Case(
        "near-identical-in-both",
        "train image 25 (2.png) and val image 35 (3.png)",
        resized_into_val,
        severity="warning",
        fixable=False,
    ),
    "one folder for train and val": Case(
        "same-image-in-both", "val image 15 (1.png)", same_folder, severity="warning", count=4, fixable=False
    ),
}


@pytest.fixture
def dataset(tiny_dataset) -> Dataset:
    return Dataset(tiny_dataset)


def findings_of(dataset: Dataset, **options):
    return check_dataset(load_descriptor(dataset.descriptor), **options)


def serious(findings) -> list:
    """Errors and warnings, but that the tiny dataset is tiny."""
    return [f for f in findings if f.severity != "note" and f.check != "few-images"]


def everything_said(finding) -> str:
    return " | ".join([finding.message, *(example.text for example in finding.examples)])


def refused(descriptor) -> str | None:
    """What training says to the dataset, if it refuses it."""
    try:
        names = descriptor.classes
        for name in ("train", "val"):
            data = read_coco(descriptor.split(name), names)
            names = data.class_names
            check_images_exist(data)
            if data.class_counts().sum() == 0:
                return "no object"
            for i in range(len(data)):
                read_image(data.images_dir / data.file_name(i), (int(data.heights[i]), int(data.widths[i])))
    except InputError as problem:
        return str(problem)


def test_the_sound_dataset_is_sound(dataset):
    findings = findings_of(dataset)
    assert [(f.severity, f.check, f.split, f.count) for f in findings] == [
        ("warning", "few-images", "train", 1),
        ("warning", "few-images", "val", 1),
        ("note", "image-without-objects", "train", 1),
        ("note", "image-without-objects", "val", 1),
    ]


@pytest.mark.parametrize("name", CASES)
def test_broken_in_one_way(dataset, name):
    case = CASES[name]
    case(dataset)
    if name == "a file that is not there":
        (dataset.folder / "train.json").unlink()
    findings = findings_of(dataset)
    (finding,) = [f for f in findings if f.check == case.check and f.split.startswith("train")]
    assert case.says in everything_said(finding)
    assert (finding.severity, finding.count) == (case.severity, case.count)
    assert len(finding.examples) <= 5 and finding.advice
    if case.severity == "error":
        # of val's file, --fix repairs what train's has more
        assert finding.repairable == (case.fixable or case.check == "category-missing")
    wanted = {*case.also, *([case.check] if case.severity != "note" else [])}
    assert {f.check for f in serious(findings)} == wanted
    errors = {f.check for f in findings if f.severity == "error"}
    assert bool(errors) == bool(refused(load_descriptor(dataset.descriptor))), errors  # where training refuses


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fixable])
def test_fixed(dataset, name):
    case = CASES[name]
    case(dataset)
    descriptor = load_descriptor(dataset.descriptor)
    out = dataset.folder / "fixed.json"
    said = fix(descriptor.splits["train"], out)
    assert said and (dataset.folder / "fixed.json.changes.txt").read_text().splitlines() == said
    descriptor.splits["train"] = type(descriptor.splits["train"])(descriptor.splits["train"].images, out)
    findings = check_dataset(descriptor)
    assert case.check not in {f.check for f in findings}
    assert serious(findings) == []
    assert refused(descriptor) is None


def test_what_is_sound_is_not_changed(dataset):
    dataset.train["info"] = {"year": 2020, "note": "é"}
    dataset.boxes[0]["segmentation"] = [[1, 2, 3.5, 4]]
    dataset.save()
    out = dataset.folder / "fixed.json"
    assert fix(load_descriptor(dataset.descriptor).splits["train"], out) == []
    assert json.loads(out.read_text()) == dataset.train


def test_corners_become_width_and_height(dataset):
    sound = [a["bbox"] for a in dataset.boxes]
    CASES["corners"](dataset)
    out = dataset.folder / "fixed.json"
    said = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert [a["bbox"] for a in json.loads(out.read_text())["annotations"]] == sound
    assert len(said) == 10


def test_corners_are_left_where_one_box_disagrees(dataset):
    for k in range(200):  # one in a hundred may disagree, and the finding stays
        dataset.boxes.append(dataset.boxes[k % 10] | {"id": 1000 + k, "iscrowd": 1})
    CASES["corners"](dataset)
    dataset.boxes[0]["bbox"] = [30, 30, 20, 10]
    dataset.save()
    assert "xyxy-as-xywh" in {f.check for f in findings_of(dataset)}
    out = dataset.folder / "fixed.json"
    said = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert said[0].startswith("all boxes: left")


@pytest.mark.parametrize(("stated", "fixed"), [("1.PNG", "1.png"), ("train\\1.png", "1.png"), ("/data/1.png", "1.png")])
def test_a_name_spelt_otherwise(dataset, stated, fixed):
    dataset.images[1]["file_name"] = stated
    dataset.save()
    out = dataset.folder / "fixed.json"
    said = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert said == [f"image 15 ({stated}): file_name changed to {fixed}"]
    assert json.loads(out.read_text())["images"][1]["file_name"] == fixed


def test_joined_images_and_categories_keep_their_boxes(dataset):
    dataset.images.append(dataset.images[1] | {"id": 99})
    dataset.boxes.append(dataset.boxes[0] | {"id": 999, "image_id": 99, "bbox": [2, 2, 9, 9], "area": 81})
    dataset.train["categories"].append({"id": 8, "name": "light"})
    dataset.boxes[1]["category_id"] = 8
    dataset.save()
    out = dataset.folder / "fixed.json"
    said = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert said == [
        "category 8 (light): joined with category 7 of the same name",
        "image 99 (1.png): joined with image 15 of the same file",
    ]
    fixed = json.loads(out.read_text())["annotations"]
    assert [a["image_id"] for a in fixed if a["id"] in (102, 999)] == [15, 15]
    assert fixed[1]["category_id"] == 7


def test_boxes_of_an_id_with_two_names_are_left(dataset):
    dataset.train["categories"].append({"id": 3, "name": "light"})  # 3 is dark, and light is 7
    dataset.save()
    out = dataset.folder / "fixed.json"
    fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert json.loads(out.read_text())["annotations"] == dataset.boxes


def test_of_a_chain_of_boxes_only_those_too_many_are_dropped(dataset):
    """The first is nearly the second, the second nearly the third, but the first is not the third."""
    for k, x in enumerate((30, 30.4, 30.8)):
        dataset.boxes.append(dataset.boxes[2] | {"id": 900 + k, "bbox": [x, 2, 20, 20]})
    dataset.save()
    out = dataset.folder / "fixed.json"
    (line,) = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert line.startswith("annotation 901 (image 2.png)") and line.endswith("nearly the same as annotation 900")


def test_an_image_that_was_resized_is_dropped(dataset):
    CASES["an image of another size"](dataset)
    out = dataset.folder / "fixed.json"
    said = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert said[0].startswith("image 15 (1.png): dropped: the file is 32x24, stated 64x48")
    assert [line.split(" (image")[0] for line in said[1:]] == ["annotation 102", "annotation 103"]
    assert all(line.endswith("dropped: image_id 15 is the id of nothing in the file") for line in said[1:])


def alike(folder, *names):
    """Make these pictures nearly the same."""
    noise = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    for i, name in enumerate(names):
        Image.fromarray(noise).resize((90 + i, 70), Image.Resampling.BICUBIC).resize((64, 48)).save(folder / name)


def test_alike_pictures_are_counted_in_groups_and_images(dataset):
    alike(dataset.folder, "train/1.png", "train/2.png", "train/3.png", "val/1.png", "val/2.png")
    within, between = ([f for f in findings_of(dataset) if f.check == check] for check in
                       ("near-identical", "near-identical-in-both"))  # fmt: skip
    assert [(f.split, f.count, f.message.split(": ")[1]) for f in within] == [
        ("train", 1, "1 group, 3 of 6 images"),
        ("val", 1, "1 group, 2 of 4 images"),
    ]
    (finding,) = between
    assert finding.message.endswith("in train and in val: 1 group, 3 of 6 images of train and 2 of 4 images of val")
    (example,) = finding.examples
    assert example.text == "train image 15 (1.png) and val image 15 (1.png), and 3 more like them"
    assert (example.file_name, example.beside) == ("1.png", ("val", "1.png"))
    assert f"python datasets/split.py {dataset.descriptor}" in finding.advice and "--blocks" not in finding.advice


def test_one_camera_is_split_by_time(dataset):
    alike(dataset.folder, *(f"train/{i}.png" for i in range(6)), *(f"val/{i}.png" for i in range(4)))
    findings = [f for f in findings_of(dataset) if f.check.startswith("near-identical")]
    assert len(findings) == 3
    for finding in findings:
        assert "one fixed camera" in finding.advice and "keep one of them" not in finding.advice
        assert f"split.py {dataset.descriptor} --anew --blocks 20" in finding.advice


@pytest.mark.parametrize("value", [float, str])
def test_ids_written_as_floats_or_text_are_read(dataset, value):
    sound = copy.deepcopy(dataset.train)
    for kind, keys in {
        "images": ["id", "width"],
        "annotations": ["image_id", "category_id"],
        "categories": ["id"],
    }.items():
        for record in dataset.train[kind]:
            record |= {key: value(record[key]) for key in keys}
    dataset.save()
    assert not [f for f in findings_of(dataset) if f.check.startswith("unknown")]  # one thing is wrong, not two
    out = dataset.folder / "fixed.json"
    said = fix(load_descriptor(dataset.descriptor).splits["train"], out)
    assert json.loads(out.read_text()) == sound
    assert f"image 15{'.0' * (value is float)}: id {value(15)!r} read as 15" in said
    assert not [line for line in said if "dropped" in line or "was found" in line]


def test_val_gets_the_categories_of_train(dataset):
    dataset.train["categories"].append({"id": 9, "name": "grey"})
    dataset.val["categories"] = [{"id": 9, "name": "Light"}, {"id": 1, "name": "dark"}, {"id": 3, "name": "blue"}]
    for record in dataset.val["annotations"]:
        record["category_id"] = {7: 9, 3: 1}[record["category_id"]]
    dataset.save()
    out = dataset.folder / "fixed.json"
    descriptor = load_descriptor(dataset.descriptor)
    said = fix(descriptor.splits["val"], out, descriptor.splits["train"].annotations)
    fixed = json.loads(out.read_text())
    assert fixed["categories"] == [
        {"id": 7, "name": "light"}, {"id": 3, "name": "dark"}, {"id": 2, "name": "blue"}, {"id": 9, "name": "grey"}
    ]  # fmt: skip
    assert [a["category_id"] for a in fixed["annotations"]] == [7, 3] * 3
    train = dataset.folder / "train.json"
    assert said == [
        f"category 9 (Light): renamed light, as in {train}",
        "category 9 (Light): its id is now 7",
        "category 1 (dark): its id is now 3",
        "category 3 (blue): its id is now 2",
        f"category 9 (grey): added, since {train} has it",
    ]
    descriptor.splits["val"] = type(descriptor.splits["val"])(descriptor.splits["val"].images, out)
    assert "category-missing" not in {f.check for f in check_dataset(descriptor)} and refused(descriptor) is None


def test_few_images_are_said(dataset):
    findings = [f for f in findings_of(dataset) if f.check == "few-images"]
    assert [f.message for f in findings] == ["train has 6 images, fewer than 10", "val has 4 images, fewer than 10"]


def test_flat_pictures_are_not_taken_for_one(dataset):
    for name, value in (("1.png", 20), ("2.png", 90)):
        Image.new("RGB", (64, 48), (value, value, value)).save(dataset.folder / "train" / name)
    assert serious(findings_of(dataset)) == []


def test_nothing_is_written_over_the_file(dataset):
    split = load_descriptor(dataset.descriptor).splits["train"]
    with pytest.raises(InputError, match="is the file to repair"):
        fix(split, split.annotations)


@pytest.mark.parametrize(
    "content", ["", "[1", "[]", '{"images": []}', '{"images":[],"annotations":[],"categories":[]}']
)
def test_what_cannot_be_repaired_is_refused(dataset, content):
    dataset.text["train"] = content
    dataset.save()
    with pytest.raises(InputError, match="train.json"):
        fix(load_descriptor(dataset.descriptor).splits["train"], dataset.folder / "fixed.json")


def test_large_objects_in_the_corner_are_no_corners(dataset):
    """All of w > x and h > y, which alone says nothing."""
    for record in dataset.boxes:
        record["bbox"] = [0, 0, 60, 40]
    dataset.save()
    assert "xyxy-as-xywh" not in {f.check for f in findings_of(dataset, images=False)}


def test_boxes_that_stick_out_are_no_corners(dataset):
    for k, record in enumerate(dataset.boxes):
        record["bbox"] = [50, 2 + k % 2 * 23, 20, 20]
    dataset.save()
    assert {f.check for f in serious(findings_of(dataset, images=False))} == {"sticks-out"}


def test_one_pixel_too_many_is_no_contradiction(dataset):
    """Pixels counted with both edges give (w + 1) (h + 1), as in VOC's conversions."""
    for record in dataset.boxes:
        record["area"] = 21 * 21
    dataset.save()
    assert "area-contradicts" not in {f.check for f in findings_of(dataset, images=False)}


def test_an_image_folder_is_not_needed_for_annotations(dataset):
    CASES["no folder"](dataset)
    assert serious(findings_of(dataset, images=False)) == []


def test_a_file_in_both_splits_is_known_by_name_where_it_is_not_looked_at(dataset):
    same_folder(dataset)
    assert [(f.check, f.split, f.count) for f in serious(findings_of(dataset, images=False))] == [
        ("file-in-both", "train and val", 4)
    ]


def test_a_bare_annotation_file(dataset):
    findings = check_dataset(descriptor_of(dataset.folder / "train.json"))  # the images are in a folder, not beside it
    assert [(f.severity, f.check) for f in findings] == [
        ("warning", "few-images"),
        ("note", "image-without-objects"),
        ("note", "no-image-folder"),
        ("note", "no-split"),
    ]
    beside = dataset.folder / "train" / "annotations.json"
    (dataset.folder / "train.json").rename(beside)
    always = ["few-images", "image-without-objects", "no-split"]
    assert [f.check for f in check_dataset(descriptor_of(beside))] == always
    (dataset.folder / "train" / "3.png").unlink()
    assert [f.check for f in check_dataset(descriptor_of(beside))] == ["missing-file", *always]


def test_other_splits_go_on(dataset):
    dataset.text["train"] = "{"
    dataset.val["annotations"][0]["bbox"] = [1, 1, 0, 0]
    dataset.save()
    assert [(f.check, f.split) for f in findings_of(dataset)][:2] == [("broken-json", "train"), ("zero-size", "val")]


def test_only_classes_kept_are_looked_at(dataset):
    dataset.descriptor.write_text(dataset.descriptor.read_text() + "classes: [light]\n")
    dataset.boxes[1]["bbox"] = [1, 1, 0, 0]  # a dark one
    dataset.save()
    findings = findings_of(dataset)
    assert serious(findings) == [] and ("left-out", 5) in {(f.check, f.count) for f in findings}
    assert refused(load_descriptor(dataset.descriptor)) is None


VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    -(2**63),
    math.nan,
    math.inf,
    "",
    "7",
    "\ud800",
    "a" * 500,
    [],
    [[]],
    {},
    {"id": 1},
]
VALUES += [[1, 2, 3, 4], [math.nan] * 4, ["1"] * 4, [10**400] * 4, [1e308] * 4, [0] * 5, -1e308]


@pytest.mark.parametrize("seed", range(40))
def test_no_value_of_any_field_is_a_crash(dataset, seed):
    """Values of wrong types and sizes in random places: findings, never an exception; and --fix leaves none of them."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 12)):
        tree = rng.choice((dataset.train, dataset.val))
        kind = rng.choice(("images", "annotations", "categories"))
        records = tree[kind]
        if rng.random() < 0.1:
            records[rng.randrange(len(records))] = copy.deepcopy(rng.choice(VALUES))
            continue
        record = rng.choice([r for r in records if isinstance(r, dict)] or [{}])
        if record:
            record[rng.choice(list(record))] = copy.deepcopy(rng.choice(VALUES))
    dataset.save()
    descriptor = load_descriptor(dataset.descriptor)
    findings = check_dataset(descriptor)
    for finding in findings:
        everything_said(finding).encode()  # can be printed and written
    errors = [f for f in findings if f.severity == "error"]
    assert bool(errors) == bool(refused(descriptor)), errors
    try:
        for name, split in descriptor.splits.items():
            out = dataset.folder / f"fixed_{name}.json"
            fix(split, out)
            descriptor.splits[name] = type(split)(split.images, out)
    except InputError:
        return
    left = {"duplicate-category-id", "two-classes", "category-missing", "no-objects"}
    assert {f.check for f in check_dataset(descriptor) if f.severity == "error"} <= left


def test_no_value_of_a_whole_list_is_a_crash(dataset):
    for kind in ("images", "annotations", "categories", "info"):
        for value in VALUES:
            dataset.text["train"] = json.dumps(dataset.train | {kind: copy.deepcopy(value)})
            dataset.save()
            findings_of(dataset, images=False)


def test_bccd(real_data):
    """Its two boxes of zero size, by id, and one field of view that is in both splits, in two focuses; no more."""
    findings = check_dataset(load_descriptor(real_data("bccd") / "bccd.yaml"))
    assert [(f.severity, f.check, f.split, f.count) for f in findings] == [
        ("error", "zero-size", "train", 1),
        ("error", "zero-size", "val", 1),
        ("warning", "near-identical-in-both", "train and val", 1),
    ]
    texts = [everything_said(f) for f in findings]
    assert "annotation 2288 (image BloodImage_00343.jpg): [x, y, w, h] = [181, 329, 0, 0]" in texts[0]
    assert "annotation 887 (image BloodImage_00338.jpg): [x, y, w, h] = [504, 337, 0, 0]" in texts[1]
    assert "train image 19 (BloodImage_00038.jpg) and val image 9 (BloodImage_00037.jpg)" in texts[2]


def test_taco(real_data):
    findings = check_dataset(descriptor_of(real_data("taco") / "annotations.json"))
    assert {f.check: f.count for f in findings} == {
        "duplicate-annotation-id": 2,  # 309 and 4040
        "sticks-out": 1,
        "two-classes": 1,  # a lid and its container
        "class-without-objects": 1,
        "sticks-out-slightly": 6,
        "no-image-folder": 1,
        "no-split": 1,
    }
