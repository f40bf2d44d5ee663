"""Checks for pictures that occur twice: with equal bytes, or nearly the same (resized, saved again, the next frame)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement

import numpy as np

from detector.doctor.checks.splits import LEAK
from detector.doctor.finding import Example, Finding, found
from detector.doctor.image_files import HASH_SIDE, ImageFile
from detector.doctor.table import Table

# Greatest number of the 256 bits that may differ. Measured: resized or saved again, a picture differs in at most 6; the
# same view in another focus in 24, cropped by 4 % in 24 to 42; different pictures in 90 and more (blood cells, all
# alike) or 96 (COCO).
NEAR = 32
# Limits of the search, so that a folder of a million equal hashes ends.
MAX_NEIGHBOURS = 64  # with the same row or column that a hash is compared with
MAX_PAIRS = 1_000_000  # no further neighbours are compared beyond these
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # set bits of each byte

Place = tuple[str, int]  # split, image of its table


def check_duplicate_images(tables: dict[str, Table], files: dict[str, dict[int, ImageFile]]) -> list[Finding]:
    """Findings on pictures that occur twice, within a split and in two splits.

    files: split → image of its table → its file.
    """
    places = [(split, i) for split in files for i, file in files[split].items() if file.stored]
    readable = [files[split][i] for split, i in places]
    kinds = {"same-image": _equal_pairs(readable), "near-identical": _near_pairs(readable)}
    findings: list[Finding] = []
    for first, second in combinations_with_replacement(files, 2):
        for check, pairs in kinds.items():
            own = [(places[a], places[b]) for a, b in pairs if (places[a][0], places[b][0]) == (first, second)]
            findings += _findings(tables, own, check, first, second)
    return findings


def _findings(
    tables: dict[str, Table], pairs: list[tuple[Place, Place]], check: str, first: str, second: str
) -> list[Finding]:
    """The finding on pairs of a picture of split `first` and one of `second`, which may be the same split."""

    def example(pair: tuple[Place, Place]) -> Example:
        (split, i), (other, j) = pair
        text = f"{split} {tables[split].image_text(i)} and {other} {tables[other].image_text(j)}"
        return Example(text, tables[split].file_name(i))

    same = check == "same-image"
    what = "the same picture" if same else "nearly the same picture (resized, saved again, next frame)"
    if first != second:
        message = f"{what} in {first} and in {second}: {{n}}"
        return found("warning", f"{check}-in-both", f"{first} and {second}", pairs, message, LEAK, example)
    name = tables[first].file_name
    pairs = [(a, b) for a, b in pairs if name(a[1]) != name(b[1])]  # one file listed twice is duplicate-file-name
    message = f"{what} twice: {{n}}"
    advice = "keep one of them, with the boxes of both: an object annotated in only one is background in the other"
    return found("warning" if same else "note", check, first, pairs, message, advice, example)


def _equal_pairs(files: list[ImageFile]) -> list[tuple[int, int]]:
    """(first file with the same content, file) for every file that repeats an earlier one."""
    first: dict[bytes, int] = {}
    return [(k, i) for i, file in enumerate(files) if (k := first.setdefault(file.digest, i)) != i]


def _near_pairs(files: list[ImageFile]) -> list[tuple[int, int]]:
    """Pairs of files whose hashes differ in at most NEAR bits, and whose contents differ."""
    hashed = np.array([i for i, file in enumerate(files) if file.perceptual_hash], np.int64)
    if len(hashed) < 2:
        return []
    hashes = np.array([np.frombuffer(files[i].perceptual_hash, np.uint8) for i in hashed])
    pairs = hashed[near_hashes(hashes)].tolist()
    return [(a, b) for a, b in pairs if files[a].digest != files[b].digest]


def near_hashes(hashes: np.ndarray) -> np.ndarray:
    """(P,2) int64: pairs of hashes (n, HASH_SIDE² / 8) uint8 that differ in at most NEAR bits and share a line.

    A line is a row or column of the HASH_SIDE x HASH_SIDE bits. Only hashes that share one are compared, instead of all
    with all: with at most 15 bits that differ there always is one, with 24 in 95 of 100 cases.
    """
    pairs = [np.zeros((0, 2), np.int64)]
    for candidates in _sharing_a_line(hashes):
        apart = BITS[hashes[candidates[:, 0]] ^ hashes[candidates[:, 1]]].sum(axis=1)
        pairs.append(candidates[apart <= NEAR])
        if sum(map(len, pairs)) > MAX_PAIRS:
            break
    return np.unique(np.concatenate(pairs), axis=0)


def _sharing_a_line(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Arrays (P,2) of pairs, the lesser index first, of hashes that are equal in some row or column."""
    bits = np.unpackbits(hashes, axis=1).reshape(-1, HASH_SIDE, HASH_SIDE)
    lines = np.concatenate((bits, bits.transpose(0, 2, 1)), axis=1)
    packed = np.packbits(lines, axis=2).astype(np.uint16)  # (n, 2 * HASH_SIDE, 2)
    keys = packed[..., 0] * 256 + packed[..., 1]
    for line in range(keys.shape[1]):
        order = np.argsort(keys[:, line], kind="stable")
        key = keys[order, line]
        here = np.arange(len(order))
        for step in range(1, MAX_NEIGHBOURS + 1):
            here = here[here + step < len(order)]
            here = here[key[here + step] == key[here]]
            if len(here) == 0:
                break
            yield np.sort(np.stack((order[here], order[here + step]), axis=1), axis=1)
