"""What differs, bit for bit, between the run directories of two trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector import checkpoint
from detector.utils.errors import InputError
from detector.utils.json_lines import read_json_lines

CLOCK_FIGURES = ("images_per_second", "time")  # measured with a clock: they differ between any two trainings
FREE_SETTINGS = ("output_dir", "train.save_every", "train.keep")  # two trainings may differ in them


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two run directories, a sentence each; none if they are the same.

    Compared are last.pt (weights, moving average, optimizer, schedule, scaler, loss, random generators, progress) and
    best.pt, the lines of metrics.jsonl and TensorBoard's figures except CLOCK_FIGURES and the lines of each start, and
    the files of the best evaluation. The checkpoints' settings may differ in FREE_SETTINGS.
    """
    found = []
    for name in ("last.pt", "best.pt"):
        found += _of_checkpoints(first / "checkpoints" / name, second / "checkpoints" / name)
    lines, other_lines = _metrics(first), _metrics(second)
    for number, pair in enumerate(zip(lines, other_lines, strict=False), start=1):
        found += [f"metrics.jsonl, line {number}: {place}" for place in unequal(*pair)]
    if len(lines) != len(other_lines):
        found.append(f"metrics.jsonl: {len(lines)} and {len(other_lines)} lines")
    found += [f"TensorBoard: {place}" for place in unequal(_scalars(first), _scalars(second))]
    for name in ("eval/val/metrics.json", "eval/val/detections.json"):
        file, other = first / name, second / name
        if not (file.exists() and other.exists() and file.read_bytes() == other.read_bytes()):
            found.append(name)
    return found


def unequal(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """The places where two nested values (dicts, lists, tensors, plain values) differ. NaN equals NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if (key in a) != (key in b):
                yield f"{path}.{key} is only in one"
            else:
                yield from unequal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from unequal(*pair, f"{path}[{i}]")
    elif hasattr(a, "shape") and hasattr(b, "shape"):
        if a.shape != b.shape or a.dtype != b.dtype or a.numpy().tobytes() != b.numpy().tobytes():
            yield f"{path} has other bits"
    elif a != b and not (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)):
        yield f"{path} is {str(a)[:60]} and {str(b)[:60]}"


def _of_checkpoints(file: Path, other: Path) -> list[str]:
    try:
        states = _comparable(checkpoint.load(file)), _comparable(checkpoint.load(other))
    except InputError as problem:
        return [str(problem)]
    return [f"{file.name}: {place}" for place in unequal(*states)]


def _comparable(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's contents without the settings that may differ."""
    config = json.loads(json.dumps(state["config"]))
    for name in FREE_SETTINGS:
        *section, key = name.split(".")
        (config[section[0]] if section else config).pop(key)
    return {**state, "config": config}


def _metrics(run: Path) -> list[dict[str, Any]]:
    lines = [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] != "start"]
    return [{key: value for key, value in line.items() if key not in CLOCK_FIGURES} for line in lines]


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard tag → (step, value) of its events, purged ones too."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.split("/")[-1] not in CLOCK_FIGURES]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
