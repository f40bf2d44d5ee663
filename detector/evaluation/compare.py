"""Compare runs on the same images: where they differ, and whether by more than chance.

A paired bootstrap: each resample draws the same images for all runs. Hard images, which are hard for every run, so do
not count as chance. Runs that differ only in their seed form one entry, with the mean of their figures; how much they
differ is counted, too (metrics/significance.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detector.config.file import differences, load_config
from detector.config.schema import Config
from detector.data.class_groups import GROUPS, class_groups
from detector.data.coco import CocoData
from detector.data.split import read_split
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.average_precision import ClassHits, coco_figures, hits_by_class
from detector.evaluation.metrics.bootstrap import (
    CONFIDENCE,
    MIN_IMAGES,
    draw_images,
    images_with_objects,
    interval,
    mean_over_classes,
    resampled_ap,
)
from detector.evaluation.metrics.coco import group_figures
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.significance import Chance, SeedFigures, Variances, holm, variances_of
from detector.utils.console import progress_bar
from detector.utils.errors import InputError
from detector.utils.text import counted

NOT_COMPARED = ("seed", "output_dir", "device", "eval")  # runs that differ only in these are seeds of one entry
ROUNDING = 1e-9  # a standard error below it is none


class FigureName(NamedTuple):
    """AP, AP50 or a group; or the AP of a class."""

    name: str
    of_class: bool = False


@dataclass(frozen=True)
class Entry:
    """A run, or several that differ only in their seed."""

    name: str
    seeds: int
    figures: dict[FigureName, SeedFigures]  # those that have objects, the same for all entries of a comparison
    settings: dict  # its configuration as nested dicts, without NOT_COMPARED

    def interval(self, name: FigureName) -> list[float] | None:
        """Of a figure, 95 %; None: the images cannot tell. That of one seed is the one in its report."""
        figure = self.figures[name]
        if self.seeds == 1:
            return interval(float(figure.value), figure.resampled[0], figure.images)
        chance = _chances([name], self).get(name)
        return None if chance is None else np.clip(np.array(chance.interval(figure.value)), 0, 1).tolist()

    def changes_from(self, other: Entry) -> list[tuple[str, Any, Any]]:
        """(dotted path, the other's value, its own) of the settings that differ."""
        return list(differences(other.settings, self.settings))


@dataclass(frozen=True)
class Difference:
    """A figure of a run, minus the same figure of the baseline."""

    run: str
    figure: FigureName
    baseline: float
    value: float
    chance: Chance | None  # of the difference; None: the images cannot tell, or there is none

    @property
    def difference(self) -> float:
        return self.value - self.baseline

    @property
    def interval(self) -> list[float] | None:
        """Of the difference, 95 %; None as `chance`."""
        return None if self.chance is None else np.clip(np.array(self.chance.interval(self.difference)), -1, 1).tolist()

    @property
    def significant(self) -> bool:
        """More than chance: the interval leaves out 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class Alarm:
    """A run whose AP rose while head classes fell by more than chance."""

    run: str
    rise: float  # of AP
    fallen: list[Difference]  # head classes
    tested: int  # head classes that could have fallen


@dataclass(frozen=True)
class Comparison:
    """Entries, the baseline first; the differences of the others from it; alarms."""

    evaluated_on: str  # split, dataset, images and objects
    entries: list[Entry]
    differences: list[Difference]
    alarms: list[Alarm]

    @property
    def baseline(self) -> Entry:
        return self.entries[0]

    def difference(self, entry: Entry, figure: FigureName) -> Difference:
        """Of an entry that is not the baseline."""
        return next(row for row in self.differences if (row.run, row.figure) == (entry.name, figure))


def compare(sources: Sequence[str], split: str, dataset: str | None) -> Comparison:
    """Compare the runs (run directories), the first of which is the baseline.

    Reads eval/<split>/detections.json of each. dataset: the descriptor, if not that of the first run's training.
    Raises InputError if a run has no such file or was evaluated on other images or objects, or if all are seeds of one
    entry.
    """
    configs = {source: _read_config(Path(source)) for source in sources}
    data = read_split(configs[sources[0]], split, dataset=dataset, check_images=False)
    if dataset is None:
        _check_same_split(configs, split, data)
    folder = split if dataset is None else f"{split}-{Path(dataset).stem}"
    metrics = {source: _read_metrics(Path(source) / "eval" / folder, data) for source in sources}
    groups = _groups(metrics[sources[0]], data)
    counts = draw_images(len(data))
    runs_of: dict[str, list[Entry]] = {}  # by configuration
    with progress_bar() as bar:
        task = bar.add_task("comparing", total=len(sources))
        for source, config in configs.items():
            hits = hits_by_class(match(_read_detections(Path(source) / "eval" / folder, data), data))
            entry = Entry(source, 1, _figures(hits, data.class_names, groups, counts), _compared(config))
            runs_of.setdefault(json.dumps(entry.settings, sort_keys=True), []).append(entry)
            bar.advance(task)
    entries = [_pool_seeds(runs) for runs in runs_of.values()]
    if len(entries) == 1:
        raise InputError("all runs have one configuration and differ only in their seeds: there is nothing to compare")
    head = {name for name, group in zip(data.class_names, groups, strict=True) if group == "head"}
    group_of = dict(zip(data.class_names, groups, strict=True))
    rows = [row for entry in entries[1:] for row in _differences(entry, entries[0], group_of)]
    alarms = [alarm for entry in entries[1:] if (alarm := _alarm(entry.name, rows, head))]
    where = f"{split} of {dataset or configs[sources[0]].data.dataset}"
    evaluated_on = f"{where}: {counted(len(data), 'image')} with {counted(data.class_counts().sum(), 'object')}"
    return Comparison(evaluated_on, entries, rows, alarms)


def _read_config(run: Path) -> Config:
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: no run directory (it has no config.yaml)")
    return load_config(run / "config.yaml")


def _compared(config: Config) -> dict:
    """The settings that are equal in runs that differ only in their seed."""
    settings = {key: value for key, value in config.model_dump().items() if key not in NOT_COMPARED}
    settings["data"].pop("workers")
    return settings


def _check_same_split(configs: dict[str, Config], split: str, data: CocoData) -> None:
    """Raises InputError if the split of a run's own dataset is not `data`, which is that of the first run."""
    first, *others = configs
    for source in others:
        dataset = configs[source].data.dataset
        if dataset == configs[first].data.dataset:
            continue
        own = read_split(configs[source], split, check_images=False)
        if own.fingerprint() != data.fingerprint():
            raise InputError(
                f"{source}: was evaluated on {split} of {dataset}, and {first} on other images or boxes, {split} of "
                f"{configs[first].data.dataset}; evaluate both with one tools/eval.py --dataset, and name it here, too"
            )


def _read_detections(folder: Path, data: CocoData) -> Detections:
    try:
        return Detections.from_results(json.loads((folder / "detections.json").read_text()), data)
    except FileNotFoundError:
        raise InputError(f"{folder}: no detections.json; evaluate the run first (tools/eval.py)") from None
    except KeyError as problem:
        raise InputError(
            f"{folder}/detections.json: names image or category {problem}, which the dataset does not have; all runs "
            "must be evaluated on the same images (--dataset)"
        ) from None


def _read_metrics(folder: Path, data: CocoData) -> dict[str, dict]:
    """`per_class` of metrics.json. Raises InputError if the data had other objects when it was written."""
    path = folder / "metrics.json"
    rows = json.loads(path.read_text())["per_class"] if path.exists() else {}
    for name, count in zip(data.class_names, data.class_counts().tolist(), strict=True):
        then = rows.get(name, {}).get("num_gt", count)
        if then != count:
            raise InputError(
                f"{path}: there were {then} objects of {name} when it was evaluated, and now there are {count}; "
                "evaluate the run again (tools/eval.py)"
            )
    return rows


def _groups(rows: dict[str, dict], data: CocoData) -> list[str]:
    """Head, medium or tail for each class: as an evaluation grouped them (rows: its `per_class`), else by the objects
    here."""
    if all("group" in rows.get(name, ()) for name in data.class_names):
        return [rows[name]["group"] for name in data.class_names]
    return class_groups(data.class_counts())


def _figures(
    hits: list[ClassHits], class_names: list[str], groups: list[str], counts: np.ndarray
) -> dict[FigureName, SeedFigures]:
    """AP, AP50, AP of each group and of each class, those that have objects. counts: see `draw_images`."""
    coco, resampled = coco_figures(hits, class_names), resampled_ap(hits, counts)  # resampled: (K, T, draws)
    per_class = coco["per_class"]
    measured = [k for k, name in enumerate(class_names) if per_class[name]["num_gt"]]

    def figure(value: float, draws: np.ndarray, labels: list[int]) -> SeedFigures:
        return SeedFigures(np.array([value]), draws[None], images_with_objects([hits[k] for k in labels]))

    def mean_figure(value: float, draws: np.ndarray, labels: list[int]) -> SeedFigures:
        return figure(value, mean_over_classes(draws), labels)

    figures = {
        FigureName("AP"): mean_figure(coco["AP"], resampled[measured].mean(axis=1), measured),
        FigureName("AP50"): mean_figure(coco["AP50"], resampled[measured, 0], measured),
    }
    by_group = group_figures(per_class, groups)
    for group in GROUPS:
        labels = [k for k in measured if groups[k] == group]
        if labels:
            figures[FigureName(group)] = mean_figure(by_group[group]["AP"], resampled[labels].mean(axis=1), labels)
    for k in measured:
        name = class_names[k]
        figures[FigureName(name, True)] = figure(per_class[name]["AP"], resampled[k].mean(axis=0), [k])
    return figures


def _pool_seeds(runs: list[Entry]) -> Entry:
    """One entry of runs that differ only in their seed."""
    first, count = runs[0], len(runs)
    if count == 1:
        return first
    figures = {}
    for key, figure in first.figures.items():
        own = [run.figures[key] for run in runs]
        values, resampled = [
            np.concatenate(parts) for parts in zip(*((f.values, f.resampled) for f in own), strict=True)
        ]
        figures[key] = SeedFigures(values, resampled, figure.images)
    return Entry(f"{first.name} and {count - 1} more of its seeds", count, figures, first.settings)


def _differences(entry: Entry, baseline: Entry, group_of: dict[str, str]) -> list[Difference]:
    """Of all figures. group_of: class name → group, whose classes are judged together."""
    together: dict[str | FigureName, list[FigureName]] = {}
    for name in entry.figures:
        together.setdefault(group_of[name.name] if name.of_class else name, []).append(name)
    chances = {key: own for names in together.values() for key, own in _chances(names, entry, baseline).items()}
    rows = []
    for name, figure in entry.figures.items():
        before, now, chance = float(baseline.figures[name].value), float(figure.value), chances.get(name)
        if chance is None and figure.images >= MIN_IMAGES and abs(now - before) > ROUNDING:
            chance = Chance(0.0, figure.images - 1)  # the same on every image: certain
        rows.append(Difference(entry.name, name, before, now, chance))
    return rows


def _chances(names: list[FigureName], entry: Entry, baseline: Entry | None = None) -> dict[FigureName, Chance]:
    """The chance of figures that are judged together; with a baseline, of their differences from it.

    Those are left out that too few images have objects of, or that do not vary.
    """
    variances = {
        name: variances_of(entry.figures[name], None if baseline is None else baseline.figures[name])
        for name in names
        if entry.figures[name].images >= MIN_IMAGES
    }
    varying = {name: own for name, own in variances.items() if own.error > ROUNDING}
    if not varying:
        return {}
    parts, degrees = [np.stack(own) for own in zip(*((v.parts, v.degrees) for v in varying.values()), strict=True)]
    chance = Variances(parts, degrees).chance()
    both = zip(*(np.asarray(own).tolist() for own in (chance.error, chance.degrees)), strict=True)
    return {name: Chance(*each) for name, each in zip(varying, both, strict=True)}


def _alarm(run: str, differences: list[Difference], head: set[str]) -> Alarm | None:
    """The alarm of a run, if there is one. head: names of the head classes.

    More classes to look at do not raise more false alarms (Holm's correction). Only falls are tested.
    """
    by_figure = {row.figure: row for row in differences if row.run == run}
    rise = by_figure[FigureName("AP")].difference
    tested = {
        figure.name: row.chance.p_of_fall(row.difference)
        for figure, row in by_figure.items()
        if figure.of_class and figure.name in head and row.chance is not None
    }
    p_values = holm(np.array(list(tested.values())))
    fallen = [
        by_figure[FigureName(name, True)] for name, p in zip(tested, p_values, strict=True) if p <= 1 - CONFIDENCE
    ]
    return Alarm(run, rise, fallen, len(tested)) if rise > 0 and fallen else None
