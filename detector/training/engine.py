"""One epoch of training: forward → loss → backward → divide by the normaliser → clip → step.

A step that is not finite is undone. Every step yields a record, for the log.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detector.data.loader import Loader
from detector.inference.detect import Batch, image_too_large, split_into_micro_batches
from detector.training.bad_step import BadStep, Rollback, culprits
from detector.training.forward import forward
from detector.utils.dist import sum_across_processes, world_size


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    batches: Loader | list[Batch],
    optimizer: Optimizer,
    schedule: LRScheduler,
    scaler: GradScaler,
    *,
    device: torch.device,
    autocast: torch.dtype | None,
    start: int = 0,
    accumulate: int = 1,
    clip_norm: float | None = None,
    micro_batches: int = 1,
) -> Iterator[dict[str, Any]]:
    """Train on `batches`, the (images, targets) of an epoch, and yield a record after every optimizer step:

    {"loss" and each loss of the criterion, divided by the normaliser; "positives" (anchors), "grad_norm": of the step;
    "bad": None; "images": how many; "image_ids"; "replaced": images that took another's place (see DetectionDataset);
    "lr"; "batches": done in this epoch; "micro_batches"}.

    If the loss or the gradient is not finite, "bad" is a BadStep and the figures before it are missing. The step is not
    taken then: weights, buffers, optimizer, scaler and random generators stay as they were; only the schedule moves on.
    (A gradient that is too large for fp16 is no bad step: the scaler skips it and lowers its scale.)

    start: batches of the epoch that were done earlier; len(batches) includes them.
    accumulate: batches per step. Their gradients are summed and divided once by the sum of their normalisers.
    micro_batches: parts that each batch is computed in. If a step does not fit into the device's memory, it and all
    later steps are computed in twice as many. The gradient stays the same unless a norm looks at the batch or the loss
    learns from it or is weighted over it (batch norm; equalized_focal, adaptive_focal; loss.box_weighting score or iou,
    tal without soft targets). With several processes the others would wait for it.
    Raises InputError if not even one image fits.
    """
    model.train()
    rollback = Rollback(model, criterion, device)
    for done, step in _steps(batches, start, accumulate):
        rollback.save()
        sums = None
        while sums is None:
            try:
                sums = _backward(
                    model, criterion, split_into_micro_batches(step, micro_batches), scaler, device, autocast
                )
            except torch.OutOfMemoryError:
                rollback.restore()
                if micro_batches >= max(len(targets) for _, targets in step):
                    raise image_too_large(step[0][0], device) from None
            if sums is None:  # retry outside `except`: its traceback keeps the tensors alive
                micro_batches *= 2
                optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()

        figures = _update(sums, optimizer, scaler, clip_norm)
        optimizer.zero_grad(set_to_none=True)
        if figures["bad"]:
            rollback.restore()
            found = culprits(
                model, criterion, split_into_micro_batches(step, micro_batches), device=device, autocast=autocast
            )
            rollback.restore()
            figures = {"bad": _bad_step(figures["bad"], found, step, micro_batches)}
        lr = optimizer.param_groups[-1]["lr"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns when the first step was skipped
            schedule.step()
        targets = [target for _, targets in step for target in targets]
        yield {
            **figures,
            "images": len(targets),
            "image_ids": [target["image_id"] for target in targets],
            "replaced": [target["replaced"] for target in targets if "replaced" in target],
            "lr": lr,
            "batches": done,
            "micro_batches": micro_batches,
        }


def _steps(batches: Loader | list[Batch], start: int, accumulate: int) -> Iterator[tuple[int, list[Batch]]]:
    """(batches done after the step, the batches of the step) for each optimizer step."""
    step: list[Batch] = []
    for done, batch in enumerate(batches, start=start + 1):
        step.append(batch)
        if done % accumulate == 0 or done == len(batches):
            yield done, step
            step = []


def _backward(
    model: nn.Module,
    criterion: nn.Module,
    batches: Iterable[Batch],
    scaler: GradScaler,
    device: torch.device,
    autocast: torch.dtype | None,
) -> Counter[str]:
    """Add up the gradient of the summed losses of `batches`. Returns the sums of the losses and, over all processes, of
    the positives and the normalisers.

    Stops at a loss that is not finite: the step is lost then.
    """
    sums: Counter[str] = Counter()
    for images, targets in batches:
        outputs = forward(model, images, targets, device, autocast)
        losses = criterion(outputs, targets)
        counts = sum_across_processes(torch.stack([losses.pop("num_positives"), losses.pop("normaliser")]))
        loss = sum(losses.values())
        scaler.scale(loss).backward()

        values = torch.stack([*counts, loss.detach(), *(value.detach() for value in losses.values())])
        names = ["positives", "normaliser", "loss", *losses]
        sums.update(dict(zip(names, values.tolist(), strict=True)))  # CPU-GPU sync point
        if not math.isfinite(sums["loss"]):
            break
    return sums


def _update(sums: Counter[str], optimizer: Optimizer, scaler: GradScaler, clip_norm: float | None) -> dict[str, Any]:
    """Divide the summed gradient by the normaliser, clip it and take the step. Returns the step's figures; "bad" holds
    the names of what is not finite, or None."""
    positives = sums.pop("positives")
    # RetinaNet, section 4.1: positives of the whole step, at least 1; the gradients of W processes are averaged
    normaliser = max(sums.pop("normaliser"), 1.0) / world_size()
    figures = {name: total / normaliser for name, total in sums.items()}
    if not math.isfinite(figures["loss"]):
        return {"bad": [name for name in figures if name != "loss" and not math.isfinite(figures[name])] or ["loss"]}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scaler.unscale_(optimizer)
    torch._foreach_div_([p.grad for p in parameters if p.grad is not None], normaliser)
    grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf).item()  # CPU-GPU sync point
    # A scaler skips the step itself and lowers its scale. At a scale of 1 the range of fp16 is not the cause.
    if not math.isfinite(grad_norm) and (not scaler.is_enabled() or scaler.get_scale() <= 1):
        if scaler.is_enabled():
            scaler.update(scaler.get_scale())  # forget this step
        return {"bad": ["gradient"]}
    scaler.step(optimizer)
    scaler.update()
    return {**figures, "positives": positives, "grad_norm": grad_norm, "bad": None}


def _bad_step(parts: list[str], found: dict[int, list[str]], step: list[Batch], micro_batches: int) -> BadStep:
    """found: see `culprits`. Where no image is to blame alone, all of the step are named."""
    named = sorted({name for names in found.values() for name in names})
    image_ids = list(found) or [target["image_id"] for _, targets in step for target in targets]
    return BadStep(named or parts, image_ids, step, micro_batches)
