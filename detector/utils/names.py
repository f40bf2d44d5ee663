"""Names and values that somebody else wrote: which are equal, which are refused, and how they are quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_NAME = 200  # characters of a class name: it heads columns, labels boxes, and is a tag in TensorBoard
LONGEST_LINE = 1500  # characters of an error
LONGEST_VALUE = 100  # characters of a value that is quoted in one
# Control characters (a terminal obeys them), halves of characters (no file takes them), line breaks of Unicode, and
# marks that turn the direction of all that follows.
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def match_names(names: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Those of `names` that `among` knows → the name there, in the order of `names`.

    An equal name is preferred to one that differs in case or spaces; each of `among` is given to one name only.
    """
    known = set(among)
    matches = {name: name for name in names if name in known}
    free = {_key(other): other for other in reversed(among) if other not in matches}
    for name in names:
        if name not in matches and _key(name) in free:
            matches[name] = free.pop(_key(name))
    return {name: matches[name] for name in names if name in matches}


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """The names in a sentence: all of them, or the first `limit` and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def wrong_name(name: str) -> str | None:
    """What is wrong with a class name, as the end of a sentence; None where it can be used."""
    if not name.strip():
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters; {LONGEST_NAME} are the most"
    if _NOT_SHOWN.search(name):
        return f"is {quoted(name)}, with a character that cannot be shown"
    return None


def printable(text: str, limit: int | None = None) -> str:
    r"""The text as it can be shown on one line: ESC as \x1b, its middle left out where it is longer than `limit`."""
    if limit is not None and len(text) > limit:
        end = limit // 4
        text = f"{text[: limit - end - 3]}...{text[-end:]}"
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """A message as one line of bounded length; what it ends with, mostly the remedy, is kept."""
    return printable(" ".join(text.split()), LONGEST_LINE)


def quoted(value: object) -> str:
    """A value as Python writes it, for a message, shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4300 digits; lists a thousand deep
        return f"a {type(value).__name__} too large to show"
    return printable(text, LONGEST_VALUE)


def _key(name: str) -> str:
    return "".join(name.split()).casefold()
