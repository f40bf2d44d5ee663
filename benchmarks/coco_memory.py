"""Memory of a COCO annotation file beside pycocotools: to load it, to keep it, and in each worker forked afterwards.

    python benchmarks/coco_memory.py [--images 1000000] [--boxes 10000000]

Writes a file of that size and one of a tenth of it into a temporary folder. pycocotools, which keeps a dict for each
object, reads only the smaller one. Every row is measured in a new process, after its imports. Linux only: it reads
/proc.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import track

WORKERS = 4
IMAGES_READ = 20_000  # images whose objects each worker reads
MEBIBYTE = 2**20

ReadObjects = Callable[[np.random.Generator], None]
Load = Callable[[Path], ReadObjects]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--boxes", type=int, default=10_000_000)
    parser.add_argument("--measure", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, tenth = Path(folder, "whole.json"), Path(folder, "tenth.json")
        write_file(whole, arguments.images, arguments.boxes)
        write_file(tenth, max(1, arguments.images // 10), arguments.boxes // 10)
        print(f"{'reader':<12} {'file':>9} {'load':>8} {'peak':>10} {'kept':>10}   private memory of a worker")
        for reader, file in (("detector", whole), ("detector", tenth), ("pycocotools", tenth)):
            subprocess.run([sys.executable, __file__, "--measure", reader, "--file", file], check=True)


def write_file(path: Path, images: int, boxes: int) -> None:
    """Write a COCO file of 640x480 images and 80 categories; its objects belong to random images."""
    rng = np.random.default_rng(0)
    block = 100_000
    with path.open("w") as file:
        file.write('{"images": [')
        for start in range(0, images, block):
            ids = range(start + 1, min(start + block, images) + 1)
            rows = (f'{{"id": {i}, "file_name": "{i:012d}.jpg", "height": 480, "width": 640}}' for i in ids)
            file.write((", " if start else "") + ", ".join(rows))
        file.write('], "annotations": [')
        for start in track(range(0, boxes, block), description=f"writing {boxes:,} boxes"):
            ids = range(start + 1, min(start + block, boxes) + 1)
            image_ids = rng.integers(1, images + 1, len(ids)).tolist()
            corners = rng.uniform(0, (500, 380), (len(ids), 2)).round(2).tolist()
            sides = rng.uniform(1, 100, (len(ids), 2)).round(2).tolist()
            rows = (
                f'{{"id": {i}, "image_id": {image}, "category_id": {i % 80 + 1}, "bbox": [{x}, {y}, {w}, {h}], '
                f'"area": {w * h:.4f}, "iscrowd": 0, "segmentation": [[{x}, {y}, {x}, {y}, {x}, {y}]]}}'
                for i, image, (x, y), (w, h) in zip(ids, image_ids, corners, sides, strict=True)
            )
            file.write((", " if start else "") + ", ".join(rows))
        categories = ", ".join(f'{{"id": {i}, "name": "class {i}"}}' for i in range(1, 81))
        file.write(f'], "categories": [{categories}]}}')


def measure(reader: str, file: Path) -> None:
    """Print the row of one reader. It loads the file in this process and reads objects in forked ones."""
    load = READERS[reader]()
    imports = status("VmRSS") / MEBIBYTE
    before = time.perf_counter()
    read_objects = load(file)
    seconds = time.perf_counter() - before
    peak, then = (status(key) / MEBIBYTE - imports for key in ("VmHWM", "VmRSS"))
    private = sorted(worker_memory(read_objects, seed) / MEBIBYTE for seed in range(WORKERS))
    size = file.stat().st_size / MEBIBYTE
    print(
        f"{reader:<12} {size:5.0f} MiB {seconds:6.1f} s {peak:6.0f} MiB {then:6.0f} MiB   "
        f"{private[0]:.1f} to {private[-1]:.1f} MiB, {WORKERS} workers reading {IMAGES_READ:,} images each",
        flush=True,
    )


def ours() -> Load:
    """Import this project; how it loads a file, and how a worker then reads the boxes of random images."""
    from detector.data.coco import Split, read_coco

    def load(file: Path) -> ReadObjects:
        data = read_coco(Split(file.parent, file))

        def read_objects(rng: np.random.Generator) -> None:
            for i in rng.integers(len(data), size=IMAGES_READ).tolist():
                data.file_name(i), data.target_boxes(i)

        return read_objects

    return load


def pycocotools() -> Load:
    """The same with pycocotools."""
    from pycocotools.coco import COCO

    def load(file: Path) -> ReadObjects:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            coco = COCO(str(file))
        ids = list(coco.imgs)

        def read_objects(rng: np.random.Generator) -> None:
            for i in rng.integers(len(ids), size=IMAGES_READ).tolist():
                coco.imgs[ids[i]]["file_name"], [a["bbox"] for a in coco.loadAnns(coco.getAnnIds(ids[i]))]

        return read_objects

    return load


READERS = {"detector": ours, "pycocotools": pycocotools}


def worker_memory(read_objects: ReadObjects, seed: int) -> int:
    """Bytes of memory that a forked process no longer shares after reading objects, less those of an idle one."""
    idle = private_after(lambda: None)
    return private_after(lambda: read_objects(np.random.default_rng(seed))) - idle


def private_after(work: Callable[[], None]) -> int:
    """Bytes of memory private to a forked process that has done `work`."""
    receiver, sender = os.pipe()
    if os.fork() == 0:
        work()
        os.write(sender, str(private_memory()).encode())
        os._exit(0)
    os.close(sender)
    with open(receiver) as answer:
        private = int(answer.read())
    os.wait()
    return private


def private_memory() -> int:
    """Bytes of the pages that this process shares with no other (its unique set size)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def status(key: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
