"""Draw a synthetic long-tailed detection dataset in COCO format: ten shapes, 100:1 from first to last.

Every image is drawn by its own generator, seeded by (seed, split, index): the result depends neither on the
number of processes nor on the other images. Colour and texture say nothing about the class; look-alikes
without a label (hearts, broken rings, bursts, ...) stand among the objects; one image in twenty is empty.
"""

import math
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
from command_line import PROJECT, BadInput, Parser, count, progress, run
from rich.console import Console
from rich.table import Table

GENERATOR = "shapes 1"  # raise it when the drawing changes: older output is then no longer "already there"
SPLITS = ("train", "val", "test")
# Category ids have gaps, as COCO's do, so that code that takes an id for an index fails here and not later.
CATEGORY_IDS = {"disc": 3, "square": 7, "triangle": 11, "ring": 18, "cross": 22,
                "hexagon": 31, "diamond": 36, "arrow": 47, "crescent": 60, "star": 85}
NAMES = tuple(CATEGORY_IDS)  # most common first
MOST, RATIO = 3.5, 100  # objects of the commonest class per image; commonest / rarest
MEASURABLE = 12  # objects of each class in val and test, at least, for an AP that means something
EMPTY = 0.05  # fraction of images without objects
SIZES = ((256, 192), (192, 256), (224, 224), (256, 256), (256, 160), (208, 256))  # width, height in px
MIN_SIDE = 8  # px, either side of a box
MAX_COVERED = 0.4  # fraction of an object that later ones may hide
SUPERSAMPLE = 4  # masks are drawn this much larger, then averaged down


# ------------------------------------------------------------------- outlines
# An outline is a list of polygons, (P, 2) float arrays around the origin, the outermost first; where two
# overlap is a hole (even-odd).

def arc(start: float, stop: float, radius: float = 1.0, centre=(0.0, 0.0), points: int = 48) -> np.ndarray:
    angle = np.linspace(start, stop, points)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius + centre


def regular(corners: int) -> np.ndarray:
    return arc(0, 2 * math.pi * (1 - 1 / corners), points=corners)


def spiked(points: int, inner: float) -> np.ndarray:
    """A star whose inner corners lie at radius `inner`."""
    corners = regular(2 * points)
    corners[1::2] *= inner
    return corners


def thick_arc(start: float, stop: float, inner: float) -> np.ndarray:
    return np.concatenate([arc(start, stop), arc(stop, start, inner)])


def cross(arm: float) -> np.ndarray:
    """A plus sign, its arms `arm` half-wide."""
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def arrow(rng) -> np.ndarray:
    shaft, neck = rng.uniform(0.16, 0.26), rng.uniform(-0.1, 0.2)
    head = rng.uniform(0.6, 0.75)
    half = [(-1, shaft), (neck, shaft), (neck, head), (1, 0)]
    return np.array(half + [(x, -y) for x, y in half[-2::-1]])


def crescent(rng) -> np.ndarray:
    """A disc with a disc of radius `bite`, `shift` to the right, taken out."""
    bite, shift = rng.uniform(0.75, 0.9), rng.uniform(0.4, 0.55)
    x = (1 + shift**2 - bite**2) / (2 * shift)
    y = math.sqrt(1 - x**2)
    outer, inner = math.atan2(y, x), math.atan2(y, x - shift)
    edge = arc(2 * math.pi - inner, inner, bite, (shift, 0))
    return np.concatenate([arc(outer, 2 * math.pi - outer), edge])


def heart(rng) -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t)**3, -y], 1) / 16


def blob(rng) -> np.ndarray:
    """A smooth lump: a circle whose radius swings with the angle."""
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    swing = sum(rng.uniform(0.1, 0.2) * np.sin(k * t + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 4))
    return np.stack([np.cos(t), np.sin(t)], 1) * (1 + swing)[:, None]


def open_outline(rng) -> np.ndarray:
    """The thin outline of a square or triangle, one side of it half missing."""
    corners = regular(int(rng.integers(3, 5)))
    path = np.concatenate([corners, (corners[-1:] + corners[:1]) / 2])
    return np.concatenate([path, path[::-1] * 0.8])


