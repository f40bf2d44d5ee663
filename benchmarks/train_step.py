"""A training step beside torchvision's RetinaNet: the same architecture, images and objects, in turns.

    python benchmarks/train_step.py [--rounds 10] [--profile]

Ours is measured in float32 and in bfloat16 autocast, torchvision in float32 (its default) and on CUDA also in bfloat16.
A step is forward, losses, backward and SGD, on images that are decoded, resized and in a batch: uint8 for ours, float
tensors for torchvision, as each takes them. Printed are medians with the 10 % and 90 % quantiles; the ratios are taken
round by round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from timing import devices, milliseconds, spread
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.config.loss import LossConfig
from detector.config.model import BackboneConfig, ModelConfig
from detector.losses.criterion import build_criterion
from detector.models.build import build_model

SETTINGS = [("resnet18", 320, 4), ("resnet50", 512, 2)]  # backbone, square image in pixels, images a step
CLASSES = 80

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--profile", action="store_true", help="also print where the time of our step goes")
    args = parser.parse_args()
    for device in devices():
        for backbone, size, batch_size in SETTINGS:
            compare(backbone, size, batch_size, device, args.rounds, args.profile)


def compare(backbone: str, size: int, batch_size: int, device: torch.device, rounds: int, profiled: bool) -> None:
    """Print what a step takes on one device, with one backbone."""
    images, targets = scene(size, batch_size)
    steps = {
        "torchvision fp32": torchvision_step(backbone, size, images, targets, device, None),
        "detector fp32": our_step(backbone, images, targets, device, None),
        "detector bf16": our_step(backbone, images, targets, device, torch.bfloat16),
    }
    if device.type == "cuda":
        steps["torchvision bf16"] = torchvision_step(backbone, size, images, targets, device, torch.bfloat16)
    times = milliseconds(steps, rounds, device)
    print(f"{device}: training step of {backbone}, {size} px, batch {batch_size}, {CLASSES} classes, {rounds} rounds")
    for name, taken in times.items():
        ratio = spread(times["torchvision fp32"] / taken)
        print(f"  {name:17s} {spread(taken)} ms   {ratio} x the speed of torchvision fp32")
    if profiled:
        for name in ("detector fp32", "detector bf16"):
            print_profile(name, steps[name], device)


def scene(size: int, batch_size: int) -> tuple[torch.Tensor, list[dict]]:
    """Random uint8 images and 7 objects each (COCO's average), with sides of a tenth to half of the image's."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8, generator=generator)
    targets = []
    for i in range(batch_size):
        sides = size * (0.1 + 0.4 * torch.rand(7, 2, generator=generator))
        corners = torch.rand(7, 2, generator=generator) * (size - sides)
        labels = torch.randint(CLASSES, (7,), generator=generator)
        boxes = torch.cat([corners, corners + sides], dim=1)
        targets.append({"boxes": boxes, "labels": labels, "image_id": i, "size": (size, size)})
    return images, targets


def our_step(
    backbone: str, images: torch.Tensor, targets: list[dict], device: torch.device, autocast: torch.dtype | None
) -> Step:
    """A step of this project's detector, all of it trained, with frozen norms, as in torchvision's step."""
    config = ModelConfig(weights="none", backbone=BackboneConfig(name=backbone, weights=None, norm="frozen"))
    model = build_model(config, CLASSES, pretrained=False).to(device, memory_format=torch.channels_last).train()
    model.requires_grad_(True)
    criterion = build_criterion(LossConfig(), np.ones(CLASSES, np.int64))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    images = images.contiguous(memory_format=torch.channels_last).to(device)

    def step() -> None:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(images, [t["size"] for t in targets])
        losses = criterion(outputs, targets)
        ((losses["loss_cls"] + losses["loss_box"]) / losses["normaliser"].clamp(min=1)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def torchvision_step(
    backbone: str,
    size: int,
    images: torch.Tensor,
    targets: list[dict],
    device: torch.device,
    autocast: torch.dtype | None,
) -> Step:
    """A step of torchvision's RetinaNet, all of it trained."""
    body = resnet_fpn_backbone(
        backbone_name=backbone,
        weights=None,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
        norm_layer=FrozenBatchNorm2d,
    )
    model = TorchvisionRetinaNet(body, CLASSES, min_size=size, max_size=size).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    floats = [image.to(device).float() / 255 for image in images]
    on_device = [{key: t[key].to(device) for key in ("boxes", "labels")} for t in targets]

    def step() -> None:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            losses = model(floats, on_device)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def print_profile(name: str, step: Step, device: torch.device) -> None:
    """Print the twelve operations that take most of a step."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as result:
        step()
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    print(name, result.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=40), sep="\n")


if __name__ == "__main__":
    main()
