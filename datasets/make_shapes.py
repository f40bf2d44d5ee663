"""Draw a synthetic long-tailed detection dataset in COCO format: ten shapes, 100 discs for each diamond.

Every image is drawn by its own generator, seeded by (seed, split, index), so the result depends neither on the number
of processes nor on the other images. Colour and texture are independent of the class; look-alikes without a label
(hearts, broken rings, bursts, ...) are drawn among the objects; one image in twenty has no objects.
"""

import multiprocessing
import os
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from coco_json import read_json, write_json
from command_line import add_output_option, count
from rich.console import Console
from rich.table import Table
from shape_drawing import draw

from detector.utils.cli import ArgumentParser, run
from detector.utils.console import progress_bar
from detector.utils.errors import InputError

GENERATOR = "shapes 2"  # increase the number when the drawing changes, so that older output is drawn again
SPLITS = ("train", "val", "test")
# Category ids have gaps, as COCO's do, so that code that mistakes an id for an index fails here.
CATEGORY_IDS = {
    "disc": 3, "square": 7, "triangle": 11, "ring": 18, "cross": 22,
    "star": 31, "hexagon": 36, "crescent": 47, "arrow": 60, "diamond": 85,
}  # fmt: skip
NAMES = tuple(CATEGORY_IDS)  # most common first
MOST, RATIO = 2.4, 100  # objects per image of the most common class; its count / that of the rarest
STEEPER = 2.5  # > 1: the counts fall faster towards the rare classes, so most classes have hundreds of objects
MEASURABLE = 12  # least number of objects of each class in val and test, for a meaningful AP
EMPTY = 0.05  # fraction of images without objects


def class_counts(images: int, split: str) -> dict[str, int]:
    """Objects of each class: from MOST per image down by RATIO, with log(count) falling as rank ** STEEPER."""
    least = 1 if split == "train" else min(MEASURABLE, images)
    ranks = [rank / (len(NAMES) - 1) for rank in range(len(NAMES))]
    shares = [MOST * RATIO ** -(rank**STEEPER) for rank in ranks]
    return {name: max(least, round(share * images)) for name, share in zip(NAMES, shares, strict=True)}


def plan(images: int, seed: int, split: str) -> tuple[list[list[str]], list[int]]:
    """The class names of the objects in each image, and the images' ids: in random order, with gaps."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    crowd = rng.uniform(0.3, 1.7, images)
    crowd[rng.permutation(images)[: round(EMPTY * images)]] = 0
    labels = [[] for _ in range(images)]
    for name, number in class_counts(images, split).items():
        for index in rng.choice(images, number, p=crowd / crowd.sum()):
            labels[index].append(name)
    return labels, (1 + rng.choice(10 * images, images, replace=False)).tolist()


def start_worker() -> None:
    """Leave Ctrl-C to the main process, end at SIGTERM, and use one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)


def make_one(job: tuple[int, list[str]], folder: Path, seed: int, split: str) -> tuple[dict, list[dict]]:
    """Draw and write an image. Returns its file name, width and height, and its objects (see `add_shapes`)."""
    index, labels = job
    image, objects = draw(labels, seed, SPLITS.index(split), index)
    name = f"{index:06d}.jpg"
    cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return {"file_name": name, "width": image.shape[1], "height": image.shape[0]}, objects


def make_split(out: Path, info: dict, processes: int) -> None:
    """Write a split's images, then its annotation file: where that exists, the split is complete."""
    split, images, seed = info["split"], info["images"], info["seed"]
    labels, ids = plan(images, seed, split)
    folder = out / f"{split}.part"  # renamed when complete, so that an interrupted run is recognised
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    coco = {
        "info": info,
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()],
    }
    with multiprocessing.Pool(processes, start_worker) as pool, progress_bar() as shown:
        task = partial(make_one, folder=folder, seed=seed, split=split)
        drawn = pool.imap(task, enumerate(labels), chunksize=4)
        drawn = shown.track(drawn, images, description=split)
        for image_id, (image, objects) in zip(ids, drawn, strict=True):
            coco["images"].append({"id": image_id, **image})
            for item in objects:
                coco["annotations"].append(
                    {
                        "id": len(coco["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": CATEGORY_IDS[item["name"]],
                        "bbox": item["bbox"],
                        "area": item["area"],
                        "iscrowd": 0,
                    }
                )
        pool.close()  # `with` only terminates the workers, and one that is terminated may hold a lock
        pool.join()
    folder.rename(out / split)
    write_json(annotation_file(out, split), coco)


def annotation_file(out: Path, split: str) -> Path:
    """The split's annotation file."""
    return out / "annotations" / f"{split}.json"


def complete(out: Path, info: dict, overwrite: bool) -> bool:
    """Whether exactly this split exists. One with other settings is refused, or removed with `overwrite`.

    Raises InputError where it is refused, or the files are not of this script.
    """
    folder, file = out / info["split"], annotation_file(out, info["split"])
    if not file.exists():
        if folder.exists():
            raise InputError(f"{folder} exists, but {file} does not: give another --out, or delete the folder")
        return False
    found = read_json(file)
    if not str(found.get("info", {}).get("description", "")).startswith("shapes "):
        raise InputError(f"{file} was not written by this script: give another --out")
    images = [folder / image["file_name"] for image in found["images"]]
    if not overwrite:
        if found["info"] != info:
            raise InputError(
                f"{file} was made with other settings ({found['info']}): add --overwrite, or give another --out"
            )
        if all(image.exists() for image in images):
            return True
    remove(folder, file, images)
    return False


def remove(folder: Path, file: Path, images: list[Path]) -> None:
    """Delete a split's images and annotation file. Raises InputError, and deletes nothing, if other files are there."""
    if foreign := set(folder.glob("*")) - set(images):
        raise InputError(f"{min(foreign)} was not written by this script: move it, or give another --out")
    file.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def counts_table(out: Path) -> Table:
    """A table of the objects of each class in each split, read from the annotation files."""
    table = Table("class", "id", *SPLITS, title=f"objects in {out}")
    found = [read_json(annotation_file(out, split)) for split in SPLITS]
    counts = [Counter(item["category_id"] for item in coco["annotations"]) for coco in found]
    for name, number in CATEGORY_IDS.items():
        table.add_row(name, str(number), *(str(count[number]) for count in counts))
    table.add_section()
    table.add_row("all", "", *(str(count.total()) for count in counts))
    table.add_row("images", "", *(str(len(coco["images"])) for coco in found))
    return table


def main():
    parser = ArgumentParser(__doc__)
    add_output_option(parser, "shapes")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="each seed gives another dataset of the same kind (default: %(default)s)",
    )
    for split, images in zip(SPLITS, (1000, 300, 300), strict=True):
        parser.add_argument(
            f"--{split}", type=count, default=images, metavar="N", help=f"images in {split} (default: {images})"
        )
    parser.add_argument(
        "--processes",
        type=count,
        default=os.cpu_count(),
        metavar="N",
        help="worker processes; the result does not depend on it (default: one per core)",
    )
    parser.add_argument("--overwrite", action="store_true", help="draw splits again that exist already")
    options = parser.parse_args()
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: must be 0 or more")
    for split in SPLITS:
        images = getattr(options, split)
        info = {"description": GENERATOR, "seed": options.seed, "split": split, "images": images}
        if complete(options.out, info, options.overwrite):
            print(f"{options.out / split}: already there")
        else:
            make_split(options.out, info, options.processes)
    Console().print(counts_table(options.out))


if __name__ == "__main__":
    run(main)
