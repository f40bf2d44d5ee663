"""Losses: assigners choose each anchor's target, classification and box losses compare predictions with it."""

from detector.losses.classification.focal import FocalLoss, sigmoid_focal_loss

__all__ = ["FocalLoss", "sigmoid_focal_loss"]
