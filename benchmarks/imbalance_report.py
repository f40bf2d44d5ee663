"""Tables (markdown) and a picture of what `benchmarks/imbalance.py` has run.

python benchmarks/imbalance_report.py [--results docs/imbalance.jsonl] [--picture docs/images/imbalance.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from imbalance import ARMS, BASELINE, read_results
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


def by_dataset(lines: Sequence[dict]) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """dataset → arm → figure → its values over the seeds, in AP points (0..100)."""
    tables = {}
    for line in sorted(lines, key=lambda line: list(ARMS).index(line["arm"])):
        arm = tables.setdefault(line["dataset"], {}).setdefault(line["arm"], {})
        for figure in FIGURES:
            if figure in line:
                arm[figure] = np.append(arm.get(figure, []), 100 * line[figure])
    return tables


def markdown(arms: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """A line an arm: mean ± standard deviation over the seeds, and the tail's change against the baseline."""
    figures = [figure for figure in FIGURES if figure in arms[BASELINE]]
    lines = [f"| | runs | {' | '.join(figures)} | tail against {BASELINE} |", "|---" * (len(figures) + 3) + "|"]
    for arm, values in arms.items():
        cells = [mean_and_spread(values[figure]) for figure in figures]
        change = values["tail"].mean() - arms[BASELINE]["tail"].mean()
        lines.append(f"| {arm} | {len(values['AP'])} | {' | '.join(cells)} | {change:+.1f} |")
    return lines


def mean_and_spread(values: np.ndarray) -> str:
    """Mean ± standard deviation of a sample; a single value has none."""
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def draw(tables: dict[str, dict[str, dict[str, np.ndarray]]], picture: Path) -> None:
    """A panel a dataset, a row an arm: the change of head, medium and tail against the baseline's mean; a dot a run, a
    bar their mean. The band is the range of the baseline's own runs of the tail."""
    most = max(map(len, tables.values()))
    figure = Figure(figsize=(6.5 * len(tables), 1 + 0.42 * most), layout="constrained")
    for panel, (dataset, arms) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        base = {group: values.mean() for group, values in arms[BASELINE].items()}
        own = arms[BASELINE]["tail"] - base["tail"]
        panel.axvspan(own.min(), own.max(), color=COLOURS["tail"], alpha=0.12, linewidth=0)
        panel.axvline(0, color="black", linewidth=0.8)
        for row, values in enumerate(arms.values()):
            for offset, (group, colour) in zip((-0.22, 0, 0.22), COLOURS.items(), strict=True):
                if group in values:
                    change = values[group] - base[group]
                    panel.plot(change, [row + offset] * len(change), "o", color=colour, markersize=3)
                    panel.plot([0, change.mean()], [row + offset] * 2, color=colour, linewidth=3, alpha=0.6)
        panel.set_yticks(range(len(arms)), arms)
        panel.invert_yaxis()
        panel.grid(axis="x", alpha=0.3)
        panel.set(title=dataset, xlabel=f"AP points against {BASELINE}, uniform (mean AP {base['AP']:.1f})")
    handles = [panel.plot([], [], color=colour, linewidth=3, label=group)[0] for group, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, title="classes")
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main()
