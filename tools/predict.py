"""Detect objects in images: each image with its boxes drawn, and detections.json (COCO results format).

    python tools/predict.py RUN photo.jpg folder/ 'more/*.png' [dotted.path=value ...] [--output out/] [--threshold 0.3]

RUN: a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose model.weights names a whole detector.
"""

from glob import glob
from pathlib import Path

from detector.config.file import is_override
from detector.utils.cli import ArgumentParser, run


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("run", metavar="RUN", help="run directory, checkpoint or CONFIG")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE | path=value", help="images, folders (searched through), globs; settings"
    )
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder to write to (default: out/)")
    parser.add_argument("--threshold", type=float, help="least score to report (default: as chosen on val)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = parser.parse_intermixed_args()
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold} is not between 0 and 1")
    is_file = {word: Path(word).exists() or bool(glob(word, recursive=True)) for word in args.images}
    overrides = [word for word in args.images if is_override(word) and not is_file[word]]
    images = [word for word in args.images if word not in overrides]
    if not images:
        parser.error(f"name images, folders or globs; {', '.join(overrides)} sets a setting")

    from detector.inference.predict import find_images, predict

    predict(args.run, find_images(images), args.output, args.threshold, args.device, overrides)


if __name__ == "__main__":
    run(main)
