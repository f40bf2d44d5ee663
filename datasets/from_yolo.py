"""Convert YOLO annotations (one text file per image, one line `class cx cy w h` per object) to a COCO annotation file.

Coordinates are fractions of the image after its EXIF orientation is applied. An image without a text file is kept as
an image without objects, as in YOLO training. Label files are expected beside the images; where the path has a folder
`images`, they are expected in the folder `labels` in its place.
"""

from pathlib import Path

import yaml
from coco_json import IMAGE_TYPES, CocoWriter, image_size
from command_line import add_drop_option

from detector.utils.cli import ArgumentParser, run
from detector.utils.console import progress_bar
from detector.utils.errors import InputError
from detector.utils.text import counted

FIELDS = ("class", "cx", "cy", "w", "h")


def read_names(file: Path) -> list[str]:
    """The class names in the order of the class numbers: `names:` of a data.yaml, or the lines of a text file.

    Raises InputError where there are none.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix not in (".yaml", ".yml"):
            return [line.strip() for line in text.splitlines() if line.strip()]
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {file}: {' '.join(str(error).split())}") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file} has no `names:`: it must be a list, or a mapping from 0, 1, 2, ... to names")
    return [str(name) for name in names]


def parse_line(line: str, names: list[str], width: int, height: int) -> tuple[str, tuple[float, ...]]:
    """Class name and (x1, y1, x2, y2) box in px of a line, for an image of width and height px. Raises ValueError."""
    fields = line.split()
    if len(fields) != len(FIELDS):
        found = counted(len(fields), "field")
        raise ValueError(f"{found}, expected 5 ({' '.join(FIELDS)}); polygons are not supported")
    try:
        number, (cx, cy, w, h) = int(fields[0]), map(float, fields[1:])
    except ValueError:
        raise ValueError(f"{line.strip()!r} is not an integer and four numbers") from None
    if not 0 <= number < len(names):
        raise ValueError(f"class {number} is not one of the {counted(len(names), 'name')} (0 to {len(names) - 1})")
    if not all(0 <= value <= 1 for value in (cx, cy, w, h)):
        raise ValueError(f"{line.strip()!r}: coordinates must be fractions of the image, 0 to 1, not pixels")
    left, top, right, bottom = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    return names[number], (left * width, top * height, right * width, bottom * height)


def labels_beside(images: Path) -> Path:
    """The folder of the label files: the path with its last `images` replaced by `labels`, or the path itself."""
    parts = list(images.absolute().parts)
    if "images" not in parts:
        return images
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def add_image(coco: CocoWriter, images: Path, name: Path, labels: Path, names: list[str]) -> None:
    """Add an image and the objects in its label file, if there is one."""
    with coco.checking(images / name):
        image = coco.add_image(name.as_posix(), image_size(images / name))
        file = labels / name.with_suffix(".txt")
        lines = file.read_text().splitlines() if file.exists() else []
        for number, line in enumerate(lines, 1):
            if line.strip():
                with coco.checking(f"{file}:{number}"):
                    coco.add_box(image, *parse_line(line, names, image["width"], image["height"]))


def add_folder(coco: CocoWriter, images: Path, labels: Path, names: list[str]) -> None:
    """Add every image below `images`. A label file without an image is an error. Raises InputError."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder")
    found = sorted(p.relative_to(images) for p in images.rglob("*") if p.suffix.lower() in IMAGE_TYPES)
    expected = {name.with_suffix(".txt") for name in found} | {
        Path("classes.txt")
    }  # some tools write the class names there
    for orphan in sorted({path.relative_to(labels) for path in labels.rglob("*.txt")} - expected):
        with coco.checking(labels / orphan):
            raise ValueError(f"a label file without an image in {images}")
    with progress_bar() as shown:
        for name in shown.track(found, description=images.name):
            add_image(coco, images, name, labels, names)


def main():
    parser = ArgumentParser(__doc__)
    parser.add_argument("images", type=Path, help="folder of images, searched with its subfolders")
    parser.add_argument("out", type=Path, help="COCO annotation file to write")
    parser.add_argument(
        "--names",
        type=Path,
        required=True,
        metavar="FILE",
        help="data.yaml with `names:`, or a text file with one class name per line",
    )
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="folder of the label files (default: see above)")
    add_drop_option(parser)
    options = parser.parse_args()
    names = read_names(options.names)
    coco = CocoWriter(names, drop_bad=options.drop_bad)
    add_folder(coco, options.images, options.labels or labels_beside(options.images), names)
    coco.write(options.out, options.images)


if __name__ == "__main__":
    run(main)
