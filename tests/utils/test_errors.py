from detector.utils.errors import InputError
from detector.utils.text import quoted


def test_an_error_is_one_printable_line_whatever_it_quotes():
    assert str(InputError("a\nb\x1b[31m\ud800\u2028c")) == r"a b\x1b[31m\ud800 c"
    text = str(InputError("x" * 10**6 + "; the remedy"))
    assert len(text) == 1500 and text.endswith("; the remedy")
    assert quoted(16**5000) == "a int too large to show"
    assert len(quoted(["x" * 10**6])) == 100
