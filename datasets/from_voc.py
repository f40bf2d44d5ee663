"""Convert Pascal VOC annotations (a folder of XML files) to a COCO annotation file.

VOC counts pixels from 1, and xmax, ymax are the last pixel inside: where 0 is the image's edge, the box goes
from xmin - 1 to xmax. So do detectron2 and VOC's own devkit, whose width is xmax - xmin + 1.
An object with xmax = xmin is taken for a slip of the mouse, not for one pixel, and is an error.
Boxes go by the image as seen or as stored (EXIF orientation), whichever has the size that <size> says.
A `difficult` object becomes `iscrowd: 1`: evaluation neither counts it nor a detection of it, as in VOC.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from coco_json import IMAGE_TYPES, CocoWriter, image_size
from command_line import add_writing_options, progress

from detector.utils.cli import ArgumentParser, run
from detector.utils.errors import InputError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def parse_object(item: ElementTree.Element) -> tuple[str, tuple[float, ...], bool]:
    """The name, the (x1, y1, x2, y2) box in px, and whether it is difficult, of an <object>."""
    try:
        xmin, ymin, xmax, ymax = (float(item.findtext(f"bndbox/{key}")) for key in CORNERS)
    except (TypeError, ValueError):
        raise ValueError("<bndbox> lacks a number in xmin, ymin, xmax or ymax") from None
    if xmax <= xmin or ymax <= ymin:
        raise ValueError(f"box is empty: x {xmin:g} to {xmax:g}, y {ymin:g} to {ymax:g}")
    name = (item.findtext("name") or "").strip()
    return name, (xmin - 1, ymin - 1, xmax, ymax), (item.findtext("difficult") or "0").strip() == "1"


def find_image(images: Path, file: Path, root: ElementTree.Element) -> Path:
    """The image that an XML file describes: of the same stem, as VOC has it, or else its <filename>."""
    candidates = [images / (file.stem + kind) for kind in (*IMAGE_TYPES, *map(str.upper, IMAGE_TYPES))]
    candidates.append(images / (root.findtext("filename") or "").strip())
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(f"its image is missing: no {file.stem}.jpg, .png, ... in {images}")


def stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height in px that the file goes by; None where it says none, or 0 as some tools do."""
    width, height = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    return (width, height) if width and height else None


def add_file(coco: CocoWriter, file: Path, images: Path, root_folder: Path) -> None:
    """Add one XML file's image and objects; the image's name is relative to root_folder."""
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


def listed(split: Path) -> list[str]:
    """The image stems in an ImageSets/Main list."""
    try:
        return [line.split()[0] for line in split.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"cannot read the list {split}: {error.strerror}") from None


def add_folder(coco: CocoWriter, annotations: Path, images: Path, split: Path | None, root_folder: Path) -> None:
    """Add the XML files of a folder: those that the list `split` names, or all."""
    for folder in (annotations, images):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder")
    stems = listed(split) if split else sorted(path.stem for path in annotations.glob("*.xml"))
    with progress() as shown:
        for stem in shown.track(stems, description=(split or annotations).name):
            add_file(coco, annotations / f"{stem}.xml", images, root_folder)


def add_split(coco: CocoWriter, voc: Path, split: str, images: Path, root_folder: Path) -> None:
    """Add the images that voc/ImageSets/Main names; all must be there, though single objects may be bad."""
    names = voc / f"ImageSets/Main/{split}.txt"
    before = len(coco.images)
    add_folder(coco, voc / "Annotations", images, names, root_folder)
    if len(coco.images) - before != len(listed(names)):
        raise InputError(f"{voc} lacks images that {names} names: {coco.dropped[-1]}")


def main():
    parser = ArgumentParser(__doc__)
    parser.add_argument("annotations", type=Path, help="folder of XML files (VOC: Annotations)")
    parser.add_argument("images", type=Path, help="folder of images (VOC: JPEGImages)")
    parser.add_argument("out", type=Path, help="COCO annotation file to write")
    parser.add_argument(
        "--list", type=Path, metavar="TXT", help="only the images it names (ImageSets/Main/*.txt; default: all)"
    )
    add_writing_options(parser)
    options = parser.parse_args()
    coco = CocoWriter(categories_of=options.categories_of, drop_bad=options.drop_bad)
    add_folder(coco, options.annotations, options.images, options.list, options.images)
    coco.write(options.out, options.images)


if __name__ == "__main__":
    run(main)
