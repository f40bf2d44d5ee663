from types import SimpleNamespace

import pytest

from detector.inference.evaluate import _labels_in
from detector.utils.errors import InputError


def test_classes_are_matched_but_for_case_and_spaces(capsys):
    data = SimpleNamespace(class_names=["traffic light", "Dog", "cat"])
    assert _labels_in(data, ["dog", "bird", "TrafficLight"]).tolist() == [1, -1, 0]
    said = capsys.readouterr().out
    assert "does not know, counted as never found: cat" in said
    assert "1 classes of the detector are not in this dataset" in said


def test_each_class_of_the_dataset_is_one_of_the_detectors():
    data = SimpleNamespace(class_names=["dog"])
    assert _labels_in(data, ["Dog", "dog", "DOG"]).tolist() == [-1, 0, -1]


def test_no_shared_class():
    with pytest.raises(InputError, match="share no class; the detector knows bird"):
        _labels_in(SimpleNamespace(class_names=["dog"]), ["bird"])
