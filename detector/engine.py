"""One epoch of training, one pass of evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from detector.evaluation.detections import Detections
from detector.utils.errors import InputError

Batch = tuple[torch.Tensor, list[dict]]  # images (N, 3, H, W) uint8, N targets


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    scaler: torch.amp.GradScaler,
    *,
    device: torch.device,
    autocast: torch.dtype | None,
    start: int = 0,
    accumulate: int = 1,
    clip_norm: float | None = None,
    split: int = 1,
) -> Iterator[dict]:
    """Train on `batches`, an epoch's (images, targets), yielding after every optimizer step

    {"loss", "loss_cls", "loss_box", "positives", "images", "grad_norm", "lr": of the step, "batches": done so far,
    "split"}.
    start: batches of the epoch that were done before; len(batches) counts them too.
    accumulate: batches a step. Its gradient is that of one batch of all their images: summed, and divided once by
    all their positives.
    split: parts that a batch goes through the model in. A step that the device's memory cannot hold is done again in
    twice as many, and so are those after it: the same gradient, as long as no norm looks at the batch and the loss does
    not learn from it (batch norm, equalized_focal and adaptive_focal do, also from the images that were tried). Only
    for a single process: others would wait for its losses.
    Raises FloatingPointError, naming the images, if the loss is not finite; InputError if not even one image fits.
    """
    model.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for done, step in _steps(batches, start, accumulate):
        sums = None
        while sums is None:
            try:
                sums = _backward(model, criterion, _parts(step, split), scaler, device=device, autocast=autocast)
            except torch.OutOfMemoryError:
                if split >= max(len(targets) for _, targets in step):
                    raise _one_image_too_many(step[0][0], device) from None
            if sums is None:  # here the exception, and all that it held in memory, is gone
                split *= 2
                optimizer.zero_grad(set_to_none=True)  # some may have got their part already
                torch.cuda.empty_cache()

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
            **{name: sums[name] / normaliser for name in ("loss", "loss_cls", "loss_box")},
            "positives": sums["positives"],
            "images": sums["images"],
            "grad_norm": grad_norm.item(),
            "lr": lr,
            "batches": done,
            "split": split,
        }


def _steps(batches: Iterable[Batch], start: int, accumulate: int) -> Iterator[tuple[int, list[Batch]]]:
    """The batches of each optimizer step, and how many of the epoch are done after it."""
    step = []
    for done, batch in enumerate(batches, start=start + 1):
        step.append(batch)
        if done % accumulate == 0 or done == len(batches):
            yield done, step
            step = []


def _parts(step: list[Batch], split: int) -> Iterator[Batch]:
    """Each batch in `split` parts, as even as its images allow."""
    for images, targets in step:
        size = -(-len(targets) // split)
        for first in range(0, len(targets), size):
            yield images[first : first + size], targets[first : first + size]


def _backward(model: nn.Module, criterion: nn.Module, batches: Iterable[Batch], scaler, *, device, autocast) -> Counter:
    """Add the gradient of the summed losses of `batches`; returns the sums of losses, positives and images."""
    sums: Counter[str] = Counter()
    for images, targets in batches:
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
    return sums


@torch.inference_mode()
def evaluate(model: nn.Module, postprocess, batches: Iterable, *, device: torch.device) -> Iterator[Detections]:
    """Detections of each batch, in float32 arithmetic, boxes in original pixels; batches in the order of the data."""
    model.eval()
    first = 0
    for images, targets in batches:
        yield Detections.from_batch(_detect(model, postprocess, images, targets, device), first)
        first += len(targets)


def _detect(model: nn.Module, postprocess, images: torch.Tensor, targets: list[dict], device) -> list[dict]:
    """What postprocess finds in a batch, in halves where the device's memory cannot hold it."""
    sizes = [t["size"] for t in targets]
    try:
        outputs = model(images.to(device, non_blocking=True), sizes)
        return postprocess(outputs, sizes, [t["orig_size"] for t in targets])
    except torch.OutOfMemoryError:
        if len(targets) == 1:
            raise _one_image_too_many(images, device) from None
    torch.cuda.empty_cache()
    return [found for part in _parts([(images, targets)], 2) for found in _detect(model, postprocess, *part, device)]


def _one_image_too_many(images: torch.Tensor, device: torch.device) -> InputError:
    height, width = images.shape[-2:]
    return InputError(f"the memory of {device} does not hold one image of {width}x{height} px; lower data.image_size")
