"""What a COCO annotation file costs in memory: loading it, holding it, and each loader worker forked from its holder.

    python benchmarks/coco_memory.py [--images 1000000] [--boxes 10000000]

Writes a file of that size into a temporary folder, and one of a tenth of it, on which pycocotools, which keeps a dict
per object, is measured as well. Every row is a fresh process. Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WORKERS = 4
TOUCHED = 20_000  # images each worker reads the objects of
MEBIBYTE = 2**20


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
        print(f"{'reader':<12} {'file':>9} {'load':>8} {'peak RSS':>10} {'held RSS':>10}   private memory of a worker")
        for reader, file in (("detector", whole), ("detector", tenth), ("pycocotools", tenth)):
            subprocess.run([sys.executable, __file__, "--measure", reader, "--file", file], check=True)


def write_file(path: Path, images: int, boxes: int) -> None:
    """A COCO file of 640x480 images, 80 categories and objects in random order of images."""
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
    """Print the row of one reader: in this process the loading, in forked ones the reading of objects."""
    before = time.perf_counter()
    touch = READERS[reader](file)
    seconds = time.perf_counter() - before
    peak, held = status("VmHWM") / MEBIBYTE, status("VmRSS") / MEBIBYTE
    private = sorted(in_fork(touch, seed) / MEBIBYTE for seed in range(WORKERS))
    size = file.stat().st_size / MEBIBYTE
    print(
        f"{reader:<12} {size:5.0f} MiB {seconds:6.1f} s {peak:6.0f} MiB {held:6.0f} MiB   "
        f"{private[0]:.1f} to {private[-1]:.1f} MiB, {WORKERS} workers reading {TOUCHED:,} images each",
        flush=True,
    )


def read_detector(file: Path):
    from detector.data.coco import read_coco
    from detector.data.descriptor import Split

    data = read_coco(Split(file.parent, file))

    def touch(rng: np.random.Generator) -> None:
        for i in rng.integers(len(data), size=TOUCHED).tolist():
            data.file_name(i), data.target_boxes(i)

    return touch


def read_pycocotools(file: Path):
    from pycocotools.coco import COCO

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it prints its progress
    coco = COCO(str(file))
    sys.stdout = sys.__stdout__
    ids = list(coco.imgs)

    def touch(rng: np.random.Generator) -> None:
        for i in rng.integers(len(ids), size=TOUCHED).tolist():
            coco.imgs[ids[i]]["file_name"], [a["bbox"] for a in coco.loadAnns(coco.getAnnIds(ids[i]))]

    return touch


READERS = {"detector": read_detector, "pycocotools": read_pycocotools}


def in_fork(touch, seed: int) -> int:
    """Bytes of memory private to a forked process after touch(generator), less those of one that did nothing."""
    idle, busy = (forked_private(work) for work in (lambda: None, lambda: touch(np.random.default_rng(seed))))
    return busy - idle


def forked_private(work) -> int:
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
    """USS in bytes: the pages that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
