"""Draw training images as `augment` mixes them (pasting, mosaic, mixup), with the boxes that were added.

python tools/show_augment.py CONFIG [dotted.path=value ...] [--output augment.jpg] [--images 12]

python tools/show_augment.py configs/quickstart.yaml augment.paste={} --output docs/images/paste.jpg
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from detector.config.file import load_config
from detector.config.schema import Config
from detector.utils.cli import ArgumentParser, run
from detector.utils.errors import InputError


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="experiment file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="e.g. augment.mosaic=1")
    parser.add_argument("--output", type=Path, default=Path("augment.jpg"), help="picture to write (augment.jpg)")
    parser.add_argument("--images", type=int, default=12, help="how many images (default: 12)")
    args = parser.parse_intermixed_args()
    if args.images < 1 or args.output.suffix.lower() not in (".jpg", ".png"):
        parser.error("--images is at least 1, and --output ends in .jpg or .png")
    pictures = list(itertools.islice(mixed(load_config(args.config, args.overrides)), args.images))
    if not pictures:
        raise InputError("augment: no image is changed; try augment.paste={}, augment.mosaic=1 or augment.mixup=1")

    from PIL import Image

    from detector.evaluation.report.draw import contact_sheet

    args.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(pictures, columns=4, cell_width=256)).save(args.output, quality=80)


def mixed(config: Config) -> Iterator:
    """Training images in random order that mixing changes, (H,W,3) uint8 RGB; prints what is mixed."""
    import numpy as np

    from detector.data.mixing.mixer import Mixer
    from detector.data.sample import read_sample
    from detector.data.split import read_split
    from detector.evaluation.report.draw import draw_boxes
    from detector.training.auto import imbalance

    data = read_split(config, "train", check_images=config.data.bad_images == "error")
    chosen = imbalance.choose(config, data)
    mixer = Mixer(data, imbalance.apply(config, chosen).augment)
    print("\n".join([*(chosen.lines() if chosen else []), *mixer.lines()]))
    for index in np.random.default_rng(config.seed).permutation(len(data)).tolist():
        sample = read_sample(data, index)
        image, boxes, labels = mixer.apply(*sample, np.random.default_rng((config.seed, index)))
        if image is not sample[0]:
            added = ~(boxes[:, None] == sample[1][None]).all(axis=2).any(axis=1)
            yield draw_boxes(image, boxes[added], labels, [data.class_names[k] for k in labels[added]])


if __name__ == "__main__":
    run(main)
