"""Losses: which anchors answer for which objects, and what their answers cost."""

from detector.losses.classification.focal import FocalLoss, sigmoid_focal_loss

__all__ = ["FocalLoss", "sigmoid_focal_loss"]
