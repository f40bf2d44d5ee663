import pytest

from detector.models.weights.class_names import match_classes
from detector.utils.errors import InputError

HERE, THERE = ["RBC", "Platelets", "WBC"], ["red cell", "platelets", "wbc ", "mite"]


def test_by_name_and_by_map():
    matches = match_classes(HERE, THERE, {"RBC": "red cell"}, source="w")
    assert list(matches.items()) == [("RBC", "red cell"), ("Platelets", "platelets"), ("WBC", "wbc ")]
    assert match_classes(HERE, None, {}, source="w") == {}


def test_the_map_comes_before_equal_names_and_may_use_a_class_twice():
    assert match_classes(["a", "b"], ["a", "b"], {"a": "b"}, source="w") == {"a": "b", "b": "b"}
    assert match_classes(["Dog", "dog"], ["dog", "x"], {"dog": "x"}, source="w") == {"Dog": "dog", "dog": "x"}


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"RBCs": "red cell"}, "model.class_map: 'RBCs' is no class of this dataset; did you mean 'RBC'?"),
        ({"RBC": "red cells"}, "model.class_map: 'red cells' is no class of w.pth; did you mean 'red cell'?"),
        ({"rbc": "red cell"}, "'rbc' is no class of this dataset; did you mean 'RBC'?"),
        ({"red cell": "RBC"}, "`red cell: RBC` is the wrong way round.*write `RBC: red cell`"),
    ],
)
def test_a_wrong_map(class_map, message):
    with pytest.raises(InputError, match=message):
        match_classes(HERE, THERE, class_map, source="w.pth")


def test_a_map_to_nameless_weights():
    with pytest.raises(InputError, match=r"model\.class_map: w\.pth has no class names to map to"):
        match_classes(HERE, None, {"RBC": "red cell"}, source="w.pth")
