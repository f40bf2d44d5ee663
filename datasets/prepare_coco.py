"""Download COCO 2017 and unpack it: 1 GB for val2017, 20 GB for train2017, twice as much while unpacking.

Run it again after an interruption: it continues where it stopped, and skips what is complete.
"""

from pathlib import Path

from coco_json import read_json
from command_line import add_output_option
from download import download, unzip

from detector.utils.cli import ArgumentParser, run
from detector.utils.errors import InputError
from detector.utils.text import counted

SOURCE = "http://images.cocodataset.org"
SPLITS = ("val2017", "train2017")


def annotation_file(out: Path, split: str) -> Path:
    """The split's annotation file."""
    return out / f"annotations/instances_{split}.json"


def missing_images(out: Path, split: str) -> list[str]:
    """The file names of the split's images that are not in its folder."""
    there = {path.name for path in (out / split).glob("*")}
    names = [image["file_name"] for image in read_json(annotation_file(out, split))["images"]]
    return [name for name in names if name not in there]


def fetch_annotations(out: Path, source: str) -> None:
    """Download the box annotations of both splits, unless they exist."""
    if all(annotation_file(out, split).exists() for split in SPLITS):
        return
    archive = out / "annotations_trainval2017.zip"
    download(f"{source}/annotations/{archive.name}", archive)
    unzip(archive, out, below="annotations/instances_")
    archive.unlink()


def fetch_images(out: Path, split: str, source: str) -> None:
    """Download the split's images, unless all in its annotation file exist. Raises InputError if some are missing."""
    if not missing_images(out, split):
        print(f"{out / split}: already there")
        return
    archive = out / f"{split}.zip"
    download(f"{source}/zips/{archive.name}", archive)
    unzip(archive, out)
    if missing := missing_images(out, split):
        raise InputError(f"{out / split} lacks {counted(len(missing), 'image')}, such as {missing[0]}: check {archive}")
    archive.unlink()
    print(f"{out / split}: complete")


def main():
    parser = ArgumentParser(__doc__)
    add_output_option(parser, "coco")
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=SPLITS,
        default=SPLITS,
        help="splits whose images to download; val2017 is enough to evaluate (default: both)",
    )
    parser.add_argument("--source", default=SOURCE, metavar="URL", help="server or mirror (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    fetch_annotations(options.out, options.source)
    for split in options.splits:
        fetch_images(options.out, split, options.source)


if __name__ == "__main__":
    run(main)
