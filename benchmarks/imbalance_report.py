"""Tables (markdown) and a picture of what `benchmarks/imbalance.py` has run.

python benchmarks/imbalance_report.py [--results docs/imbalance.jsonl] [--picture docs/images/imbalance.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from imbalance import ARMS, BASELINE, about, key_of, read_results
from matplotlib.figure import Figure

FIGURES = ("AP", "AP50", "head", "medium", "tail")
COLOURS = {"head": "0.6", "medium": "C0", "tail": "C3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/imbalance.jsonl"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/imbalance.png"))
    args = parser.parse_args()
    tables = by_dataset(read_results(args.results))
    for dataset, arms in tables.items():
        print(f"{dataset}\n\n" + "\n".join(markdown(arms)) + "\n")
    draw(tables, args.picture)
    print(f"picture: {args.picture}")


def by_dataset(lines: Sequence[dict]) -> dict[str, dict[str, dict[int, dict]]]:
    """dataset → arm → seed → line, of the runs that today's arms and budgets would make, in the order of the arms."""
    tables = {}
    for line in sorted(lines, key=lambda line: (list(ARMS).index(line["arm"]), line["seed"])):
        if key_of(line) == key_of(about(line["dataset"], line["arm"], line["seed"])):
            tables.setdefault(line["dataset"], {}).setdefault(line["arm"], {})[line["seed"]] = line
    return tables


def points(runs: dict[int, dict], figure: str, against: dict[int, dict] | None = None) -> np.ndarray:
    """A figure of an arm over the seeds, in AP points; or its change `against` the runs of another with those seeds."""
    return np.array([100 * (run[figure] - (against[seed][figure] if against else 0)) for seed, run in runs.items()])


def markdown(arms: dict[str, dict[int, dict]]) -> list[str]:
    """A line an arm: mean ± standard deviation over the seeds, and the tail's change against the baseline's."""
    base = arms[BASELINE]
    figures = [figure for figure in FIGURES if figure in base[0]]
    lines = [f"| | runs | {' | '.join(figures)} | tail, change |", "|---" * (len(figures) + 3) + "|"]
    for arm, runs in arms.items():
        cells = [mean_and_spread(points(runs, figure)) for figure in figures]
        change = mean_and_spread(points(runs, "tail", base), sign="+") if arm != BASELINE else ""
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} | {change} |")
    return lines


def mean_and_spread(values: np.ndarray, sign: str = "") -> str:
    """Mean ± standard deviation of a sample; a single value has none."""
    return f"{values.mean():{sign}.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def draw(tables: dict[str, dict[str, dict[int, dict]]], picture: Path) -> None:
    """A panel a dataset, a row an arm: the change of head, medium and tail against the baseline of the same seed; a dot
    a run, a bar their mean. The band is what the tail of the baseline's own runs differs from its mean."""
    most = max(map(len, tables.values()))
    figure = Figure(figsize=(6.5 * len(tables), 1 + 0.42 * most), layout="constrained")
    for panel, (dataset, arms) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        base, rows = arms[BASELINE], {arm: runs for arm, runs in arms.items() if arm != BASELINE}
        own = points(base, "tail") - points(base, "tail").mean()
        panel.axvspan(own.min(), own.max(), color=COLOURS["tail"], alpha=0.12, linewidth=0)
        panel.axvline(0, color="black", linewidth=0.8)
        for row, runs in enumerate(rows.values()):
            for offset, (group, colour) in zip((-0.22, 0, 0.22), COLOURS.items(), strict=True):
                if group in base[0]:
                    change = points(runs, group, base)
                    panel.plot(change, [row + offset] * len(change), "o", color=colour, markersize=3)
                    panel.plot([0, change.mean()], [row + offset] * 2, color=colour, linewidth=3, alpha=0.6)
        panel.set_yticks(range(len(rows)), rows)
        panel.invert_yaxis()
        panel.grid(axis="x", alpha=0.3)
        mean = points(base, "AP").mean()
        panel.set(title=dataset, xlabel=f"AP points against {BASELINE}, uniform (whose AP is {mean:.1f})")
    handles = [panel.plot([], [], color=colour, linewidth=3, label=group)[0] for group, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, title="classes")
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main()
