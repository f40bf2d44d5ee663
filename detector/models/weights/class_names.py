"""Which of the weights' classes each class of the dataset is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean
from detector.utils.text import match_names


def match_classes(
    class_names: Sequence[str], known: Sequence[str] | None, class_map: Mapping[str, str], *, source: str
) -> dict[str, str]:
    """The dataset's classes that the weights know → their names in the weights, in the dataset's order.

    known: the names of the weights' classes; None: they have none. class_map: name in the dataset → name in the
    weights, both exact; classes that it leaves out are matched by `match_names`.
    Raises InputError if class_map names a class that does not exist.
    """
    if class_map and known is None:
        raise InputError(f"model.class_map: {source} has no class names to map to; leave class_map out")
    known = known or []
    for here, there in class_map.items():
        _check(here, there, class_names, known, source)
    matches = match_names([name for name in class_names if name not in class_map], known)
    matches.update(class_map)
    return {name: matches[name] for name in class_names if name in matches}


def _check(here: str, there: str, class_names: Sequence[str], known: Sequence[str], source: str) -> None:
    if here in class_names and there in known:
        return
    if here in known and there in class_names:
        raise InputError(
            f"model.class_map: `{here}: {there}` is the wrong way round; the name in the dataset comes first: write "
            f"`{there}: {here}`"
        )
    if here not in class_names:
        raise InputError(f"model.class_map: {here!r} is no class of this dataset; {did_you_mean(here, class_names)}")
    raise InputError(f"model.class_map: {there!r} is no class of {source}; {did_you_mean(there, known)}")
