"""Detections → figures → files, for the evaluations of a training and for tools/eval.py alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections, coco_results
from detector.utils.atomic import replacing, write_whole


def write_evaluation(
    directory: Path, detections: Detections, data: CocoData, metrics: dict, samples: np.ndarray
) -> None:
    """Write metrics.json, detections.json (COCO results format) and samples.jpg (see draw_samples) into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "detections.json", json.dumps(coco_results(detections, data)))
    write_metrics(directory, metrics)
    with replacing(directory / "samples.jpg") as file:
        Image.fromarray(samples).save(file, "JPEG", quality=90)


def write_metrics(directory: Path, metrics: dict) -> None:
    write_whole(directory / "metrics.json", json.dumps(metrics, indent=2) + "\n")
