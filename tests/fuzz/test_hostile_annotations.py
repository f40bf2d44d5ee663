"""Hostile annotation files are refused in one line; the doctor describes them in printable lines."""

import json

import pytest
from PIL import Image

from detector.data.coco import MAX_CLASSES, read_coco
from detector.data.descriptor import Split
from detector.doctor.examination import examine_dataset
from detector.utils.untrusted.file_names import stays_inside


@pytest.fixture
def refused(tmp_path, refusal):
    """The message with which `read_coco` refuses an annotation file. The doctor must describe it in printable lines."""
    (tmp_path / "d.yaml").write_text("train: {images: ., annotations: c.json}\n")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")

    def refused(content) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "c.json").write_text(text)
        message = refusal(lambda: read_coco(Split(tmp_path, tmp_path / "c.json")))
        said = "\n".join(examine_dataset(str(tmp_path / "d.yaml")).lines())
        assert len(said) < 20_000 and not any(ord(c) < 32 and c != "\n" for c in said)
        said.encode()
        return message

    return refused


def coco(box="[1, 2, 10, 10]", **changes) -> str:
    """An annotation file of one image, one object and one category, with other values."""
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48} | changes.pop("image", {})
    category = {"id": 1, "name": "x"} | changes.pop("category", {})
    whole = {"images": [image], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": 0} | changes],
             "categories": [category]}  # fmt: skip
    return json.dumps(whole).replace('"bbox": 0', f'"bbox": {box}')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 1_000_000, "expected `object`, got `array`"),
        ('{"images": ' * 100_000, "images: expected `array`, got `object`"),
        (coco("[" * 100_000 + "]" * 100_000), "nested too deep"),
        (coco("[1e999, 2, 3, 4]"), "bbox[0]: number out of range"),
        (coco("[1" + "0" * 6000 + ", 2, 3, 4]"), "number out of range"),
        (coco("[NaN, 2, 3, 4]"), "with NaN or Infinity"),
        (coco(id=10**100), "id: expected `int`"),
        (coco(image={"file_name": "../a.png"}), "file_name '../a.png' leaves the folder"),
        (coco(image={"file_name": "/etc/passwd"}), "file_name '/etc/passwd' leaves the folder"),
        (coco(image={"file_name": ""}), "file_name '' leaves the folder"),
        (coco(category={"name": ""}), "category 1: its name is empty"),
        (coco(category={"name": " \t"}), "category 1: its name is empty"),
        (coco(category={"name": "x" * 10_000}), "has 10000 characters; 200 are the most"),
        (coco(category={"name": "\x1b[31mred"}), r"is '\x1b[31mred', with a character that cannot be shown"),
        (coco(category={"name": "a\nb"}), r"is 'a\nb', with"),
        (coco(category={"name": "\ud800"}), r"is '\ud800', with"),
        (coco(category={"name": "\u202efdp"}), r"is '\u202efdp', with"),
    ],
)  # fmt: skip
def test_annotations(refused, content, said):
    assert said in refused(content)


def test_more_classes_than_any_model_has(refused):
    content = json.loads(coco())
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in range(1, 30_001)]
    assert f"30000 classes are too many; choose at most {MAX_CLASSES} with `classes:`" in refused(content)


@pytest.mark.parametrize("name", ["مرحبا", "日本語", "e\u0301" * 50, "🦊", "<script>alert(1)</script>", "$x$", "a&b"])
def test_class_names_of_every_language_are_accepted(tmp_path, name):
    (tmp_path / "c.json").write_text(coco(category={"name": name}))
    assert read_coco(Split(tmp_path, tmp_path / "c.json")).class_names == [name]


def test_file_names_that_stay_in_their_folder():
    for name in ("a.png", "sub/a.png", "a..b", "...", "sub/.hidden", "C", "1:b", "a\\b", "x" * 9000):
        assert stays_inside(name), name
    for name in ("", "/a", "\\a", "..", "../a", "a/../b", "a\\..\\b", "C:a", "c:\\a", "a/.."):
        assert not stays_inside(name), name
