"""The image files of a split: there, readable, of the stated size, upright; each is read once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from detector.data.coco import nearest_image
from detector.data.image import check_file, open_image, orientation, to_rgb, turned_upright
from detector.doctor.finding import Example, Finding, found
from detector.doctor.table import Table
from detector.utils.console import progress_bar
from detector.utils.untrusted.file_names import stays_inside

AT_A_TIME = 2048  # files under way: a task each for millions would be gigabytes
SIDE = 16  # of the perceptual hash, in bits
LARGE = 20_000_000  # pixels
FLAT = 3.0  # grey levels (standard deviation) below which a picture shows nothing that a hash could tell apart


_ONE_LARGE = threading.Lock()


@dataclass(frozen=True)
class Seen:
    """What one look at a file says."""

    digest: bytes = b""  # of the content; empty = there is no file
    stored: tuple[int, int] | None = None  # (h, w) pixels; None = cannot be read
    orientation: int = 1  # EXIF; 1 = upright as stored
    picture: bytes = b""  # perceptual hash, SIDE x SIDE bits; empty = unreadable or flat
    problem: str = ""  # why it cannot be read
    problem_check: str = ""

    @property
    def upright(self) -> tuple[int, int]:
        """(h, w) after turning as EXIF says."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def check_images(table: Table, folder: Path) -> tuple[list[Finding], dict[int, Seen]]:
    """Findings on the files of the table's images below `folder`, and what was seen of those that are there."""
    total = len(table.columns.image_ids)
    names = [table.file_name(i) for i in range(total)]
    astray = [i for i in range(total) if not stays_inside(names[i])]
    there = [i for i, yes in enumerate(is_there(folder, names)) if yes]
    missing = sorted(set(range(total)) - set(astray) - set(there))
    seen = dict(zip(there, look_at([folder / names[i] for i in there], table.split), strict=True))

    def nearest(i: int) -> str:
        listing = list_folders(folder, [names[i]])[os.path.dirname(names[i])] or list_folders(folder, [""])[""]
        return f"{table.image_text(i)}: {nearest_image(os.path.basename(names[i]), listing)}"

    return [
        *found("error", "leaves-folder", table.split, astray,
               f"file names of {total} that are empty, absolute, or leave their folder by `..`: {{n}}",
               f"names must be relative to {folder}", table.image_text),
        *found("error", "missing-file", table.split, missing, f"images of {total} whose file is not there: {{n}}",
               f"looked for below {folder}; correct `images:` of the descriptor or the names, or drop them with --fix",
               nearest),
        *_unreadable(table, seen),
        *_sizes(table, seen),
        *_turned(table, seen),
    ], seen  # fmt: skip


def is_there(folder: Path, names: list[str]) -> list[bool]:
    """Whether each file name is one below `folder`, and is there; each folder is listed once."""
    inside = [stays_inside(name) for name in names]
    listings = list_folders(folder, [name for name, ok in zip(names, inside, strict=True) if ok])
    return [
        ok and os.path.basename(name) in listings[os.path.dirname(name)] for name, ok in zip(names, inside, strict=True)
    ]


def list_folders(folder: Path, names: list[str]) -> dict[str, frozenset[str]]:
    """The names in each folder (relative to `folder`) that the file names are in; none where there is no such one."""
    listings = {}
    for directory in {os.path.dirname(name) for name in names}:
        try:
            with os.scandir(folder / directory) as entries:
                listings[directory] = frozenset(entry.name for entry in entries)
        except (OSError, ValueError):  # no such folder, or a name that no folder can have
            listings[directory] = frozenset()
    return listings


