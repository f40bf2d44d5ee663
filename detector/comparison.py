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

from detector.config import Config, load_config
from detector.data.class_groups import GROUPS, class_groups
from detector.data.coco import CocoData, load_descriptor, read_coco
from detector.evaluation.average_precision import ClassHits, coco_figures, hits_by_class, mean_of
from detector.evaluation.bootstrap import draw_images, images_with_objects, interval, resampled_ap
from detector.evaluation.compare_page import CLASS
from detector.evaluation.detections import Detections
from detector.evaluation.matching import match
from detector.utils.errors import InputError
from detector.utils.logging import progress_bar

OF_CHANCE = ("seed", "output_dir", "device")  # settings that make no other training


@dataclass
class Entry:
    """Runs that differ in their seed only. resampled: for each of the figures (draws,), NaN where it is not defined."""

    name: str
    seeds: int
    values: dict[str, float]
    resampled: dict[str, np.ndarray]


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
    parts: dict[str, list[tuple[dict, dict]]] = {}
    names: dict[str, list[str]] = {}
    hits: list[ClassHits] = []
    with progress_bar() as bar:
        task = bar.add_task("comparing", total=len(sources), note="")
        for source, config in runs.items():
            hits = hits_by_class(match(_detections(Path(source) / "eval" / folder, data), data))
            key = json.dumps(_without_chance(config), sort_keys=True)
            parts.setdefault(key, []).append(_figures(hits, data, groups, counts))
            names.setdefault(key, []).append(source)
            bar.advance(task)
    entries = [_pooled(names[key], parts[key]) for key in parts]
    return _comparison(entries, hits, data.class_names, groups)


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


def _figures(hits: list[ClassHits], data: CocoData, groups: list[str], counts: np.ndarray) -> tuple[dict, dict]:
    """(values, resampled) of AP, AP50, each group and each class that have objects."""
    figures, draws = coco_figures(hits, data.class_names), resampled_ap(hits, counts)
    there = [k for k, row in enumerate(figures["per_class"].values()) if row["num_gt"]]
    ap = np.array([row["AP"] for row in figures["per_class"].values()])
    values = {"AP": figures["AP"], "AP50": figures["AP50"]}
    resampled = {"AP": _mean(draws[there].mean(axis=1)), "AP50": _mean(draws[there, 0])}
    for group in GROUPS:
        own = [k for k in there if groups[k] == group]
        if own:
            values[group], resampled[group] = mean_of(ap[own]), _mean(draws[own].mean(axis=1))
    for k in there:
        values[CLASS + data.class_names[k]], resampled[CLASS + data.class_names[k]] = ap[k], draws[k].mean(axis=0)
    return values, resampled


def _mean(draws: np.ndarray) -> np.ndarray:
    """(draws,) mean over the classes (K, draws) that a resample has."""
    defined = ~np.isnan(draws)
    total = np.where(defined, draws, 0).sum(axis=0)
    return np.where(defined.any(axis=0), total / np.maximum(defined.sum(axis=0), 1), np.nan)


def _pooled(names: list[str], parts: list[tuple[dict, dict]]) -> Entry:
    """The mean over seeds; in each resample, over as many seeds drawn again."""
    rng = np.random.default_rng(0)
    figures = parts[0][0]
    draws = len(next(iter(parts[0][1].values())))
    chosen = rng.integers(0, len(parts), (len(parts), draws))
    resampled = {}
    for figure in figures:
        of_seeds = np.stack([resamples[figure] for _, resamples in parts])
        resampled[figure] = np.take_along_axis(of_seeds, chosen, axis=0).mean(axis=0)
    values = {figure: float(np.mean([values[figure] for values, _ in parts])) for figure in figures}
    return Entry(
        names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more seeds", len(names), values, resampled
    )


def _comparison(entries: list[Entry], hits: list[ClassHits], class_names: list[str], groups: list[str]) -> dict:
    """hits: of any of the runs; what is read of it, the images of each class, is the same for all."""
    first, *others = entries
    if not others:
        raise InputError("all runs are of one configuration, with other seeds: there is nothing to compare")
    images = {CLASS + name: images_with_objects(hits[k : k + 1]) for k, name in enumerate(class_names)}
    images |= {g: images_with_objects([h for h, own in zip(hits, groups, strict=True) if own == g]) for g in GROUPS}
    all_images = images_with_objects(hits)
    differences = []
    for entry in others:
        for figure, value in entry.values.items():
            difference = value - first.values[figure]
            ends = interval(
                difference, entry.resampled[figure] - first.resampled[figure], images.get(figure, all_images)
            )
            differences.append(
                {
                    "run": entry.name,
                    "figure": figure,
                    "baseline": first.values[figure],
                    "value": value,
                    "difference": difference,
                    "interval": ends,
                    "significant": ends is not None and (ends[0] > 0 or ends[1] < 0),
                }
            )
    runs = [
        {
            "name": entry.name,
            "seeds": entry.seeds,
            "AP": entry.values["AP"],
            "interval": interval(entry.values["AP"], entry.resampled["AP"], all_images),
            "groups": {group: {"AP": entry.values[group]} for group in GROUPS if group in entry.values},
        }
        for entry in entries
    ]
    head = {CLASS + name for name, group in zip(class_names, groups, strict=True) if group == "head"}
    return {
        "runs": runs,
        "baseline": first.name,
        "differences": differences,
        "alarms": _alarms(differences, others, head),
    }


def _alarms(differences: list[dict], others: list[Entry], head: set[str]) -> list[str]:
    """Where the mean rose and a common class, more than by chance, fell."""
    alarms = []
    for entry in others:
        own = {row["figure"]: row for row in differences if row["run"] == entry.name}
        fell = [row for figure, row in own.items() if figure in head and row["significant"] and row["difference"] < 0]
        if own["AP"]["difference"] > 0 and fell:
            worse = ", ".join(f"{row['figure'].removeprefix(CLASS)} by {-row['difference']:.3f}" for row in fell)
            alarms.append(
                f"{entry.name}: AP rose by {own['AP']['difference']:.3f}, but classes of the head fell: {worse}"
            )
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
    return [*text, *(f"warning: {alarm}" for alarm in comparison["alarms"])]


def _ends(interval: list[float] | None, sign: str = "") -> str:
    return "[-]" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
