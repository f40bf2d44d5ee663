"""What is said of a path or name that does not exist."""

from pathlib import Path

import pytest

from detector.utils.nearest import did_you_mean, nearest_file


@pytest.mark.parametrize(
    ("missing", "pattern", "said"),
    [
        ("photso/a.jpg", "*", "there is no folder photso"),
        ("photos/deep/a.jpg", "*", "there is no folder photos/deep"),
        ("photos/dgo.jpg", "*", "did you mean 'dog.jpg'?"),
        ("photos/x", "*", "there is: Cat.png, dog.jpg"),
        ("photos/dog.json", "*.json", "there is no .json file in photos"),
        ("photos/train", "*/", "there is no folder in photos"),
        ("a.yaml", "*.yaml", "there is no .yaml file here"),
        ("photo", "*/", "did you mean 'photos'?"),
    ],
)
def test_what_is_near(tmp_path, monkeypatch, missing, pattern, said):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("dog.jpg", "Cat.png"):
        Path("photos", name).touch()
    assert nearest_file(Path(missing), pattern) == said


def test_case_does_not_hide_a_name():
    assert did_you_mean("DOG", ["dog", "cat"]) == "did you mean 'dog'?"
