"""The section `eval`: how detections are judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detector.config.section import Positive, PositiveInt, Section


class ThresholdConfig(Section):
    """What the score threshold of a class is to reach on val."""

    figure: Literal["f_score", "precision", "recall"] = "f_score"
    """f_score: the greatest F-score. precision: the greatest recall with a precision of at least `target`. recall: the
    greatest precision with a recall of at least `target`."""
    beta: Positive = 1.0
    """For f_score: how many times as much recall weighs as precision."""
    target: Annotated[float, Field(gt=0, le=1)] = 0.9
    """For precision or recall: the least value."""


class EvalConfig(Section):
    """How detectors are evaluated and used."""

    backend: Literal["arrays", "pycocotools"] = "arrays"
    """What computes COCO's figures: this project's arrays, or the reference, which is slower and gives the same."""
    batch_size: PositiveInt = 8
    """Images per forward pass in evaluation and prediction."""
    threshold: ThresholdConfig = ThresholdConfig()
    """How each class's score threshold for tools/predict.py and detector.load is chosen on val."""
    calibrate: bool = False
    """Report calibrated scores: the precision that val had at that score (isotonic regression per class). tools/eval.py
    then measures them. A training chooses its best checkpoint by scores as they are."""
