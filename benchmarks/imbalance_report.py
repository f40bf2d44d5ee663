"""Markdown tables and a picture of the runs of benchmarks/imbalance.py.

python benchmarks/imbalance_report.py [--results docs/imbalance.jsonl] [--picture docs/images/imbalance.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ablation import FIGURES, key_of, mean_and_spread, points
from imbalance import ARMS, BASELINE, description
from matplotlib.figure import Figure

from detector.pages.palette import GROUP_COLOURS
from detector.utils.json_lines import read_json_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/imbalance.jsonl"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/imbalance.png"))
    args = parser.parse_args()
    tables = by_dataset(read_json_lines(args.results))
    for dataset, arms in tables.items():
        print(f"{dataset}\n\n" + "\n".join(markdown(arms)) + "\n")
    draw({dataset: arms for dataset, arms in tables.items() if len(arms) > 2}, args.picture)
    print(f"picture: {args.picture}")


def by_dataset(lines: Sequence[dict]) -> dict[str, dict[str, dict[int, dict]]]:
    """dataset → arm → seed → line, in the order of ARMS. Runs with other settings than today's are left out."""
    tables = {}
    for line in sorted(lines, key=lambda line: (list(ARMS).index(line["arm"]), line["seed"])):
        if key_of(line) == key_of(description(line["dataset"], line["arm"], line["seed"])):
            tables.setdefault(line["dataset"], {}).setdefault(line["arm"], {})[line["seed"]] = line
    return tables


def markdown(arms: dict[str, dict[int, dict]]) -> list[str]:
    """A table with a row for each arm: mean ± standard deviation over the seeds, and how the tail changes."""
    base = arms[BASELINE]
    figures = [figure for figure in FIGURES if figure in base[0]]
    lines = [f"| | runs | {' | '.join(figures)} | tail, change |", "|---" * (len(figures) + 3) + "|"]
    for arm, runs in arms.items():
        cells = [mean_and_spread(points(runs, figure)) for figure in figures]
        change = mean_and_spread(points(runs, "tail", base), sign="+") if arm != BASELINE else ""
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} | {change} |")
    return lines


def draw(tables: dict[str, dict[str, dict[int, dict]]], picture: Path) -> None:
    """Draw a panel for each dataset, with a row for each arm: how head, medium and tail change against the baseline of
    the same seed. A dot is a run, a bar their mean. The band shows the spread of the baseline's own tail AP."""
    most = max(map(len, tables.values()))
    figure = Figure(figsize=(6.5 * len(tables), 1 + 0.42 * most), layout="constrained")
    for panel, (dataset, arms) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        base, rows = arms[BASELINE], {arm: runs for arm, runs in arms.items() if arm != BASELINE}
        own = points(base, "tail") - points(base, "tail").mean()
        panel.axvspan(own.min(), own.max(), color=GROUP_COLOURS["tail"], alpha=0.12, linewidth=0)
        panel.axvline(0, color="black", linewidth=0.8)
        for row, runs in enumerate(rows.values()):
            for offset, (group, colour) in zip((-0.22, 0, 0.22), GROUP_COLOURS.items(), strict=True):
                if group in base[0]:
                    change = points(runs, group, base)
                    panel.plot(change, [row + offset] * len(change), "o", color=colour, markersize=3)
                    panel.plot([0, change.mean()], [row + offset] * 2, color=colour, linewidth=3, alpha=0.6)
        panel.set_yticks(range(len(rows)), rows)
        panel.invert_yaxis()
        panel.grid(axis="x", alpha=0.3)
        mean = points(base, "AP").mean()
        panel.set(title=dataset, xlabel=f"AP points against {BASELINE}, uniform (whose AP is {mean:.1f})")
    handles = [panel.plot([], [], color=colour, linewidth=3, label=group)[0] for group, colour in GROUP_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, title="classes")
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main()
