"""One epoch of training, one pass of evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from detector.evaluation.coco import Detections


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    batches: Iterable,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    scaler: torch.amp.GradScaler,
    *,
    device: torch.device,
    autocast: torch.dtype | None,
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> Iterator[dict]:
    """Train on `batches` (a sized iterable of (images, targets)), yielding after every optimizer step

    {"loss", "loss_cls", "loss_box", "positives", "grad_norm": floats, "lr", "images", "batches": done so far}.
    The gradient of a step is that of one batch of all its images: sums over `accumulate` batches, divided once
    by all their positives. Raises FloatingPointError, naming the images, if the loss is not finite.
    """
    model.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sums: dict[str, float] = {}
    for done, (images, targets) in enumerate(batches, start=1):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(images.to(device, non_blocking=True), [t["size"] for t in targets])
        losses = criterion(outputs, targets)
        positives = losses.pop("num_positives")
        loss = sum(losses.values())
        scaler.scale(loss * positives).backward()

        values = torch.stack([loss.detach(), *(v.detach() for v in losses.values())]) * positives
        for name, value in zip(["loss", *losses], values.tolist(), strict=True):  # CPU-GPU sync point
            sums[name] = sums.get(name, 0.0) + value
        sums["positives"] = sums.get("positives", 0.0) + positives.item()
        sums["images"] = sums.get("images", 0) + len(targets)
        if not np.isfinite(sums["loss"]):
            ids = ", ".join(str(t["image_id"]) for t in targets)
            raise FloatingPointError(f"the loss is {sums['loss']} on the images with ids {ids}; is train.lr too high?")
        if done % accumulate and done < len(batches):
            continue

        scaler.unscale_(optimizer)
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], sums["positives"])
        grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm or float("inf"))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        lr = schedule.get_last_lr()[-1]
        schedule.step()
        record = {name: sums[name] / sums["positives"] for name in ["loss", *losses]}
        yield record | {
            "positives": sums["positives"],
            "grad_norm": grad_norm.item(),
            "lr": lr,
            "images": sums["images"],
            "batches": done,
        }
        sums = {}


@torch.inference_mode()
def evaluate(model: nn.Module, postprocess, batches: Iterable, *, device: torch.device) -> Iterator[Detections]:
    """Detections of each batch, in float32 arithmetic, boxes in original pixels; batches in the order of the data."""
    model.eval()
    first = 0
    for images, targets in batches:
        sizes = [t["size"] for t in targets]
        outputs = model(images.to(device, non_blocking=True), sizes)
        found = postprocess(outputs, sizes, [t["orig_size"] for t in targets])
        yield Detections.from_batch(found, first)
        first += len(targets)