def look_at(paths: list[Path], split: str) -> Iterator[Seen]:
    """What is seen of each file, in order, with a progress bar."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar() as bar:  # Pillow decodes without the GIL
        task = bar.add_task(f"images of {split}", total=len(paths), note="")
        for start in range(0, len(paths), AT_A_TIME):
            for seen in pool.map(look, paths[start : start + AT_A_TIME]):
                bar.advance(task)
                yield seen


def look(path: Path) -> Seen:
    """Read one file, once."""
    try:
        check_file(path)
        content = path.read_bytes()
    except (OSError, ValueError) as problem:
        return Seen(problem=str(problem), problem_check="unreadable-image")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    if not content:
        return Seen(digest, problem="zero bytes", problem_check="zero-bytes")
    try:
        with open_image(io.BytesIO(content)) as image, _turn_of(image.width * image.height):
            stored, turn = (image.height, image.width), orientation(image)
            image.load()
            return Seen(digest, stored, turn, _perceptual_hash(turned_upright(image)))
    # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as problem:
        text = re.sub(r" <_io\.BytesIO[^>]*>", "", " ".join(str(problem).split()))
        check = "truncated-image" if "truncated" in text.lower() else "unreadable-image"
        return Seen(digest, problem=text, problem_check=check)


def _turn_of(pixels: int) -> contextlib.AbstractContextManager:
    """Large images one after the other: a dozen at once, in as many threads, would be more than the memory."""
    return _ONE_LARGE if pixels > LARGE else contextlib.nullcontext()


def _perceptual_hash(image: Image.Image) -> bytes:
    sixteen_bit = image.mode == "I" or image.mode.startswith("I;16")
    grey = Image.fromarray(to_rgb(image)) if sixteen_bit else image
    grey = grey.convert("L").resize((4 * SIDE, 4 * SIDE), Image.Resampling.LANCZOS)
    if np.asarray(grey).std() < FLAT:
        return b""
    return np.packbits(imagehash.phash(grey, hash_size=SIDE).hash).tobytes()


def _unreadable(table: Table, seen: dict[int, Seen]) -> list[Finding]:
    messages = {
        "zero-bytes": "image files of zero bytes: {n}",
        "truncated-image": "image files that are cut short: {n}",
        "unreadable-image": "image files that cannot be read: {n}",
    }
    return [
        finding
        for check, message in messages.items()
        for finding in found(
            "error", check, table.split, [i for i, s in seen.items() if s.problem_check == check], message,
            "copy them again from where they came from, or drop them with --fix",
            lambda i: f"{table.image_text(i)}: {seen[i].problem}",
        )
    ]  # fmt: skip


def stated_size(table: Table, i: int) -> tuple[int, int]:
    """(h, w) pixels that the annotation file says of image i."""
    return int(table.columns.heights[i]), int(table.columns.widths[i])


def _sizes(table: Table, seen: dict[int, Seen]) -> list[Finding]:
    """Images that `read_image` refuses for their size."""
    wrong = [i for i, s in seen.items() if s.stored and stated_size(table, i) not in (s.stored, s.upright)]

    def example(i: int) -> Example:
        (h, w), (height, width) = stated_size(table, i), seen[i].upright
        text = f"{table.image_text(i)}: is {width}x{height}, stated {w}x{h} (width x height)"
        return Example(text, table.file_name(i))

    return found(
        "error", "another-size", table.split, wrong, "images of another size than stated: {n}",
        "were they resized after they were annotated? then the boxes are wrong as well; "
        "--fix corrects width and height that are only swapped, and drops the others", example,
    )  # fmt: skip


def _turned(table: Table, seen: dict[int, Seen]) -> list[Finding]:
    """Images that EXIF turns: whether the stated size is that before or after, as `read_image` goes by."""
    turned = [i for i, s in seen.items() if s.stored and s.orientation != 1]
    groups: dict[str, list[int]] = {"exif-stored": [], "exif-upright": [], "exif-unclear": []}
    for i in turned:
        stated, s = stated_size(table, i), seen[i]
        if s.stored == s.upright == stated:
            groups["exif-unclear"].append(i)
        elif stated in (s.stored, s.upright):
            groups["exif-upright" if stated == s.upright else "exif-stored"].append(i)
    says = {
        "exif-stored": ("are of the size before turning", "they are trained as stored, which the boxes belong to"),
        "exif-upright": ("are of the size after turning", "they are turned upright before training"),
        "exif-unclear": ("have the same size before and after", "they are turned upright before training; look whether "
                         "the boxes fit, as not every annotation tool turns them"),
    }  # fmt: skip
    return [
        finding
        for check, cases in groups.items()
        for finding in found(
            "warning" if check == "exif-unclear" else "note", check, table.split, cases,
            f"images that EXIF turns, and that {says[check][0]}: {{n}}", says[check][1],
            lambda i: Example(f"{table.image_text(i)}: orientation {seen[i].orientation}", table.file_name(i)),
        )
    ]  # fmt: skip
