"""Draw how much of a detector's classification loss comes from its hardest anchors, for several gamma.

This is Figure 4 of the focal loss paper (arXiv 1708.02002) for any trained detector.

    python tools/loss_curves.py RUN [--split val] [--output file.png] [--gamma 0 0.5 1 2]

RUN: a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose model.weights names a whole detector.
The picture goes to eval/<split>/loss_curves.png of the run.
"""

from pathlib import Path

from detector.utils.cli import ArgumentParser, run

PICTURES = (".png", ".pdf", ".svg", ".jpg")


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("run", metavar="RUN", help="run directory, checkpoint or CONFIG")
    parser.add_argument("--split", default="val", help="split of the dataset (default: val)")
    parser.add_argument("--output", type=Path, help="picture (default: eval/<split>/loss_curves.png of the run)")
    parser.add_argument("--gamma", type=float, nargs="+", default=(0, 0.5, 1, 2), help="default: 0 0.5 1 2")
    args = parser.parse_args()
    if not all(0 <= gamma < float("inf") for gamma in args.gamma):
        parser.error("--gamma: numbers from 0 on, e.g. 0 0.5 1 2")
    if args.output and args.output.suffix.lower() not in PICTURES:
        parser.error(f"--output {args.output}: a picture ends in one of {', '.join(PICTURES)}")

    from detector.inference.detector import load
    from detector.inference.loss_curves import loss_curves

    loss_curves(load(args.run), args.run, args.split, args.output, args.gamma)


if __name__ == "__main__":
    run(main)
