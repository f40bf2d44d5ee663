"""Detect objects in images without annotations: pictures with boxes, and one results file."""

from __future__ import annotations

import glob
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detector.config.model import PostprocessConfig
from detector.data.image import read_image
from detector.evaluation.metrics.score_thresholds import UNCHOSEN, Goal
from detector.evaluation.report.draw import draw_boxes
from detector.inference.detector import Detector, load
from detector.ops.box_arrays import iou_xyxy
from detector.utils.console import console, progress_bar
from detector.utils.disk import check_writable
from detector.utils.errors import InputError
from detector.utils.nearest import nearest_file
from detector.utils.text import counted

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


def find_images(patterns: Sequence[str]) -> list[tuple[Path, Path]]:
    """(image, its path below the output folder) for files, folders (searched through) and globs, each file once.

    Hidden files in folders are skipped. Raises InputError for a pattern that matches nothing.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
            matches = [(p, p.relative_to(path)) for p in inside if p.is_file()]
        else:
            named = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(pattern, recursive=True))
            matches = [(p, Path(p.name)) for p in named if p.is_file()]
        if not matches:
            raise InputError(f"{pattern}: no image there; {_hint(path)}")
        for image, below in matches:
            found.setdefault(image, below)
    return list(found.items())


def predict(
    source: str,
    images: list[tuple[Path, Path]],
    output: Path,
    threshold: float | None,
    device: str,
    overrides: Sequence[str] = (),
) -> None:
    """Write every image of `find_images` with its detections drawn, and detections.json, into `output`.

    detections.json: COCO results format (image_id: the image's number from 1; category_id: the training data's own;
    bbox: xywh in original pixels) with file_name and category_name. threshold: the least score to report; None: the
    thresholds chosen on val for each class, or UNCHOSEN. overrides: as for `load`. Raises InputError.
    """
    pictures = [output / name for name in _distinct_names([below for _, below in images])]
    originals = {path.resolve() for path, _ in images}
    if any(picture.resolve() in originals for picture in pictures):
        raise InputError(f"--output {output}: would write over the images themselves; name another folder")
    detector = load(source, device=device, overrides=overrides, threshold=threshold)
    if threshold is None:
        detector = _with_thresholds(detector)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    doubled = 0
    paths = [path for path, _ in images]
    with progress_bar() as bar:
        task = bar.add_task("detecting", total=len(images))
        for number, (path, picture, (image, found)) in enumerate(
            zip(paths, pictures, _detections(detector, paths), strict=True), start=1
        ):
            drawn = draw_boxes(image, found["boxes"], found["labels"], found["names"], found["scores"])
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn).save(picture)
            results += _results(found, number, str(path), detector.category_ids)
            doubled += _count_doubled(found, detector.config.model.postprocess)
            bar.advance(task)
    (output / "detections.json").write_text(json.dumps(results, indent=1))
    if doubled:
        console.print(
            f"{counted(doubled, 'detection')} on a better one of another class; model.postprocess.nms=all keeps fewer "
            "of them"
        )
    what = f"{counted(len(results), 'detection')} in {counted(len(images), 'image')}"
    console.print(f"{what}: {output / 'detections.json'} and pictures")


def _detections(detector: Detector, paths: list[Path]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Each image, read once, with its detections; a batch at a time."""
    size = detector.config.eval.batch_size
    for first in range(0, len(paths), size):
        arrays = [read_image(path) for path in paths[first : first + size]]
        yield from zip(arrays, detector.stream(arrays), strict=True)


def _with_thresholds(detector: Detector) -> Detector:
    """Print which scores are reported, and use UNCHOSEN where no thresholds were chosen."""
    deployment, scores = detector.deployment, detector.thresholds
    if deployment is None or scores is None:
        console.print(f"no thresholds were chosen for this detector: scores of {UNCHOSEN} or more are reported")
        return replace(detector, thresholds=np.full(len(detector.class_names), UNCHOSEN))
    goal = Goal(**detector.config.eval.threshold.model_dump())
    if goal != deployment.goal:
        console.print(
            f"eval.threshold: for {goal} none are chosen yet; tools/eval.py with this setting does so, on val"
        )
    console.print(
        f"each class is reported from its own threshold, {scores.min():.2f} to {scores.max():.2f}, chosen on val for "
        f"{deployment.goal} (--threshold sets another)"
    )
    for line in deployment.lines():
        console.print(line)
    return detector


def _count_doubled(found: dict[str, Any], settings: PostprocessConfig) -> int:
    """How many detections overlap a better one of another class by more than `nms_iou`."""
    if settings.nms == "all":
        return 0
    boxes, labels = found["boxes"], found["labels"]
    doubled = (iou_xyxy(boxes[:, None], boxes) > settings.nms_iou) & (labels[:, None] != labels)
    return int(np.triu(doubled).any(axis=0).sum())


def _results(found: dict[str, Any], number: int, file_name: str, category_ids: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "file_name": file_name,
            "category_id": category_ids[label],
            "category_name": str(name),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), label, name, score in zip(
            found["boxes"].tolist(), found["labels"].tolist(), found["names"], found["scores"].tolist(), strict=True
        )
    ]


def _distinct_names(names: list[Path]) -> list[Path]:
    """Names for the pictures: JPEG or PNG, numbered where two images of different folders share one."""
    distinct: dict[Path, None] = {}
    for name in names:
        name = name if name.suffix.lower() in (".jpg", ".jpeg", ".png") else name.with_suffix(".png")
        candidates = itertools.chain([name], (name.with_stem(f"{name.stem}_{i}") for i in itertools.count(2)))
        distinct[next(c for c in candidates if c not in distinct)] = None
    return list(distinct)


def _hint(path: Path) -> str:
    if path.is_dir():
        return f"it holds no {', '.join(sorted(SUFFIXES))} file"
    return nearest_file(path)
