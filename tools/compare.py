"""Compare runs on the same images: how each differs from the first, and whether that is more than chance.

    python tools/compare.py RUN RUN ... [--split test] [--dataset other.yaml] [--html compare.html]

Each RUN is a run directory with an evaluation of the split (a training evaluates val, tools/eval.py any split). Runs
that differ only in their seed are compared as one, and how much they differ counts as chance.
"""

from pathlib import Path

from detector.utils.cli import ArgumentParser, run
from detector.utils.disk import check_writable


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, the baseline first")
    parser.add_argument("--split", default="val", help="split of the evaluations to compare (default: val)")
    parser.add_argument("--dataset", help="dataset descriptor, if one was given to tools/eval.py")
    parser.add_argument("--html", type=Path, default=Path("out/compare.html"), help="page (default: out/compare.html)")
    args = parser.parse_args()
    if len(set(args.runs)) < 2:
        parser.error("name two runs or more, the baseline first")

    from detector.evaluation.compare import compare
    from detector.evaluation.report.comparison import comparison_lines, write_comparison
    from detector.utils.console import console

    check_writable(args.html.parent)
    comparison = compare(args.runs, args.split, args.dataset)
    write_comparison(args.html, comparison)
    console.print("\n".join([*comparison_lines(comparison), f"{args.html}: the page"]))


if __name__ == "__main__":
    run(main)
