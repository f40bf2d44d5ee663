"""Train, evaluate and ship RetinaNet-style detectors on imbalanced COCO-format data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.inference.detector import Detector, Threshold


def load(
    source: str, device: str = "auto", overrides: Sequence[str] = (), threshold: Threshold | None = None
) -> Detector:
    """A detector from a run directory or a checkpoint file, ready to call: see `detector.inference.load`."""
    from detector.inference.detector import load as load_detector  # importing `detector` alone stays quick

    return load_detector(source, device, overrides, threshold)
