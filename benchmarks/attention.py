"""A training step with each attention and neck beside one with an FPN and no attention, in turns, on small detectors.

    python benchmarks/attention.py [--rounds 20]

A step is forward, losses and backward of a ResNet-18 with 64 channels in neck and head, two convolutions a tower, and
8 images of 192 px, in float32 and in bfloat16; the CPU has one thread. Printed are medians of the wall time with the
10 % and 90 % quantiles; what it adds is taken round by round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from timing import devices, milliseconds, spread
from train_step import CLASSES, scene

from detector.config.loss import LossConfig
from detector.config.model import ModelConfig
from detector.losses.criterion import build_criterion
from detector.models.build import build_model

SIZE, BATCH = 192, 8
PLAIN = "fpn, none"
VARIANTS = {
    PLAIN: {},
    "light": {"attention": {"name": "light"}},
    "dyhead": {"attention": {"name": "dyhead"}},
    "pafpn": {"neck": {"name": "pafpn", "channels": 64}},
}
BASE = {
    "backbone": {"name": "resnet18", "weights": None, "norm": "batch"},
    "neck": {"channels": 64},
    "head": {"depth": 2, "width": 64},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for device in devices():
        for autocast in (None, torch.bfloat16):
            compare(device, autocast, args.rounds)


def compare(device: torch.device, autocast: torch.dtype | None, rounds: int) -> None:
    """Print what a step takes with each variant, and how much more than without any."""
    steps = {name: step(changes, device, autocast) for name, changes in VARIANTS.items()}
    times = milliseconds(steps, rounds, device)
    print(f"{device}, {autocast or torch.float32}: ResNet-18, {SIZE} px, batch {BATCH}, {rounds} rounds")
    for name, taken in times.items():
        print(f"  {name:10s} {spread(taken)} ms   {spread(100 * (taken / times[PLAIN] - 1))} % more than {PLAIN}")


def step(changes: dict, device: torch.device, autocast: torch.dtype | None) -> Callable[[], None]:
    """Forward, losses and backward of one variant."""
    images, targets = scene(SIZE, BATCH)
    config = ModelConfig.model_validate({**BASE, **changes})
    model = build_model(config, CLASSES).to(device, memory_format=torch.channels_last).train()
    criterion = build_criterion(LossConfig(), np.ones(CLASSES, np.int64))
    images = images.contiguous(memory_format=torch.channels_last).to(device)

    def run() -> None:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(images, [t["size"] for t in targets])
        losses = criterion(outputs, targets)
        ((losses["loss_cls"] + losses["loss_box"]) / losses["normaliser"].clamp(min=1)).backward()
        model.zero_grad(set_to_none=True)

    return run


if __name__ == "__main__":
    main()
