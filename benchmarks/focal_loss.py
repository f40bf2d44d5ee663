"""Focal loss, forward + backward, beside torchvision.ops.sigmoid_focal_loss: time ratio and peak extra memory.

    python benchmarks/focal_loss.py [--anchors 64000] [--classes 80] [--rounds 15]

Both get the same float32 logits and the same objects; torchvision is given its one-hot targets ready-made, ours
integer classes. The two run alternately; the figures are medians, with the 10 % and 90 % quantiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from detector.losses import sigmoid_focal_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=64_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        compare(args.anchors, args.classes, args.rounds, torch.device(device))


def compare(anchors: int, classes: int, rounds: int, device: torch.device) -> None:
    torch.manual_seed(0)
    logits = torch.randn(anchors, classes, device=device).mul_(2).sub_(4).requires_grad_()
    labels = torch.full((anchors,), -1, device=device)
    positive = torch.randperm(anchors, device=device)[: anchors // 1000]
    labels[positive] = torch.randint(classes, positive.shape, device=device)
    one_hot = torch.zeros(anchors, classes, device=device)
    one_hot[positive, labels[positive]] = 1

    def ours() -> torch.Tensor:
        return sigmoid_focal_loss(logits, labels)

    def torchvisions() -> torch.Tensor:
        return torchvision_focal_loss(logits, one_hot, reduction="sum")

    difference = abs(ours().item() / torchvisions().item() - 1)
    times = {"ours": [], "torchvision": []}
    for turn in range(rounds + 3):
        for name, loss in (("ours", ours), ("torchvision", torchvisions)):
            seconds = time_step(loss, logits)
            if turn >= 3:  # the first rounds warm up
                times[name].append(seconds * 1e3)

    unit = logits.numel() * logits.element_size()
    print(f"{device}: {anchors} anchors x {classes} classes, float32, forward + backward")
    for name, loss in (("ours", ours), ("torchvision", torchvisions)):
        low, middle, high = quantiles(times[name])
        memory = peak_extra_bytes(loss, logits) / unit
        print(f"  {name:12s} {middle:8.2f} ms  [{low:.2f} .. {high:.2f}]   peak extra memory {memory:.2f} x logits")
    ratios = [b / a for a, b in zip(times["ours"], times["torchvision"], strict=True)]
    low, middle, high = quantiles(ratios)
    print(f"  ratio        {middle:8.2f} x   [{low:.2f} .. {high:.2f}]; the losses differ by {difference:.0e}")


def time_step(loss, logits: torch.Tensor) -> float:
    logits.grad = None
    if logits.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss().backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quantiles(values: list[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 10], statistics.median(ordered), ordered[-1 - len(ordered) // 10]


class _LiveBytes(TorchDispatchMode):
    """Watches every storage that an operation creates: bytes alive now, and the most there ever were."""

    def __init__(self, existing: torch.Tensor):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, {existing.untyped_storage()._cdata}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage) -> None:
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def peak_extra_bytes(loss, logits: torch.Tensor) -> int:
    logits.grad = None
    with _LiveBytes(logits) as watch:
        loss().backward()
    return watch.peak


if __name__ == "__main__":
    main()
