"""Download Pascal VOC (2.8 GB) and convert it to COCO, by the usual protocol "07+12".

train is VOC2007 and VOC2012 trainval (16551 images), test is VOC2007 test (4952 images). The protocol has no val
split: the descriptor uses test for both. To use a VOCdevkit that you have, link it to <out>/VOCdevkit.
`difficult` objects become `iscrowd: 1` and are ignored in evaluation, as in VOC; see from_voc.py.
"""

from pathlib import Path

from coco_json import CocoWriter
from command_line import add_output_option
from from_voc import add_split

from detector.utils.cli import ArgumentParser, run
from detector.utils.errors import InputError

NAMES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
SPLITS = {"train": (("2007", "trainval"), ("2012", "trainval")), "test": (("2007", "test"),)}


def fetch(out: Path, year: str, part: str) -> None:
    """Download a part of VOC to out/VOCdevkit, unless its list of images exists. Raises InputError."""
    if (out / f"VOCdevkit/VOC{year}/ImageSets/Main/{part}.txt").exists():
        return
    from torchvision.datasets import VOCDetection  # the import takes seconds

    try:
        VOCDetection(str(out), year=year, image_set=part, download=True)  # checks the MD5 sum
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot download VOC{year} {part}: {error}; if you have a VOCdevkit, link it to {out / 'VOCdevkit'}"
        ) from None


def convert(out: Path, split: str) -> None:
    """Write the annotation file of a split; image names are relative to out/VOCdevkit."""
    devkit = out / "VOCdevkit"
    coco = CocoWriter(NAMES, drop_bad=True)
    for year, part in SPLITS[split]:
        voc = devkit / f"VOC{year}"
        add_split(coco, voc, part, voc / "JPEGImages", devkit)
    coco.write(out / f"annotations/{split}.json", devkit)


def main():
    parser = ArgumentParser(__doc__)
    add_output_option(parser, "voc")
    options = parser.parse_args()
    for split, parts in SPLITS.items():
        if (options.out / f"annotations/{split}.json").exists():
            print(f"{options.out / f'annotations/{split}.json'}: already there")
            continue
        for year, part in parts:
            fetch(options.out, year, part)
        convert(options.out, split)


if __name__ == "__main__":
    run(main)