SHAPES = {
    "disc": lambda rng: [regular(64)],
    "square": lambda rng: [regular(4)],
    "triangle": lambda rng: [regular(3)],
    "ring": lambda rng: [regular(64), regular(64) * rng.uniform(0.45, 0.7)],
    "cross": lambda rng: [cross(rng.uniform(0.25, 0.4))],
    "hexagon": lambda rng: [regular(6)],
    "diamond": lambda rng: [regular(4) * (1, rng.uniform(0.5, 0.62))],
    "arrow": lambda rng: [arrow(rng)],
    "crescent": lambda rng: [crescent(rng)],
    "star": lambda rng: [spiked(5, rng.uniform(0.38, 0.48))],
}
LOOKALIKES = (
    lambda rng: [heart(rng)],
    lambda rng: [blob(rng)],
    lambda rng: [open_outline(rng)],
    lambda rng: [np.array([(-1, 0.6), (1, 0.6), (0.45, -0.6), (-0.45, -0.6)])],  # trapezoid
    lambda rng: [arc(0, math.pi)],  # half-disc
    lambda rng: [thick_arc(0, rng.uniform(1.2, 1.6) * math.pi, rng.uniform(0.55, 0.7))],  # broken ring
    lambda rng: [spiked(int(rng.integers(7, 11)), rng.uniform(0.5, 0.7))],  # burst
    lambda rng: [np.array([(-1, -1), (1, -1), (1, -0.4), (0.3, -0.4), (0.3, 1), (-0.3, 1), (-0.3, -0.4),
                           (-1, -0.4)])],  # letter T
)


# ------------------------------------------------------------------- drawing

def turned(outline: list[np.ndarray], rng) -> list[np.ndarray]:
    """The outline squashed a little, then rotated, both by chance."""
    squash = np.diag(np.exp(rng.uniform(-0.08, 0.08, 2)))
    cos, sin = np.cos(angle := rng.uniform(0, 2 * math.pi)), np.sin(angle)
    matrix = squash @ np.array([(cos, sin), (-sin, cos)])
    return [polygon @ matrix for polygon in outline]


def placed(outline: list[np.ndarray], side: float, width: int, height: int, rng) -> list[np.ndarray]:
    """The outline with its box's longer side `side` px, somewhere wholly inside the image, in pixels."""
    low, high = outline[0].min(0), outline[0].max(0)
    scale = max(side / (high - low).max(), MIN_SIDE / (high - low).min())
    room = np.array([width, height]) - scale * (high - low)
    corner = rng.uniform(0, 1, 2) * room
    return [(polygon - low) * scale + corner for polygon in outline]


def window_of(outline: list[np.ndarray]) -> tuple[slice, slice]:
    """The rows and columns of pixels that the outline touches."""
    x0, y0 = np.floor(outline[0].min(0) + 1e-6).astype(int)  # an edge on the border may be off by rounding
    x1, y1 = np.ceil(outline[0].max(0) - 1e-6).astype(int)
    return slice(y0, y1), slice(x0, x1)


def mask_of(outline: list[np.ndarray]) -> np.ndarray:
    """The outline's coverage of each pixel of its window, (h, w) float32 in 0..1."""
    rows, columns = window_of(outline)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    large = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    corners = [((polygon - (columns.start, rows.start)) * SUPERSAMPLE - 0.5) * 256 for polygon in outline]
    cv2.fillPoly(large, [np.round(polygon).astype(np.int32) for polygon in corners], 255, shift=8)
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)


