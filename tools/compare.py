"""Compare runs on the same images: what differs from the first of them, and whether it is more than chance.

    python tools/compare.py RUN RUN ... [--split test] [--dataset other.yaml] [--html compare.html]

Each RUN is a run directory that was evaluated (tools/eval.py; a training evaluates on val itself). Runs that differ
only in their seed are taken together.
"""

from pathlib import Path

from detector.utils.cli import ArgumentParser, run


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, the baseline first")
    parser.add_argument("--split", default="val", help="split they were evaluated on (default: val)")
    parser.add_argument("--dataset", help="dataset descriptor, as given to tools/eval.py")
    parser.add_argument("--html", type=Path, default=Path("out/compare.html"), help="page (default: out/compare.html)")
    args = parser.parse_args()
    if len(set(args.runs)) < 2:
        parser.error("name two runs or more, the baseline first")

    from detector.evaluation.compare import compare
    from detector.evaluation.report.comparison import comparison_lines, write_comparison
    from detector.utils.console import console

    comparison = compare(args.runs, args.split, args.dataset)
    write_comparison(args.html, comparison)
    console.print("\n".join([*comparison_lines(comparison), f"{args.html}: the page"]))


if __name__ == "__main__":
    run(main)
