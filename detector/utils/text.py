"""Text for people: names and values that somebody else wrote, made safe to print, shortened, compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

LONGEST_NAME = 200  # characters of a class name: it heads columns, labels boxes, and is a tag in TensorBoard
LONGEST_LINE = 1500  # characters of an error message
LONGEST_VALUE = 100  # characters of a value quoted in a message
# Control characters (terminals obey them), halves of surrogate pairs (UTF-8 has none), the line breaks of Unicode, and
# marks that reverse the direction of the text after them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def match_names(names: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Name → the equal name in `among`, for those that have one, in the order of `names`.

    Identical names are matched first, then names that differ only in case or spaces. Each of `among` is used once.
    """
    known = set(among)
    matches = {name: name for name in names if name in known}
    free = {_without_case_and_spaces(other): other for other in reversed(among) if other not in matches}
    for name in names:
        key = _without_case_and_spaces(name)
        if name not in matches and key in free:
            matches[name] = free.pop(key)
    return {name: matches[name] for name in names if name in matches}


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """The names joined by commas: all of them, or the first `limit` and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def counted(count: int, noun: str) -> str:
    """A count and what is counted: `1 image`, `2 images`, `3 boxes`. noun: in the singular, with a regular plural."""
    return f"{count} {plural(noun, count)}"


def plural(noun: str, count: int) -> str:
    """The noun as it stands after the count."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith(("s", "x", "sh", "tch")) else f"{noun}s"


def command(*words: object) -> str:
    """`python` and the words as a command to type into a shell."""
    return " ".join(["python", *map(shell_word, words)])


def shell_word(word: object) -> str:
    """A word for a shell, quoted if the shell would split or expand it."""
    return shlex.quote(str(word))


def class_name_problem(name: str) -> str | None:
    """What is wrong with a class name, as the end of a sentence ("is empty"); None if nothing is."""
    if not name.strip():
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters; {LONGEST_NAME} are the most"
    if _UNPRINTABLE.search(name):
        return f"is {quoted(name)}, with a character that cannot be shown"
    return None


def printable(text: str, limit: int | None = None) -> str:
    r"""The text on one line, unprintable characters escaped (ESC as \x1b).

    Of a text longer than `limit` characters, the middle is replaced by "..." before escaping.
    """
    if limit is not None and len(text) > limit:
        end = limit // 4
        text = f"{text[: limit - end - 3]}...{text[-end:]}"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """A message as one printable line of at most about LONGEST_LINE characters. Its end, often the remedy, is kept."""
    return printable(" ".join(text.split()), LONGEST_LINE)


def quoted(value: object) -> str:
    """A value as Python writes it, shortened and printable, for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4300 digits; lists nested a thousand deep
        return f"a {type(value).__name__} too large to show"
    return printable(text, LONGEST_VALUE)


def _without_case_and_spaces(name: str) -> str:
    return "".join(name.split()).casefold()
