"""A training step beside torchvision's RetinaNet: the same architecture, images and objects, alternating.

    python benchmarks/train_step.py [--rounds 10] [--profile]

Ours is measured in float32 and in bfloat16 autocast, torchvision in float32 (its default; on CUDA also in bfloat16).
A step is forward, losses, backward and SGD, on images that are already decoded, resized and in a batch: ours takes
them as uint8, torchvision as float tensors, as each has them. Figures are medians with the 10 % and 90 % quantiles,
ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.config.schema import BackboneConfig, LossConfig, ModelConfig
from detector.losses.criterion import build_criterion
from detector.models.build import build_model

SETTINGS = [("resnet18", 320, 4), ("resnet50", 512, 2)]  # backbone, square image in pixels, images a step
CLASSES = 80
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--profile", action="store_true", help="also print where the time of our step goes")
    args = parser.parse_args()
    for kind in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for backbone, size, batch in SETTINGS:
            compare(backbone, size, batch, torch.device(kind), args.rounds, args.profile)


def compare(backbone: str, size: int, batch: int, device: torch.device, rounds: int, profiled: bool) -> None:
    images, targets = scene(size, batch)
    steps = {
        "torchvision fp32": torchvision_step(backbone, size, images, targets, device, None),
        "ours fp32": our_step(backbone, images, targets, device, None),
        "ours bf16": our_step(backbone, images, targets, device, torch.bfloat16),
    }
    if device.type == "cuda":
        steps["torchvision bf16"] = torchvision_step(backbone, size, images, targets, device, torch.bfloat16)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + rounds):
        for name, step in steps.items():
            seconds = timed(step, device)
            if turn >= WARM_UP:
                times[name].append(seconds)
    print(f"{device}: {backbone}, {size} px, batch {batch}, {CLASSES} classes, {rounds} rounds")
    for name, seconds in times.items():
        ratio = np.array(times["torchvision fp32"]) / seconds
        print(f"  {name:17s} {spread(1e3 * np.array(seconds))} ms   {spread(ratio)} x torchvision fp32")
    if profiled:
        for name in ("ours fp32", "ours bf16"):
            print_profile(name, steps[name], device)


def scene(size: int, batch: int) -> tuple[torch.Tensor, list[dict]]:
    """Random uint8 images and 7 objects each (COCO's average), from a tenth to half of the side."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    targets = []
    for i in range(batch):
        sides = size * (0.1 + 0.4 * torch.rand(7, 2, generator=generator))
        corners = torch.rand(7, 2, generator=generator) * (size - sides)
        labels = torch.randint(CLASSES, (7,), generator=generator)
        boxes = torch.cat([corners, corners + sides], dim=1)
        targets.append({"boxes": boxes, "labels": labels, "image_id": i, "size": (size, size)})
    return images, targets


def our_step(backbone, images, targets, device, autocast) -> Callable[[], None]:
    # frozen norms, trained from the stem on, as in torchvision's step
    config = ModelConfig(weights="none", backbone=BackboneConfig(name=backbone, weights=None, norm="frozen"))
    model = build_model(config, CLASSES, pretrained=False).to(device, memory_format=torch.channels_last).train()
    model.requires_grad_(True)
    criterion = build_criterion(LossConfig(), np.ones(CLASSES, int))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    images = images.contiguous(memory_format=torch.channels_last).to(device)

    def step() -> None:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(images, [t["size"] for t in targets])
        losses = criterion(outputs, targets)
        ((losses["loss_cls"] + losses["loss_box"]) / losses["num_positives"].clamp(min=1)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def torchvision_step(backbone, size, images, targets, device, autocast) -> Callable[[], None]:
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


def timed(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:8.2f} [{low:.2f} .. {high:.2f}]"


def print_profile(name: str, step: Callable[[], None], device: torch.device) -> None:
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as result:
        step()
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    print(name, result.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=40), sep="\n")


if __name__ == "__main__":
    main()
