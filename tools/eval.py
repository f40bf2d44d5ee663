"""Evaluate a detector: the COCO table, AP of every class, and eval/<split>/ with figures, detections and pictures.

    python tools/eval.py RUN [dotted.path=value ...] [--split test] [--dataset other.yaml]

RUN: a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose model.weights names a whole detector.
"""

from detector.utils.cli import ArgumentParser, run


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("run", metavar="RUN", help="run directory, checkpoint or CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="e.g. eval.backend=pycocotools")
    parser.add_argument("--split", default="val", help="split of the dataset (default: val)")
    parser.add_argument("--dataset", help="dataset descriptor (default: the one it was trained with)")
    args = parser.parse_intermixed_args()

    from detector.inference.detector import load
    from detector.inference.evaluate import evaluate_detector

    evaluate_detector(load(args.run, overrides=args.overrides), args.run, args.split, args.dataset)


if __name__ == "__main__":
    run(main)
