"""One epoch of training, one pass of evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

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
    start: int = 0,
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> Iterator[dict]:
    """Train on `batches`, an epoch's (images, targets), yielding after every optimizer step

    {"loss", "loss_cls", "loss_box", "positives", "images", "grad_norm", "lr": of the step, "batches": done so far}.
    start: batches of the epoch that were done before; len(batches) counts them too.
    accumulate: batches a step. Its gradient is that of one batch of all their images: summed, and divided once by
    all their positives. Raises FloatingPointError, naming the images, if the loss is not finite.
    """
    model.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sums: Counter[str] = Counter()
    for done, (images, targets) in enumerate(batches, start=start + 1):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(images.to(device, non_blocking=True), [t["size"] for t in targets])
        losses = criterion(outputs, targets)
        positives = losses.pop("num_positives")
        normaliser = positives.clamp(min=1)
        losses["loss"] = sum(losses.values())
        scaler.scale(losses["loss"] * normaliser).backward()

        values = torch.stack([positives, *(loss.detach() * normaliser for loss in losses.values())])
        sums.update(dict(zip(["positives", *losses], values.tolist(), strict=True)))  # CPU-GPU sync point
        sums["images"] += len(targets)
        if not math.isfinite(sums["loss"]):
            ids = ", ".join(str(t["image_id"]) for t in targets)
            raise FloatingPointError(f"the loss is {sums['loss']} on the images with ids {ids}; is train.lr too high?")
        if done % accumulate and done < len(batches):
            continue

        normaliser = max(sums["positives"], 1.0)
        scaler.unscale_(optimizer)
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], normaliser)
        grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        lr = schedule.get_last_lr()[-1]
        schedule.step()
        yield {
            **{name: sums[name] / normaliser for name in losses},
            "positives": sums["positives"],
            "images": sums["images"],
            "grad_norm": grad_norm.item(),
            "lr": lr,
            "batches": done,
        }
        sums.clear()


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
