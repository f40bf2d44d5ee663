"""The same picture twice: by content, and nearly so by perceptual hash (resized, saved again, the next frame)."""

from __future__ import annotations

import numpy as np

from detector.doctor.checks.images import SIDE, Seen
from detector.doctor.checks.splits import LEAK
from detector.doctor.finding import Example, Finding, found
from detector.doctor.table import Table

# Bits of 256 that may differ. Resized or saved again, a picture differs in at most 6; the same view in another focus
# in 24, cropped by 4 % in 24 to 42; different pictures in 90 and more (blood cells, all alike) or 96 (COCO).
NEAR = 32
FURTHEST = 64  # neighbours in a bucket that a hash is compared with, until there are ENOUGH pairs
ENOUGH = 1_000_000
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)

Place = tuple[str, int]  # split, image of its table


def check_leaks(tables: dict[str, Table], seen: dict[str, dict[int, Seen]]) -> list[Finding]:
    """Findings on pictures that occur twice, within a split and across splits."""
    places = [(split, i) for split in seen for i, s in seen[split].items() if s.stored]
    looks = [seen[split][i] for split, i in places]
    equal = _equal(looks)
    near = _near(looks)
    names = list(seen)
    findings = []
    for k, first in enumerate(names):
        for second in names[k:]:
            for check, pairs in (("same-image", equal), ("near-identical", near)):
                own = [(places[a], places[b]) for a, b in pairs if (places[a][0], places[b][0]) == (first, second)]
                findings += _finding(tables, own, check, first, second)
    return findings


def _finding(tables: dict[str, Table], pairs: list[tuple[Place, Place]], check: str, first: str, second: str):
    def example(pair: tuple[Place, Place]) -> Example:
        (split, i), (other, j) = pair
        return Example(
            f"{split} {tables[split].image_text(i)} and {other} {tables[other].image_text(j)}",
            tables[split].file_name(i),
        )

    # an image listed twice under one name is told of as such
    name = tables[first].file_name
    pairs = [(a, b) for a, b in pairs if first != second or name(a[1]) != name(b[1])]
    what = "the same picture" if check == "same-image" else "nearly the same picture (resized, saved again, next shot)"
    if first != second:
        message = f"images of {second} that show {what} as one of {first}: {{n}}"
        return found("warning", f"{check}-in-both", f"{first} and {second}", pairs, message, LEAK, example)
    severity = "warning" if check == "same-image" else "note"
    advice = "keep one of them, with the boxes of both: what is annotated in one only is background in the other"
    return found(severity, check, first, pairs, f"images that show {what} as another: {{n}}", advice, example)


def _equal(looks: list[Seen]) -> list[tuple[int, int]]:
    """Each image whose content an earlier one of the same split has, or of another split, with the first such."""
    first: dict[bytes, int] = {}
    return [(k, i) for i, s in enumerate(looks) if (k := first.setdefault(s.digest, i)) != i]


def _near(looks: list[Seen]) -> list[tuple[int, int]]:
    """Pairs whose hashes differ in at most NEAR bits and whose contents differ."""
    which = np.array([i for i, s in enumerate(looks) if s.picture], np.int64)
    if len(which) < 2:
        return []
    hashes = np.array([np.frombuffer(looks[i].picture, np.uint8) for i in which])
    pairs = [(which[a].item(), which[b].item()) for a, b in near_hashes(hashes)]
    return [(a, b) for a, b in pairs if looks[a].digest != looks[b].digest]


def near_hashes(hashes: np.ndarray) -> np.ndarray:
    """(P,2) int64: pairs of hashes (n, SIDE * SIDE / 8) uint8 that differ in at most NEAR bits and agree in a row.

    Compared are those that agree in a whole row or column of the SIDE x SIDE bits: with no more than 15 bits that
    differ there is always one, with 24 in 95 of 100 cases, and comparing all with all is left out.
    """
    bits = np.unpackbits(hashes, axis=1).reshape(-1, SIDE, SIDE)
    lines = np.concatenate((bits, bits.transpose(0, 2, 1)), axis=1)
    keys = np.packbits(lines, axis=2).astype(np.uint16)  # (n, 2 * SIDE, 2)
    keys = keys[..., 0] * 256 + keys[..., 1]
    pairs = [np.zeros((0, 2), np.int64)]
    for line in range(keys.shape[1]):
        order = np.argsort(keys[:, line], kind="stable")
        key = keys[order, line]
        here = np.arange(len(order))
        for step in range(1, FURTHEST + 1):
            here = here[here + step < len(order)]
            here = here[key[here + step] == key[here]]
            if len(here) == 0 or sum(map(len, pairs)) > ENOUGH:
                break
            pair = np.sort(np.stack((order[here], order[here + step]), axis=1), axis=1)
            apart = BITS[hashes[pair[:, 0]] ^ hashes[pair[:, 1]]].sum(axis=1)
            pairs.append(pair[apart <= NEAR])
    return np.unique(np.concatenate(pairs), axis=0)
