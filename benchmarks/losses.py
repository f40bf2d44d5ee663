"""Time of every classification loss, forward, backward and the update of its state, beside plain focal loss.

    python benchmarks/losses.py [--anchors 64000] [--classes 80] [--rounds 25]

All get the same float32 logits, classes and IoUs, and run in turns. Printed are medians with the 10 % and 90 %
quantiles, and the median of the ratio to focal loss round by round.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from focal_loss import forward_backward, scene
from timing import devices, milliseconds, spread

from detector.config.loss import LossConfig
from detector.losses.criterion import build_criterion

SETTINGS: dict[str, dict[str, Any]] = {
    "focal": {},
    "focal, alpha by class": {"alpha": "inverse_frequency"},
    "focal, gamma by class": {"gamma": "by class"},
    "cross_entropy": {"classification": "cross_entropy"},
    "equalized_focal": {"classification": "equalized_focal"},
    "quality_focal": {"classification": "quality_focal"},
    "varifocal": {"classification": "varifocal"},
    "adaptive_focal": {"classification": "adaptive_focal"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=64_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    for device in devices():
        compare(args.anchors, args.classes, args.rounds, device)


def compare(anchors: int, classes: int, rounds: int, device: torch.device) -> None:
    """Print what each loss takes on one device."""
    logits, labels = scene(anchors, classes, device)
    quality = torch.rand(int((labels >= 0).sum()), device=device)

    def step(loss: torch.nn.Module) -> None:
        given = quality if loss.needs_quality else None
        forward_backward(lambda: loss(logits[None], labels[None], given), logits)

    losses = {name: build(settings, classes).to(device) for name, settings in SETTINGS.items()}
    times = milliseconds({name: lambda loss=loss: step(loss) for name, loss in losses.items()}, rounds, device)
    print(f"{device}: classification losses of {anchors} anchors x {classes} classes, float32, forward + backward")
    for name, taken in times.items():
        print(f"  {name:22s} {spread(taken)} ms   {np.median(taken / times['focal']):.2f} x focal")


def build(settings: dict[str, Any], classes: int) -> torch.nn.Module:
    """The classification loss of these settings of `loss`."""
    if settings.get("gamma") == "by class":
        settings = {"gamma": torch.linspace(1, 3, classes).tolist()}
    return build_criterion(LossConfig(**settings), np.arange(1, classes + 1)).classification


if __name__ == "__main__":
    main()
