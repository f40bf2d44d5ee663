"""What reading an image file tells: digest of its content, size, EXIF orientation, perceptual hash; or why it fails."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from detector.data.image import check_file, list_folders, open_image, orientation, to_rgb, turned_upright
from detector.utils.console import progress_bar
from detector.utils.untrusted.file_names import stays_inside

MAX_QUEUED = 2048  # files queued at once: a task for each of millions of files would take gigabytes
HASH_SIDE = 16  # the perceptual hash has HASH_SIDE x HASH_SIDE bits
LARGE = 20_000_000  # pixels
FLAT = 3.0  # grey levels (standard deviation): a flatter picture shows nothing that its hash could tell apart

_ONE_LARGE_IMAGE = threading.Lock()


@dataclass(frozen=True)
class ImageFile:
    """What reading one file told. Sizes are (h, w) in pixels."""

    digest: bytes = b""  # of the content; empty = the file could not be opened
    stored: tuple[int, int] | None = None  # size before EXIF turns it; None = not readable as an image
    orientation: int = 1  # EXIF, 1..8; 1 = stored upright
    perceptual_hash: bytes = b""  # HASH_SIDE x HASH_SIDE bits; empty = not readable, or flat
    problem: str = ""  # why it is not readable
    problem_check: str = ""  # the check that reports the problem

    @property
    def upright(self) -> tuple[int, int] | None:
        """Size after EXIF turns it."""
        return self.stored[::-1] if self.stored and self.orientation >= 5 else self.stored

    def has_size(self, size: tuple[int, int]) -> bool:
        """Whether training accepts the file for an image of this size: it is the stored or the upright one."""
        return self.stored is not None and size in (self.stored, self.upright)


def files_exist(folder: Path, names: list[str]) -> list[bool]:
    """For each file name, whether it stays inside `folder` and is there. Each folder is listed once."""
    inside = [stays_inside(name) for name in names]
    listings = list_folders(folder, [name for name, ok in zip(names, inside, strict=True) if ok])
    return [
        ok and os.path.basename(name) in listings[os.path.dirname(name)] for name, ok in zip(names, inside, strict=True)
    ]


def inspect_all(paths: list[Path], split: str) -> Iterator[ImageFile]:
    """Inspect each file, in order, with a progress bar that names the split."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar() as bar:  # Pillow decodes without the GIL
        task = bar.add_task(f"images of {split}", total=len(paths))
        for start in range(0, len(paths), MAX_QUEUED):
            for file in pool.map(inspect, paths[start : start + MAX_QUEUED]):
                bar.advance(task)
                yield file


def inspect(path: Path) -> ImageFile:
    """Read a file, once. Raises nothing: what is wrong is in `problem`."""
    try:
        check_file(path)
        content = path.read_bytes()
    except (OSError, ValueError) as problem:
        return ImageFile(problem=str(problem), problem_check="unreadable-image")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    if not content:
        return ImageFile(digest, problem="zero bytes", problem_check="zero-bytes")
    try:
        with open_image(io.BytesIO(content)) as image, _turn_to_decode(image.width * image.height):
            stored, turn = (image.height, image.width), orientation(image)
            image.load()
            return ImageFile(digest, stored, turn, _perceptual_hash(turned_upright(image)))
    # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as problem:
        text = " ".join(str(problem).split())
        check = "truncated-image" if "truncated" in text.lower() else "unreadable-image"
        return ImageFile(digest, problem=text, problem_check=check)


def _turn_to_decode(pixels: int) -> contextlib.AbstractContextManager:
    """Lets large images be decoded one at a time: one in every thread would not fit into memory."""
    return _ONE_LARGE_IMAGE if pixels > LARGE else contextlib.nullcontext()


def _perceptual_hash(image: Image.Image) -> bytes:
    sixteen_bit = image.mode == "I" or image.mode.startswith("I;16")
    grey = Image.fromarray(to_rgb(image)) if sixteen_bit else image
    grey = grey.convert("L").resize((4 * HASH_SIDE, 4 * HASH_SIDE), Image.Resampling.LANCZOS)
    if np.asarray(grey).std() < FLAT:
        return b""
    return np.packbits(imagehash.phash(grey, hash_size=HASH_SIDE).hash).tobytes()
