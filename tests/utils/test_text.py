import subprocess
from pathlib import Path

from detector.utils.text import command, counted, match_names, shortened


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


def test_a_count_and_its_noun_agree():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(2, noun) for noun in ("class", "box", "batch", "epoch")] == [
        "2 classes", "2 boxes", "2 batches", "2 epochs",
    ]  # fmt: skip


def test_a_command_can_be_typed_into_a_shell_whatever_its_paths_are():
    line = command("tools/eval.py", Path("my runs/it's $HOME"), "eval.threshold={figure: recall}")
    echoed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    assert echoed.stdout.splitlines() == [
        "python", "tools/eval.py", "my runs/it's $HOME", "eval.threshold={figure: recall}",
    ]  # fmt: skip
    assert command("tools/eval.py", "runs/mine") == "python tools/eval.py runs/mine"
