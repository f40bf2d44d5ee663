"""Losses: assigners choose each anchor's target, classification and box losses compare predictions with it.

For use in other programs: `sigmoid_focal_loss` and its module `FocalLoss` take 0/1 targets, as torchvision's function;
`dense_focal_loss` takes class ids.
"""

from detector.losses.classification.focal import FocalLoss, dense_focal_loss, sigmoid_focal_loss

__all__ = ["FocalLoss", "dense_focal_loss", "sigmoid_focal_loss"]
