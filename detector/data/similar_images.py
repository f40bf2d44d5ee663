"""Pictures that occur twice: with equal bytes, or nearly the same (resized, saved again, the next frame); in groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detector.data.image_files import HASH_SIDE, ImageFile
from detector.data.splitting import join_groups, link

# Greatest number of the 256 bits that may differ. Measured: resized or saved again, a picture differs in at most 6; the
# same view in another focus in 24, cropped by 4 % in 24 to 42; different pictures in 90 and more (blood cells, all
# alike) or 96 (COCO).
NEAR = 32
# Limits of the search, so that a folder of a million equal hashes ends.
MAX_NEIGHBOURS = 64  # with the same row or column that a hash is compared with
MAX_PAIRS = 1_000_000  # no further neighbours are compared beyond these
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # set bits of each byte
# Share of the images in one group from which on they are taken for those of one fixed camera: likeness cannot tell
# their scenes apart, and one split would have to take them all.
NEARLY_ALL = 0.9


def equal_groups(files: list[ImageFile]) -> np.ndarray:
    """(F,) int64: the group of each file; files with the same content share one. A file not opened is alone."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(file.digest, i) if file.digest else i for i, file in enumerate(files)], np.int64)


def similar_groups(files: list[ImageFile]) -> np.ndarray:
    """(F,) int64: the group of each file; a file shares the group of each that is equal or nearly the same.

    So two files of a group may differ, if others lead from one to the other in small steps, as the frames of a video.
    """
    hashed = np.array([i for i, file in enumerate(files) if file.perceptual_hash], np.int64)
    if len(hashed) == 0:
        return equal_groups(files)
    hashes = np.array([np.frombuffer(files[i].perceptual_hash, np.uint8) for i in hashed])
    return join_groups(equal_groups(files), link(hashed[near_hashes(hashes)], len(files)))


def nearly_all_alike(groups: np.ndarray) -> bool:
    """Whether NEARLY_ALL of the images are in one of the `groups` (I,): one fixed camera, say."""
    return len(groups) > 1 and bool(np.unique(groups, return_counts=True)[1].max() >= NEARLY_ALL * len(groups))


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
