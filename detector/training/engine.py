"""One epoch of training, one pass of evaluation."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from detector.inference.detect import Batch, _one_image_too_many, parts
from detector.training.bad_step import BadStep, Rollback, culprits, forward

LOSSES = ("loss", "loss_cls", "loss_box")


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

    {"loss", "loss_cls", "loss_box", "positives", "grad_norm": of the step, "bad": None, "images": how many,
    "image_ids", "replaced": of the images that took another's place (see DetectionDataset), "lr",
    "batches": done so far, "split"}.
    Where the loss or the gradient is not finite, "bad" is a BadStep and stands for the figures before it. Then the step
    is not taken: weights, buffers, optimizer, scaler and random generators are as they were, only the schedule moves
    on. (A gradient that is too large for fp16 is the scaler's affair and makes no such step.)

    start: batches of the epoch that were done before; len(batches) counts them too.
    accumulate: batches a step. Its gradient is that of one batch of all their images: summed, and divided once by
    all their positives.
    split: parts that a batch goes through the model in. A step that the device's memory cannot hold is done again in
    twice as many, and so are those after it: the same gradient, as long as no norm looks at the batch and the loss does
    not learn from it (batch norm, equalized_focal and adaptive_focal do). Only for a single process: others would wait
    for its losses.
    Raises InputError if not even one image fits.
    """
    model.train()
    rollback = Rollback(model, criterion, device)
    for done, step in _steps(batches, start, accumulate):
        rollback.note()
        sums = None
        while sums is None:
            try:
                sums = _backward(model, criterion, parts(step, split), scaler, device=device, autocast=autocast)
            except torch.OutOfMemoryError:
                rollback.undo()
                if split >= max(len(targets) for _, targets in step):
                    raise _one_image_too_many(step[0][0], device) from None
            if sums is None:  # here the exception, and all that it held in memory, is gone
                split *= 2
                optimizer.zero_grad(set_to_none=True)  # some may have got their part already
                torch.cuda.empty_cache()

        figures = _update(sums, optimizer, scaler, clip_norm)
        optimizer.zero_grad(set_to_none=True)
        if figures["bad"]:
            rollback.undo()
            found = culprits(model, criterion, parts(step, split), device=device, autocast=autocast)
            rollback.undo()
            figures = {"bad": _bad_step(figures["bad"], found, step, split)}
        lr = schedule.get_last_lr()[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that no step was taken before the schedule's first
            schedule.step()
        targets = [target for _, targets in step for target in targets]
        yield {
            **figures,
            "images": len(targets),
            "image_ids": [target["image_id"] for target in targets],
            "replaced": [target["replaced"] for target in targets if "replaced" in target],
            "lr": lr,
            "batches": done,
            "split": split,
        }


def _update(sums: Counter, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip_norm) -> dict:
    """Move the weights by the gradient that was summed. The step's figures; "bad": names of what is not finite, None if
    all is well."""
    normaliser = max(sums["positives"], 1.0)
    figures = {name: sums[name] / normaliser for name in LOSSES}
    if not math.isfinite(figures["loss"]):
        return {"bad": [name for name in LOSSES[1:] if not math.isfinite(figures[name])] or ["loss"]}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scaler.unscale_(optimizer)
    torch._foreach_div_([p.grad for p in parameters if p.grad is not None], normaliser)
    grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf).item()  # CPU-GPU sync point
    # a scaler skips the step itself, and scales less; with nothing left to scale down, it is no matter of fp16's range
    if not math.isfinite(grad_norm) and (not scaler.is_enabled() or scaler.get_scale() <= 1):
        if scaler.is_enabled():
            scaler.update(scaler.get_scale())  # forgets this step
        return {"bad": ["gradient"]}
    scaler.step(optimizer)
    scaler.update()
    return {**figures, "positives": sums["positives"], "grad_norm": grad_norm, "bad": None}


def _bad_step(parts: list[str], found: dict[int, list[str]], step: list[Batch], split: int) -> BadStep:
    named = sorted({name for names in found.values() for name in names})
    image_ids = list(found) or [target["image_id"] for _, targets in step for target in targets]
    return BadStep(named or parts, image_ids, step, split)


def _steps(batches: Iterable[Batch], start: int, accumulate: int) -> Iterator[tuple[int, list[Batch]]]:
    """The batches of each optimizer step, and how many of the epoch are done after it."""
    step = []
    for done, batch in enumerate(batches, start=start + 1):
        step.append(batch)
        if done % accumulate == 0 or done == len(batches):
            yield done, step
            step = []


def _backward(model: nn.Module, criterion: nn.Module, batches: Iterable[Batch], scaler, *, device, autocast) -> Counter:
    """Add the gradient of the summed losses of `batches`; returns the sums of losses and positives.

    It ends early where the loss is not finite: what follows cannot mend it.
    """
    sums: Counter[str] = Counter()
    for images, targets in batches:
        outputs = forward(model, images, targets, device, autocast)
        losses = criterion(outputs, targets)
        positives = losses.pop("num_positives")
        losses["loss"] = sum(losses.values())
        scaler.scale(losses["loss"]).backward()

        values = torch.stack([positives, *(loss.detach() for loss in losses.values())])
        sums.update(dict(zip(["positives", *losses], values.tolist(), strict=True)))  # CPU-GPU sync point
        if not math.isfinite(sums["loss"]):
            break
    return sums
