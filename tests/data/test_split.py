"""One call reads a split as the configuration says."""

import json

import pytest

from detector.config.schema import Config
from detector.data.split import read_split
from detector.utils.errors import InputError


@pytest.fixture
def config_of(coco, split_of, tmp_path):
    """A configuration of a dataset whose train split is the small COCO file; options are those of `data`."""

    def write(text: str = "", contents: dict = coco, **options) -> Config:
        split_of(contents, images=True)
        path = tmp_path / "data.yaml"
        path.write_text(f"{text}train: {{images: images, annotations: coco.json}}\n")
        return Config.model_validate({"data": {"dataset": str(path), **options}})

    return write


def test_descriptor_says_which_classes_are_kept(config_of):
    assert read_split(config_of(), "train").class_names == ["dog", "bird", "cat"]
    assert read_split(config_of("classes: [cat, dog]\n"), "train").class_names == ["cat", "dog"]


def test_caller_may_say_which_classes_are_kept(config_of):
    assert read_split(config_of("classes: [cat, dog]\n"), "train", ("bird", "cat")).class_names == ["bird", "cat"]


def test_bad_boxes_are_refused_or_dropped_as_configured(config_of, coco):
    coco["annotations"][0]["bbox"] = [1, 2, 0, 4]
    with pytest.raises(InputError, match="annotation 5"):
        read_split(config_of(contents=coco), "train")
    data = read_split(config_of(contents=coco, bad_annotations="drop"), "train")
    assert sum(data.dropped.values()) == 1


def test_images_are_checked_unless_told_otherwise(config_of, tmp_path):
    config = config_of()
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(InputError, match="1 of the 2 images"):
        read_split(config, "train")
    assert len(read_split(config, "train", check_images=False)) == 2


def test_another_dataset(config_of, coco, tmp_path):
    config = config_of()
    other = tmp_path / "other"
    other.mkdir()
    coco["images"].pop()
    coco["annotations"] = []
    (other / "few.json").write_text(json.dumps(coco))
    (other / "few.yaml").write_text("train: {images: ../images, annotations: few.json}")
    assert len(read_split(config, "train", dataset=str(other / "few.yaml"))) == 1


def test_unknown_split(config_of):
    with pytest.raises(InputError, match="no split `val`; there is: train"):
        read_split(config_of(), "val")
