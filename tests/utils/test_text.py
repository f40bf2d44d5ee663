from detector.utils.text import match_names, shortened


def test_case_and_spaces_do_not_matter():
    assert match_names(["RBC", "Traffic Light", "dog"], ["trafficlight", "rbc", "cat"]) == {
        "RBC": "rbc",
        "Traffic Light": "trafficlight",
    }


def test_an_equal_name_goes_first_and_each_is_given_once():
    assert match_names(["Dog", "dog", "DOG"], ["DOG", "dog"]) == {"dog": "dog", "DOG": "DOG"}
    assert match_names(["DOG", "dog"], ["dog"]) == {"dog": "dog"}
    assert match_names(["Dog", "DOG"], ["dog"]) == {"Dog": "dog"}
    assert match_names(["dOG"], ["Dog", "dog"]) == {"dOG": "Dog"}
    assert match_names([], ["dog"]) == match_names(["dog"], []) == {}


def test_the_order_is_that_of_the_names():
    assert list(match_names(["b", "A", "c"], ["c", "a", "b"])) == ["b", "A", "c"]


def test_long_lists_are_shortened():
    assert shortened(["a", "b"]) == "a, b"
    assert shortened([str(i) for i in range(80)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 70 more"
