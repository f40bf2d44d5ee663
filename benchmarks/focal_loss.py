"""Focal loss, forward and backward, beside torchvision.ops.sigmoid_focal_loss: time and peak extra memory.

    python benchmarks/focal_loss.py [--anchors 64000] [--classes 80] [--rounds 15]

Both get the same float32 logits and the same objects: torchvision as one-hot targets made beforehand, ours as integer
classes. They run in turns. Printed are medians with the 10 % and 90 % quantiles, and the ratio round by round.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable

import torch
from timing import devices, milliseconds, spread
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from detector.losses import dense_focal_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=64_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    for device in devices():
        compare(args.anchors, args.classes, args.rounds, device)


def compare(anchors: int, classes: int, rounds: int, device: torch.device) -> None:
    """Print what both losses take on one device."""
    logits, labels = scene(anchors, classes, device)
    one_hot = torch.zeros(anchors, classes, device=device)
    positive = (labels >= 0).nonzero()[:, 0]
    one_hot[positive, labels[positive]] = 1
    losses = {
        "detector": lambda: dense_focal_loss(logits, labels),
        "torchvision": lambda: torchvision_focal_loss(logits, one_hot, reduction="sum"),
    }
    difference = abs(losses["detector"]().item() / losses["torchvision"]().item() - 1)
    steps = {name: lambda loss=loss: forward_backward(loss, logits) for name, loss in losses.items()}
    times = milliseconds(steps, rounds, device)
    print(f"{device}: focal loss of {anchors} anchors x {classes} classes, float32, forward + backward")
    for name, step in steps.items():
        memory = peak_extra_bytes(step, logits) / (logits.numel() * logits.element_size())
        print(f"  {name:12s} {spread(times[name])} ms   peak extra memory {memory:.2f} x logits")
    ratio = spread(times["torchvision"] / times["detector"])
    print(f"  ratio        {ratio} x   torchvision / detector; the losses differ by {difference:.0e}")


def scene(anchors: int, classes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (anchors, classes) float32 of an early training, and labels (anchors,): one anchor in 1000 is positive."""
    torch.manual_seed(0)
    logits = torch.randn(anchors, classes, device=device).mul_(2).sub_(4).requires_grad_()
    labels = torch.full((anchors,), -1, device=device)
    positive = torch.randperm(anchors, device=device)[: max(1, anchors // 1000)]
    labels[positive] = torch.randint(classes, positive.shape, device=device)
    return logits, labels


def forward_backward(loss: Callable[[], torch.Tensor], logits: torch.Tensor) -> None:
    logits.grad = None
    loss().backward()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations create: those alive now, and the most at any time (`peak`)."""

    def __init__(self, existing: torch.Tensor):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, {existing.untyped_storage()._cdata}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage) -> None:
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def peak_extra_bytes(step: Callable[[], None], logits: torch.Tensor) -> int:
    """The most bytes that a step holds at a time, besides the logits; their gradient counts."""
    logits.grad = None
    with LiveBytes(logits) as memory:
        step()
    return memory.peak


if __name__ == "__main__":
    main()
