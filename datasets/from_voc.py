"""Convert Pascal VOC annotations (a folder of XML files) to a COCO annotation file.

VOC counts pixels from 1, and xmax, ymax are the last pixels inside. In coordinates from the image's edge, a box thus
goes from xmin - 1 to xmax, as in detectron2 and VOC's own devkit (width = xmax - xmin + 1).
An object with xmax = xmin is an error: it is a mouse click rather than an object of one pixel.
Boxes refer to the image before or after its EXIF orientation is applied, whichever has the size in <size>.
A `difficult` object becomes `iscrowd: 1`: evaluation ignores it and detections of it, as in VOC.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from coco_json import IMAGE_TYPES, CocoWriter, image_size
from command_line import add_writing_options

from detector.utils.cli import ArgumentParser, run
from detector.utils.console import progress_bar
from detector.utils.errors import InputError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def parse_object(item: ElementTree.Element) -> tuple[str, tuple[float, ...], bool]:
    """Name, (x1, y1, x2, y2) box in px and difficult flag of an <object>. Raises ValueError for a bad box."""
    try:
        xmin, ymin, xmax, ymax = (float(item.findtext(f"bndbox/{key}")) for key in CORNERS)
    except (TypeError, ValueError):
        raise ValueError("<bndbox> lacks a number in xmin, ymin, xmax or ymax") from None
    if xmax <= xmin or ymax <= ymin:
        raise ValueError(f"box is empty: x {xmin:g} to {xmax:g}, y {ymin:g} to {ymax:g}")
    name = (item.findtext("name") or "").strip()
    return name, (xmin - 1, ymin - 1, xmax, ymax), (item.findtext("difficult") or "0").strip() == "1"


def find_image(images: Path, file: Path, root: ElementTree.Element) -> Path:
    """The image of an XML file: the one with the same stem, as in VOC, or else <filename>. Raises ValueError."""
    candidates = [images / (file.stem + kind) for kind in (*IMAGE_TYPES, *map(str.upper, IMAGE_TYPES))]
    candidates.append(images / (root.findtext("filename") or "").strip())
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(f"its image is missing: no {file.stem}.jpg, .png, ... in {images}")


def stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height in px from <size>; None where it is missing, or 0 as some tools write it."""
    width, height = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    return (width, height) if width and height else None


def add_file(coco: CocoWriter, file: Path, images: Path, root_folder: Path) -> None:
    """Add the image and objects of an XML file; the image's name is relative to root_folder."""
    with coco.checking(file):
        try:
            root = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise ValueError(f"cannot be read as XML: {error}") from None
        path = find_image(images, file, root)
        image = coco.add_image(path.relative_to(root_folder).as_posix(), image_size(path, stated_size(root)))
        for number, item in enumerate(root.iter("object"), 1):
            with coco.checking(f"{file}: object {number}"):
                coco.add_box(image, *parse_object(item))


def read_list(split: Path) -> list[str]:
    """The image stems in an ImageSets/Main list. Raises InputError."""
    try:
        return [line.split()[0] for line in split.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"cannot read the list {split}: {error.strerror}") from None


def add_folder(coco: CocoWriter, annotations: Path, images: Path, split: Path | None, root_folder: Path) -> None:
    """Add the XML files in a folder: those in the list `split`, or all where it is None. Raises InputError."""
    for folder in (annotations, images):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder")
    stems = read_list(split) if split else sorted(path.stem for path in annotations.glob("*.xml"))
    with progress_bar() as shown:
        for stem in shown.track(stems, description=(split or annotations).name):
            add_file(coco, annotations / f"{stem}.xml", images, root_folder)


def add_split(coco: CocoWriter, voc: Path, split: str, images: Path, root_folder: Path) -> None:
    """Add the images in voc/ImageSets/Main/<split>.txt. Raises InputError where one is missing; objects may be bad."""
    names = voc / f"ImageSets/Main/{split}.txt"
    before = len(coco.images)
    add_folder(coco, voc / "Annotations", images, names, root_folder)
    if len(coco.images) - before != len(read_list(names)):
        raise InputError(f"{names} lists images that are missing: {coco.dropped[-1]}")


def main():
    parser = ArgumentParser(__doc__)
    parser.add_argument("annotations", type=Path, help="folder of XML files (VOC: Annotations)")
    parser.add_argument("images", type=Path, help="folder of images (VOC: JPEGImages)")
    parser.add_argument("out", type=Path, help="COCO annotation file to write")
    parser.add_argument(
        "--list",
        type=Path,
        metavar="TXT",
        help="convert only the images in this list, such as ImageSets/Main/train.txt (default: all)",
    )
    add_writing_options(parser)
    options = parser.parse_args()
    coco = CocoWriter(categories_of=options.categories_of, drop_bad=options.drop_bad)
    add_folder(coco, options.annotations, options.images, options.list, options.images)
    coco.write(options.out, options.images)


if __name__ == "__main__":
    run(main)
