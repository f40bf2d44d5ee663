"""When two names mean the same class: they are equal but for case and spaces."""

from __future__ import annotations

from collections.abc import Sequence


def match_names(names: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Those of `names` that `among` knows → the name there, in the order of `names`.

    An equal name is preferred to one that differs in case or spaces; each of `among` is given to one name only.
    """
    matches = {name: name for name in names if name in among}
    free = {_key(other): other for other in reversed(among) if other not in matches}
    for name in names:
        if name not in matches and _key(name) in free:
            matches[name] = free.pop(_key(name))
    return {name: matches[name] for name in names if name in matches}


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """The names in a sentence: all of them, or the first `limit` and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _key(name: str) -> str:
    return "".join(name.split()).casefold()
