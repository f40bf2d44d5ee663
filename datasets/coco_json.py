"""COCO annotation files: reading, writing, and the strict writer that all converters share.

The `supervision` library is not used: its errors name neither file nor line, and it ignores VOC's `difficult` flag.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from detector.data.image import orientation
from detector.utils.atomic import replacing
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean
from detector.utils.text import counted

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ROUNDING = 1.0  # px: a box that exceeds its image by at most this was rounded by some tool; it is clipped
SHOWN = 10  # errors printed of those left out


def read_json(file: Path) -> dict:
    """The JSON object in the file. Raises InputError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a COCO file: it holds a {type(content).__name__}, not an object")
    return content


def write_json(file: Path, content: dict) -> None:
    """Write a JSON file completely or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        stream.write(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())


def image_size(file: Path, stated: tuple[int, int] | None = None) -> tuple[int, int]:
    """Width and height in px of the image after it is turned upright by its EXIF orientation.

    stated: the size in the annotation file, or None. It may also be that of the image as stored, and is then returned.
    Raises ValueError where the image cannot be read, or has another size than stated.
    """
    try:
        with Image.open(file) as image:
            stored = image.size
            upright = stored[::-1] if orientation(image) >= 5 else stored
    except Exception as error:  # Pillow raises exceptions of many types
        raise ValueError(f"cannot read image {file}: {getattr(error, 'strerror', None) or error}") from None
    if stated not in (None, upright, stored):
        raise ValueError(
            f"the annotation states a size of {stated[0]}x{stated[1]}, but {file} is {upright[0]}x{upright[1]}"
        )
    return stated or upright


def clipped(box: tuple[float, ...], width: int, height: int) -> tuple[float, float, float, float]:
    """The (x1, y1, x2, y2) box in px, clipped to the image.

    Raises ValueError where it is not finite, is empty, or exceeds the image by more than ROUNDING.
    """
    x1, y1, x2, y2 = box
    if not all(math.isfinite(value) for value in box):
        raise ValueError(f"box {box} has a coordinate that is not finite")
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"box is empty: x {x1:g} to {x2:g}, y {y1:g} to {y2:g}")
    if min(x1, y1) < -ROUNDING or x2 > width + ROUNDING or y2 > height + ROUNDING:
        raise ValueError(f"box x {x1:g} to {x2:g}, y {y1:g} to {y2:g} is outside its image, {width}x{height}")
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


class CocoWriter:
    """Collects images and boxes, checks each, and writes them as a COCO annotation file.

    names: the classes, in order; their ids become 1..K. None: the classes that occur, sorted.
    categories_of: another COCO file, whose categories and ids are used, so that train and val agree.
    drop_bad: leave out bad images and boxes, count and name them, instead of stopping at the first.

    Raises InputError where `categories_of` has no categories.
    """

    def __init__(self, names: list[str] | None = None, categories_of: Path | None = None, drop_bad: bool = False):
        if categories_of:
            try:
                self.ids = {item["name"]: item["id"] for item in read_json(categories_of)["categories"]}
            except (KeyError, TypeError):
                raise InputError(f"{categories_of} has no COCO categories: give an annotation file") from None
        else:
            self.ids = {name: number for number, name in enumerate(names, 1)} if names else None
        self.drop_bad = drop_bad
        self.dropped: list[str] = []
        self.images: list[dict] = []
        self.objects: list[dict] = []

    @contextmanager
    def checking(self, where: object) -> Iterator[None]:
        """Turns a ValueError inside into an InputError at `where`, or, with `drop_bad`, notes it and goes on."""
        try:
            yield
        except InputError:  # its message has a place already
            raise
        except ValueError as error:
            if not self.drop_bad:
                raise InputError(f"{where}: {error} (--drop-bad leaves out bad images and boxes)") from None
            self.dropped.append(f"{where}: {error}")

    def add_image(self, name: str, size: tuple[int, int]) -> dict:
        """Add an image of (width, height) px. Returns its COCO entry, for `add_box`."""
        width, height = size
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": width, "height": height})
        return self.images[-1]

    def add_box(self, image: dict, name: str, box: tuple[float, ...], crowd: bool = False) -> None:
        """Add an object of class `name` with the box (x1, y1, x2, y2) in px. Raises ValueError where either is bad."""
        if not name:
            raise ValueError("the class name is empty")
        if self.ids is not None and name not in self.ids:
            raise ValueError(f"unknown class {name!r}; {did_you_mean(name, self.ids)}")
        x1, y1, x2, y2 = (round(value, 3) for value in clipped(box, image["width"], image["height"]))
        self.objects.append(
            {
                "id": len(self.objects) + 1,
                "image_id": image["id"],
                "category_id": name,
                "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
                "area": round((x2 - x1) * (y2 - y1), 3),
                "iscrowd": int(crowd),
            }
        )

    def write(self, file: Path, images: Path) -> None:
        """Write the annotation file and print what is in it and what was left out. Raises InputError without images."""
        if not self.images:
            raise InputError(f"no images found, so {file} is not written")
        ids = self.ids or {
            name: number for number, name in enumerate(sorted({item["category_id"] for item in self.objects}), 1)
        }
        write_json(
            file,
            {
                "images": self.images,
                "annotations": [{**item, "category_id": ids[item["category_id"]]} for item in self.objects],
                "categories": [{"id": number, "name": name} for name, number in ids.items()],
            },
        )
        empty = len(self.images) - len({item["image_id"] for item in self.objects})
        print(
            f"{file}: {counted(len(self.images), 'image')} ({empty} without objects), "
            f"{counted(len(self.objects), 'object')}{f', {len(self.dropped)} bad left out' if self.drop_bad else ''}"
        )
        for line in self.dropped[:SHOWN]:
            print(f"left out: {line}")
        if len(self.dropped) > SHOWN:
            print(f"left out: {len(self.dropped) - SHOWN} more")
        print(f"classes: {', '.join(ids)}")
        print(f"for the dataset's YAML: {{images: {images}, annotations: {file}}}")