def noise(width: int, height: int, rng) -> np.ndarray:
    """Noise of several scales, (height, width) float32 in about 0..1."""
    field = np.zeros((height, width), np.float32)
    for cells in (3, 8, 24, 80):
        grid = (rng.uniform(0, 1, (cells, cells)) * rng.uniform(0.1, 0.4)).astype(np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return field


def ramp(width: int, height: int, rng) -> np.ndarray:
    """A gradient in a random direction, (height, width) float32 in -1..1."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j].astype(np.float32)
    return (x * math.cos(angle) + y * math.sin(angle)).astype(np.float32)


def background(width: int, height: int, rng) -> np.ndarray:
    """Two colours mixed by noise and a gradient, with soft blobs and lines: (height, width, 3) float32."""
    first, second = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    second = first + np.float32(rng.uniform(0.2, 0.8)) * (second - first)
    mix = noise(width, height, rng) + np.float32(rng.uniform(0, 0.3)) * ramp(width, height, rng)
    image = first + (second - first) * mix[..., None]
    for _ in range(rng.integers(0, 7)):
        layer = np.zeros((height, width), np.float32)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(8, 50)), int(rng.integers(8, 50)))
        cv2.ellipse(layer, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 0.6)), -1)
        layer = cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(3, 9)))[..., None]
        image += (rng.uniform(0, 255, 3).astype(np.float32) - image) * layer
    for _ in range(rng.integers(0, 9)):
        ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        colour = tuple(image[ends[0][1], ends[0][0]].astype(float) + rng.uniform(-60, 60, 3))
        cv2.line(image, *ends, colour, int(rng.integers(1, 4)))
    return image


def texture(width: int, height: int, colour: np.ndarray, rng) -> np.ndarray:
    """A fill around `colour`, (height, width, 3) float32: plain, shaded, mottled, or striped."""
    kind = rng.integers(4)
    if kind == 0:
        pattern = np.zeros((height, width), np.float32)
    elif kind == 1:
        pattern = ramp(width, height, rng)
    elif kind == 2:
        pattern = 2 * noise(width, height, rng) - 1
    else:
        pattern = np.sin(ramp(width, height, rng) * np.float32(rng.uniform(6, 20)))
    return colour + pattern[..., None] * rng.uniform(-45, 45, 3).astype(np.float32)


def paint(image: np.ndarray, mask: np.ndarray, rng) -> None:
    """Fill the mask, in place, in that of three random colours which differs most from what is there."""
    behind = np.average(image.reshape(-1, 3), 0, mask.ravel())
    colours = rng.uniform(0, 255, (3, 3)).astype(np.float32)
    colour = colours[np.abs(colours - behind).sum(1).argmax()]
    image += (texture(image.shape[1], image.shape[0], colour, rng) - image) * mask[..., None]


def add_shapes(image: np.ndarray, labels: list[str | None], rng) -> list[dict]:
    """Draw shapes one over the other, in place, hiding no earlier object too much; None: some look-alike.

    Returns the objects: `name`, `bbox` (x, y, w, h in px) of the whole shape, hidden parts included, and
    `area` (px²) of its mask.
    """
    height, width = image.shape[:2]
    objects, visible = [], []  # visible: for each object, how much of every pixel of the image still shows it
    for label in labels:
        make = SHAPES[label] if label else LOOKALIKES[rng.integers(len(LOOKALIKES))]
        outline = turned(make(rng), rng)
        side = math.exp(rng.uniform(math.log(14), math.log(min(width, height) / 2)))
        while True:
            candidate = placed(outline, side, width, height, rng)
            window, mask = window_of(candidate), mask_of(candidate)
            hidden = [float((seen[window] * mask).sum()) for seen in visible]
            if all(old["area"] * (1 - MAX_COVERED) <= float(seen.sum()) - loss
                   for old, seen, loss in zip(objects, visible, hidden, strict=True)):
                break
            side = max(side * 0.95, MIN_SIDE)
        paint(image[window], mask, rng)
        for seen in visible:
            seen[window] *= 1 - mask
        if label:
            low, high = candidate[0].min(0), candidate[0].max(0)
            box = [round(float(v), 2) for v in (*low, *(high - low))]
            objects.append({"name": label, "bbox": box, "area": round(float(mask.sum()), 1)})
            visible.append(np.zeros((height, width), np.float32))
            visible[-1][window] = mask
    return objects


def draw(labels: list[str], seed: int, split: int, index: int) -> tuple[np.ndarray, list[dict]]:
    """One image, (H, W, 3) uint8 BGR, holding an object for each label, and its objects."""
    rng = np.random.default_rng([seed, split, 1 + index])  # 1 +: [seed, split, 0] seeds as [seed, split] does
    width, height = SIZES[rng.integers(len(SIZES))]
    image = background(width, height, rng)
    shapes = [*labels, *[None] * int(rng.integers(1, 5))]
    objects = add_shapes(image, [shapes[i] for i in rng.permutation(len(shapes))], rng)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.3)))
    image += rng.normal(0, rng.uniform(1, 10), image.shape).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), objects


# ------------------------------------------------------------------- the dataset

def class_counts(images: int, split: str) -> dict[str, int]:
    """Objects of each class: a geometric fall from MOST per image, by RATIO in all."""
    least = 1 if split == "train" else min(MEASURABLE, images)
    fall = RATIO ** (-1 / (len(NAMES) - 1))
    return {name: max(least, round(MOST * images * fall**rank)) for rank, name in enumerate(NAMES)}


def plan(images: int, seed: int, split: str) -> tuple[list[list[str]], list[int]]:
    """The labels of each image, and the images' ids: shuffled, with gaps."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    crowd = rng.uniform(0.3, 1.7, images)
    crowd[rng.permutation(images)[:round(EMPTY * images)]] = 0
    labels = [[] for _ in range(images)]
    for name, number in class_counts(images, split).items():
        for index in rng.choice(images, number, p=crowd / crowd.sum()):
            labels[index].append(name)
    return labels, (1 + rng.choice(10 * images, images, replace=False)).tolist()


def start_worker() -> None:
    """Ctrl-C is the parent's to handle, and one thread a process is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def make_one(job: tuple[int, list[str]], folder: Path, seed: int, split: str) -> tuple[dict, list[dict]]:
    """Draw and write one image; the width, height and file name, and the objects, for the annotation file."""
    index, labels = job
    image, objects = draw(labels, seed, SPLITS.index(split), index)
    name = f"{index:06d}.jpg"
    cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return {"file_name": name, "width": image.shape[1], "height": image.shape[0]}, objects


def make_split(out: Path, info: dict, processes: int) -> None:
    """Write one split's images, then its annotation file: where that stands, the split is complete."""
    split, images, seed = info["split"], info["images"], info["seed"]
    labels, ids = plan(images, seed, split)
    folder = out / f"{split}.part"  # gets its name when complete: a run that was stopped leaves nothing in doubt
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    coco = {"info": info, "images": [], "annotations": [],
            "categories": [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]}
    with multiprocessing.Pool(processes, start_worker) as pool, progress() as shown:
        task = partial(make_one, folder=folder, seed=seed, split=split)
        drawn = pool.imap(task, enumerate(labels), chunksize=4)
        drawn = shown.track(drawn, images, description=split)
        for image_id, (image, objects) in zip(ids, drawn, strict=True):
            coco["images"].append({"id": image_id, **image})
            for item in objects:
                coco["annotations"].append({
                    "id": len(coco["annotations"]) + 1, "image_id": image_id,
                    "category_id": CATEGORY_IDS[item["name"]], "bbox": item["bbox"], "area": item["area"],
                    "iscrowd": 0})
    folder.rename(out / split)
    write_json(annotation_file(out, split), coco)


def annotation_file(out: Path, split: str) -> Path:
    return out / "annotations" / f"{split}.json"


def complete(out: Path, info: dict, overwrite: bool) -> bool:
    """Whether this very split stands there; another of ours is refused, or removed if told to overwrite."""
    folder, file = out / info["split"], annotation_file(out, info["split"])
    if not file.exists():
        if folder.exists():
            raise BadInput(f"{folder} exists, but {file} does not: give another --out, or delete the folder")
        return False
    found = read_json(file)
    if not str(found.get("info", {}).get("description", "")).startswith("shapes "):
        raise BadInput(f"{file} was not written by this script: give another --out")
    images = [folder / image["file_name"] for image in found["images"]]
    if not overwrite:
        if found["info"] != info:
            raise BadInput(f"{file} was made with other settings ({found['info']}): "
                           "give --overwrite, or another --out")
        if all(image.exists() for image in images):
            return True
    remove(folder, file, images)
    return False


def remove(folder: Path, file: Path, images: list[Path]) -> None:
    """Delete a split: exactly what its annotation file names, never a user's own files beside it."""
    if foreign := set(folder.glob("*")) - set(images):
        raise BadInput(f"{min(foreign)} was not written by this script: move it, or give another --out")
    file.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def counts_table(out: Path) -> Table:
    """Objects of each class in each split, as the annotation files have them."""
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
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "data/shapes", metavar="FOLDER",
                        help="folder to write to (default: data/shapes of the project)")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="another seed, another dataset of the same kind (default: %(default)s)")
    for split, images in zip(SPLITS, (1000, 300, 300), strict=True):
        parser.add_argument(f"--{split}", type=count, default=images, metavar="N",
                            help=f"images in {split} (default: {images})")
    parser.add_argument("--processes", type=count, default=os.cpu_count(), metavar="N",
                        help="drawing at a time, for the same result (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="draw again what is there already")
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
