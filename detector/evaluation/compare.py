"""Runs beside one another on the same images: what differs, and whether it is more than chance.

The images are drawn again for all runs alike (a paired bootstrap), so that hard images, which are hard for all, do not
count as chance. Runs that differ only in their seed are one entry: the mean of their figures, whose seeds are drawn
again too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.config.file import load_config
from detector.config.schema import Config
from detector.data.class_groups import GROUPS, class_groups
from detector.data.coco import CocoData, load_descriptor, read_coco
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.average_precision import ClassHits, coco_figures, hits_by_class, mean_of
from detector.evaluation.metrics.bootstrap import (
    draw_images,
    images_with_objects,
    interval,
    mean_over_classes,
    resampled_ap,
)
from detector.evaluation.metrics.matching import match
from detector.evaluation.report.compare_page import CLASS
from detector.utils.console import progress_bar
from detector.utils.errors import InputError

OF_CHANCE = ("seed", "output_dir", "device")  # settings that make no other training


@dataclass
class Entry:
    """Runs that differ in their seed only. resampled: for each of the figures (draws,), NaN where it is not defined;
    images: how many show it (see images_with_objects)."""

    name: str
    seeds: int
    values: dict[str, float]
    resampled: dict[str, np.ndarray]
    images: dict[str, float]


def compare(sources: list[str], split: str, dataset: str | None) -> dict:
    """What `write_comparison` shows; the first of the runs is what the others are compared with.

    Reads eval/<split>/detections.json of each. dataset: the descriptor, if not that of the first run's training.
    Raises InputError where a run has none, or was evaluated on other images.
    """
    runs = {source: _config(Path(source)) for source in sources}
    descriptor = load_descriptor(dataset or runs[sources[0]].data.dataset)
    data = read_coco(descriptor.split(split), descriptor.classes, runs[sources[0]].data.bad_annotations)
    folder = split if dataset is None else f"{split}-{Path(dataset).stem}"
    counts = draw_images(len(data))
    groups = _groups(Path(sources[0]) / "eval" / folder, data)
    parts: dict[str, list[Entry]] = {}
    with progress_bar() as bar:
        task = bar.add_task("comparing", total=len(sources), note="")
        for source, config in runs.items():
            hits = hits_by_class(match(_detections(Path(source) / "eval" / folder, data), data))
            key = json.dumps(_without_chance(config), sort_keys=True)
            parts.setdefault(key, []).append(_entry(source, hits, data.class_names, groups, counts))
            bar.advance(task)
    rng = np.random.default_rng(0)
    entries = [_pooled(seeds, rng) for seeds in parts.values()]
    if len(entries) == 1:
        raise InputError("all runs are of one configuration, with other seeds: there is nothing to compare")
    head = [CLASS + name for name, group in zip(data.class_names, groups, strict=True) if group == "head"]
    differences = [row for entry in entries[1:] for row in _differences(entry, entries[0])]
    return {
        "runs": [_run_row(entry) for entry in entries],
        "baseline": entries[0].name,
        "differences": differences,
        "alarms": _alarms(differences, head),
    }


def _config(run: Path) -> Config:
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: no run directory (it has no config.yaml)")
    return load_config(run / "config.yaml")


def _without_chance(config: Config) -> dict:
    tree = {key: value for key, value in config.model_dump().items() if key not in (*OF_CHANCE, "eval")}
    tree["data"].pop("workers")
    return tree


def _detections(folder: Path, data: CocoData) -> Detections:
    try:
        return Detections.from_results(json.loads((folder / "detections.json").read_text()), data)
    except FileNotFoundError:
        raise InputError(f"{folder}: no detections.json; evaluate the run first (tools/eval.py)") from None
    except KeyError as problem:
        raise InputError(
            f"{folder}/detections.json: names image or category {problem}, which the dataset has not; all runs must be "
            "evaluated on the same images (--dataset)"
        ) from None


def _groups(folder: Path, data: CocoData) -> list[str]:
    """Head, medium or tail for each class, as the first run's evaluation has it."""
    path = folder / "metrics.json"
    rows = json.loads(path.read_text())["per_class"] if path.exists() else {}
    if all("group" in rows.get(name, ()) for name in data.class_names):
        return [rows[name]["group"] for name in data.class_names]
    return class_groups(data.class_counts())


