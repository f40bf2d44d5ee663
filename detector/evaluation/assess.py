"""Detections → figures → files: one path, for the evaluations of a training and for tools/eval.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detector.data.coco import CocoData
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.metrics.analysis import analyse
from detector.evaluation.metrics.average_precision import ClassHits, hits_by_class
from detector.evaluation.metrics.coco import figures_of, pycocotools_metrics
from detector.evaluation.metrics.matching import Matching, match
from detector.evaluation.metrics.score_thresholds import Goal, Threshold, choose_thresholds
from detector.utils.atomic import replacing, write_atomically


@dataclass(frozen=True)
class Assessment:
    """Detections matched with the ground truth, once; every figure is read from that.

    figures: COCO's twelve, `per_class` and `groups` (metrics/coco.py).
    train_counts: (K,) training boxes per class, by which classes are head, medium or tail; None: unknown.
    reference: pycocotools' figures in place of ours, if `eval.backend` asks for them.
    """

    matching: Matching
    hits: list[ClassHits]
    figures: dict[str, Any]
    train_counts: np.ndarray | None
    reference: dict[str, Any] | None = None

    @property
    def data(self) -> CocoData:
        return self.matching.data

    @property
    def detections(self) -> Detections:
        return self.matching.detections

    def deployment(self, goal: Goal) -> Deployment:
        """Thresholds for `goal`, and a calibration, both chosen on these detections."""
        return Deployment.of(self.matching, choose_thresholds(self.hits, goal), goal)

    def analysis(self, thresholds: Sequence[Threshold]) -> dict[str, Any]:
        """All that metrics.json and the report hold, with the detector used at `thresholds` (K)."""
        return analyse(self.matching, self.hits, thresholds, self.train_counts, self.reference)


def assess(
    detections: Detections, data: CocoData, train_counts: np.ndarray | None = None, backend: str = "arrays"
) -> Assessment:
    """Match detections with the ground truth of `data` and compute COCO's figures. backend: see EvalConfig."""
    matching = match(detections, data)
    hits = hits_by_class(matching)
    reference = pycocotools_metrics(detections, data) if backend == "pycocotools" else None
    figures = figures_of(hits, data, train_counts, reference)
    return Assessment(matching, hits, figures, train_counts, reference)


def write_evaluation(
    directory: Path, detections: Detections, data: CocoData, metrics: dict[str, Any], samples: np.ndarray
) -> None:
    """Write detections.json (COCO results format), metrics.json and samples.jpg into `directory`.

    samples: (H, W, 3) uint8 RGB, see report/samples.py.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "detections.json", json.dumps(coco_results(detections, data)))
    write_metrics(directory, metrics)
    with replacing(directory / "samples.jpg") as file:
        Image.fromarray(samples).save(file, "JPEG", quality=90)


def write_metrics(directory: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json into `directory`."""
    write_atomically(directory / "metrics.json", json.dumps(metrics, indent=2) + "\n")
