"""Download BCCD (364 photographs of blood cells, 3 classes) and convert it from VOC to COCO.

The splits are those of the dataset itself (ImageSets/Main): 205 train, 87 val, 72 test images. Empty boxes (one in
train, one in val) are left out and counted.
"""

import shutil
import tempfile
from pathlib import Path

from coco_json import CocoWriter
from command_line import add_output_option
from download import download, unzip
from from_voc import add_split

from detector.utils.cli import ArgumentParser, run
from detector.utils.errors import InputError

SOURCE = "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip"
NAMES = ["RBC", "WBC", "Platelets"]
SPLITS = ("train", "val", "test")


def find_voc(folder: Path) -> Path:
    """The folder with the dataset's files: this one, or one at most two levels below. Raises InputError."""
    for candidate in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
        if (candidate / "ImageSets/Main/train.txt").is_file():
            return candidate
    raise InputError(f"{folder} has no ImageSets/Main/train.txt: is it a clone of BCCD_Dataset?")


def convert(voc: Path, out: Path) -> None:
    """Copy the images and write an annotation file for each split."""
    images = out / "JPEGImages"
    shutil.copytree(voc / "JPEGImages", images, dirs_exist_ok=True)
    for split in SPLITS:
        coco = CocoWriter(NAMES, drop_bad=True)
        add_split(coco, voc, split, images, images)
        coco.write(out / f"annotations/{split}.json", images)


def main():
    parser = ArgumentParser(__doc__)
    add_output_option(parser, "bccd")
    parser.add_argument(
        "--source",
        default=SOURCE,
        metavar="URL|FOLDER",
        help="a clone of BCCD_Dataset, or the URL of its zip (default: %(default)s)",
    )
    options = parser.parse_args()
    if all((options.out / f"annotations/{split}.json").exists() for split in SPLITS):
        print(f"{options.out}: already there")
    elif Path(options.source).is_dir():
        convert(find_voc(Path(options.source)), options.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            download(options.source, Path(folder) / "bccd.zip")
            unzip(Path(folder) / "bccd.zip", Path(folder))
            convert(find_voc(Path(folder)), options.out)


if __name__ == "__main__":
    run(main)
