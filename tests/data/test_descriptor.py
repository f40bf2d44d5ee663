"""The dataset descriptor: what it says, and what is said when it is wrong."""

import pytest

from detector.data.descriptor import load_descriptor
from detector.utils.errors import InputError

GOOD = "train: {images: pictures, annotations: train.json}\n"


@pytest.fixture
def written(tmp_path):
    """Writes a descriptor next to a folder `pictures` and a file `train.json`."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "train.json").write_text("{}")

    def write(text: str):
        (tmp_path / "data.yaml").write_text(text)
        return tmp_path / "data.yaml"

    return write


def test_paths_are_relative_to_the_descriptor(written, tmp_path):
    descriptor = load_descriptor(written(GOOD))
    assert descriptor.classes is None
    assert descriptor.split("train").images == tmp_path / "pictures"
    assert descriptor.split("train").annotations == tmp_path / "train.json"


@pytest.mark.parametrize(
    ("text", "classes"), [("classes: auto\n", None), ("classes: [cat, dog]\n", ["cat", "dog"]), ("classes:\n", None)]
)
def test_classes(written, text, classes):
    assert load_descriptor(written(text + GOOD)).classes == classes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: [cat, 3]\n" + GOOD, "3 is not text; quote it"),
        ("classes: cat\n" + GOOD, "must be `auto` or a list of names"),
        (GOOD.replace("train:", "trian:"), "unknown key `trian`; did you mean 'train'?"),
        (GOOD.replace("images:", "image:"), "train: unknown key `image`; did you mean 'images'?"),
        ("train: {images: pictures}\n", "train: `annotations:` is missing"),
        ("train: pictures\n", "train: expected {images: folder, annotations: file}"),
        (GOOD.replace("pictures", "picture"), "no such folder"),
        (GOOD.replace("pictures", "picture"), "did you mean 'pictures'?"),
        (GOOD.replace("train.json", "trian.json"), "did you mean 'train.json'?"),
        (GOOD.replace("train.json", "no/where.json"), "there is no folder"),
        ("classes: auto\n", "has no split"),
        ("- a\n", "lines, this is list"),
        ("train: {images", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(written, text, said):
    with pytest.raises(InputError, match="data.yaml") as error:
        load_descriptor(written(text)).split("train")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_split_that_is_not_there_is_answered_with_those_that_are(written):
    with pytest.raises(InputError, match="no split `test`; there is: train"):
        load_descriptor(written(GOOD)).split("test")


def test_the_files_of_other_splits_need_not_be_there(written):
    descriptor = load_descriptor(written(GOOD + "val: {images: nowhere, annotations: nothing.json}\n"))
    assert descriptor.split("train").images.is_dir()
    with pytest.raises(InputError, match="val: no such folder"):
        descriptor.split("val")


def test_a_missing_descriptor_is_answered_with_the_nearest(written):
    path = written(GOOD)
    with pytest.raises(InputError, match="did you mean 'data.yaml'?"):
        load_descriptor(path.with_name("dta.yaml"))
