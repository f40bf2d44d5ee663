"""Detect objects in images: each image with its boxes drawn, and detections.json (COCO results format).

    python tools/predict.py RUN photo.jpg folder/ 'more/*.png' [--output out/] [--threshold 0.3]

RUN: a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose model.weights names a whole detector.
"""

from pathlib import Path

from detector.utils.cli import ArgumentParser, run


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("run", metavar="RUN", help="run directory, checkpoint or CONFIG")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders (searched through), globs")
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder to write to (default: out/)")
    parser.add_argument("--threshold", type=float, help="scores to report from (default: as chosen on val)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = parser.parse_intermixed_args()
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold} is not between 0 and 1")

    from detector.inference.predict import find_images, predict

    predict(args.run, find_images(args.images), args.output, args.threshold, args.device)


if __name__ == "__main__":
    run(main)
