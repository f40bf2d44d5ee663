"""Every classification loss, forward + backward + what it learns from the step, beside plain focal.

    python benchmarks/losses.py [--anchors 64000] [--classes 80] [--rounds 25]

All get the same float32 logits, classes and IoUs, and run in turns; the figures are medians, with the 10 % and 90 %
quantiles, and medians of the ratios within a turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from focal_loss import quantiles

from detector.config.schema import LossConfig
from detector.losses.criterion import build_criterion

SETTINGS = {
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
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        compare(args.anchors, args.classes, args.rounds, torch.device(device))


def compare(anchors: int, classes: int, rounds: int, device: torch.device) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, anchors, classes, device=device).mul_(2).sub_(4).requires_grad_()
    labels = torch.full((1, anchors), -1, device=device)
    positive = torch.randperm(anchors, device=device)[: anchors // 1000]
    labels[0, positive] = torch.randint(classes, positive.shape, device=device)
    quality = torch.rand(len(positive), device=device)

    losses = {name: build(settings, classes).to(device) for name, settings in SETTINGS.items()}
    times = {name: [] for name in losses}
    for turn in range(rounds + 3):
        for name, loss in losses.items():
            seconds = time_step(loss, logits, labels, quality if loss.needs_quality else None)
            if turn >= 3:  # the first rounds warm up
                times[name].append(seconds * 1e3)

    print(f"{device}: {anchors} anchors x {classes} classes, float32, forward + backward")
    for name, own in times.items():
        low, middle, high = quantiles(own)
        _, ratio, _ = quantiles([a / b for a, b in zip(own, times["focal"], strict=True)])
        print(f"  {name:22s} {middle:8.2f} ms  [{low:.2f} .. {high:.2f}]   {ratio:.2f} x focal")


def build(settings: dict, classes: int) -> torch.nn.Module:
    if settings.get("gamma") == "by class":
        settings = {"gamma": torch.linspace(1, 3, classes).tolist()}
    return build_criterion(LossConfig(**settings), np.arange(1, classes + 1)).classification


def time_step(loss: torch.nn.Module, logits: torch.Tensor, labels: torch.Tensor, quality) -> float:
    logits.grad = None
    if logits.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss(logits, labels, quality).backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