def _entry(name: str, hits: list[ClassHits], class_names: list[str], groups: list[str], counts: np.ndarray) -> Entry:
    """One run: AP, AP50, each group and each class that have objects."""
    figures, draws = coco_figures(hits, class_names), resampled_ap(hits, counts)
    entry = Entry(name, 1, {}, {}, {})

    def add(figure: str, value: float, resampled: np.ndarray, labels: list[int]) -> None:
        entry.values[figure], entry.resampled[figure] = value, resampled
        entry.images[figure] = images_with_objects([hits[k] for k in labels])

    there = [k for k, name in enumerate(class_names) if figures["per_class"][name]["num_gt"]]
    ap = np.array([row["AP"] for row in figures["per_class"].values()])
    add("AP", figures["AP"], mean_over_classes(draws[there].mean(axis=1)), there)
    add("AP50", figures["AP50"], mean_over_classes(draws[there, 0]), there)
    for group in GROUPS:
        own = [k for k in there if groups[k] == group]
        if own:
            add(group, mean_of(ap[own]), mean_over_classes(draws[own].mean(axis=1)), own)
    for k in there:
        add(CLASS + class_names[k], float(ap[k]), draws[k].mean(axis=0), [k])
    return entry


def _pooled(seeds: list[Entry], rng: np.random.Generator) -> Entry:
    """The mean over seeds; in each resample, over as many seeds drawn again, a little further from their mean, as a few
    draws from a few vary too little (by the square root of (n - 1) / n)."""
    first, count = seeds[0], len(seeds)
    if count == 1:
        return first
    chosen = rng.integers(0, count, (count, len(first.resampled["AP"])))
    resampled = {}
    for figure in first.values:
        of_seeds = np.stack([entry.resampled[figure] for entry in seeds])
        mean, drawn = of_seeds.mean(axis=0), np.take_along_axis(of_seeds, chosen, axis=0).mean(axis=0)
        resampled[figure] = mean + np.sqrt(count / (count - 1)) * (drawn - mean)
    values = {figure: float(np.mean([entry.values[figure] for entry in seeds])) for figure in first.values}
    return Entry(f"{first.name} and {count - 1} more of its seeds", count, values, resampled, first.images)


def _differences(entry: Entry, baseline: Entry) -> list[dict]:
    rows = []
    for figure, value in entry.values.items():
        difference, draws = value - baseline.values[figure], entry.resampled[figure] - baseline.resampled[figure]
        ends = interval(difference, draws, entry.images[figure])
        rows.append(
            {
                "run": entry.name,
                "figure": figure,
                "baseline": baseline.values[figure],
                "value": value,
                "difference": difference,
                "interval": ends,
                "significant": ends is not None and (ends[0] > 0 or ends[1] < 0),
            }
        )
    return rows


def _run_row(entry: Entry) -> dict:
    return {
        "name": entry.name,
        "seeds": entry.seeds,
        "AP": entry.values["AP"],
        "interval": interval(entry.values["AP"], entry.resampled["AP"], entry.images["AP"]),
        "groups": {group: {"AP": entry.values[group]} for group in GROUPS if group in entry.values},
    }


def _alarms(differences: list[dict], head: list[str]) -> list[str]:
    """Where the mean rose and a common class fell, by more than chance."""
    alarms = []
    for run in dict.fromkeys(row["run"] for row in differences):
        own = {row["figure"]: row for row in differences if row["run"] == run}
        fell = [own[name] for name in head if name in own and own[name]["significant"] and own[name]["difference"] < 0]
        if own["AP"]["difference"] > 0 and fell:
            worse = ", ".join(f"{row['figure'].removeprefix(CLASS)} by {-row['difference']:.3f}" for row in fell)
            alarms.append(f"{run}: AP rose by {own['AP']['difference']:.3f}, but classes of the head fell: {worse}")
    return alarms


def lines(comparison: dict) -> list[str]:
    """The tables, as text."""
    text = ["run, seeds, AP with its 95 % interval, and the groups"]
    for run in comparison["runs"]:
        groups = "  ".join(f"{group} {row['AP']:.3f}" for group, row in run["groups"].items())
        text.append(f"  {run['name']}  {run['seeds']}  {run['AP']:.3f} {_ends(run['interval'])}  {groups}")
    width = max(len(row["figure"].removeprefix(CLASS)) for row in comparison["differences"])
    for run in dict.fromkeys(row["run"] for row in comparison["differences"]):
        text.append(f"{run} beside {comparison['baseline']}: difference, with its 95 % interval")
        for row in (row for row in comparison["differences"] if row["run"] == run):
            name = row["figure"].removeprefix(CLASS)
            text.append(
                f"  {name:<{width}}  {row['baseline']:.3f} -> {row['value']:.3f}  {row['difference']:+.3f} "
                f"{_ends(row['interval'], '+')}{'  more than chance' if row['significant'] else ''}"
            )
    if any(run["seeds"] == 1 for run in comparison["runs"]):
        text.append("one training of a kind: how much another seed would change is in none of these intervals")
    return [*text, *(f"warning: {alarm}" for alarm in comparison["alarms"])]


def _ends(interval: list[float] | None, sign: str = "") -> str:
    return "[-]" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
