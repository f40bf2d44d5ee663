"""Draw training images as `augment` mixes them (pasting, mosaic, mixup), with the boxes that were added.

python tools/show_augment.py CONFIG [dotted.path=value ...] [--output augment.jpg] [--images 12]

python tools/show_augment.py configs/quickstart.yaml augment.paste={} --output docs/images/paste.jpg
"""

import itertools
from pathlib import Path

from detector.config.file import load_config
from detector.utils.cli import ArgumentParser, run
from detector.utils.disk import check_writable
from detector.utils.errors import InputError


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="experiment file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="such as augment.mosaic=1")
    parser.add_argument("--output", type=Path, default=Path("augment.jpg"), help="picture to write (augment.jpg)")
    parser.add_argument("--images", type=int, default=12, help="how many images (default: 12)")
    args = parser.parse_intermixed_args()
    if args.images < 1 or args.output.suffix.lower() not in (".jpg", ".png"):
        parser.error("--images is at least 1, and --output ends in .jpg or .png")
    check_writable(args.output.parent)
    config = load_config(args.config, args.overrides)

    from PIL import Image

    from detector.evaluation.report.draw import contact_sheet
    from detector.training.augmentation_preview import mixed_images

    pictures = list(itertools.islice(mixed_images(config, width=320), args.images))
    if not pictures:
        raise InputError("augment: no image is changed; try augment.paste={}, augment.mosaic=1 or augment.mixup=1")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(pictures, columns=4)).save(args.output, quality=80)


if __name__ == "__main__":
    run(main)
