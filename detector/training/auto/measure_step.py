"""The measuring process of step_memory.py: real training steps, and the most memory they took.

It reads a job in JSON on stdin and writes a line of JSON on stdout for each batch size.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.config.schema import Config
from detector.data.loader import collate
from detector.models import freeze
from detector.models.build import build_model
from detector.training.auto.step_memory import MEASURED, predict
from detector.training.engine import train_one_epoch
from detector.training.setup import build_training
from detector.utils.cli import keep_freed_memory
from detector.utils.device import resolve_precision
from detector.utils.errors import InputError
from detector.utils.memory import peak_memory

PREFETCHED = 2  # batches that torch's loader keeps ready for each worker


def main() -> None:
    """Answer the job on stdin."""
    with suppress(OSError):  # should the system run out of memory, this process is killed before any other
        Path("/proc/self/oom_score_adj").write_text("1000")
    keep_freed_memory()  # as the tools do
    logging.disable(logging.WARNING)  # the training will repeat these warnings
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        for answer in _answers(**json.load(sys.stdin)):
            print(json.dumps(answer), file=stdout, flush=True)


def _answers(config: dict[str, Any], device: str, **job: Any) -> Iterator[dict[str, Any]]:
    """{"size", "peak"} for each batch size that fits, or {"error"}, a sentence on what the user got wrong."""
    try:
        for size, peak in _peaks(Config.model_validate(config), torch.device(device), **job):
            yield {"size": size, "peak": peak}
    except InputError as problem:
        yield {"error": str(problem)}
    except MemoryError:
        pass
    except RuntimeError as problem:
        # "Tried to allocate" in torch.OutOfMemoryError, "you tried to allocate" in the CPU's plain RuntimeError
        if "tried to allocate" not in str(problem).lower():
            raise


def _peaks(
    config: Config, device: torch.device, side: tuple[int, int], objects: int, num_classes: int, limit: int
) -> Iterator[tuple[int, int]]:
    """(images per batch, bytes at the peak) of real optimizer steps, for the sizes in MEASURED that fit."""
    settings = config.train
    start = peak_memory(device)
    model = build_model(config.model, num_classes, pretrained=False)
    # Only the number of classes matters. The learning rate keeps the weights, set to 0 below, where they are.
    training = build_training(
        config.changed({"train.batch_size": 1, "train.accumulate": 1, "train.lr": 1e-30}),
        model,
        freeze.resolve(model, settings.freeze, settings.unfreeze),
        class_names=[str(label) for label in range(num_classes)],
        shown=np.ones(num_classes, int),
        batches=1,
        total_steps=1000,
        device=device,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # no precision can overflow
    _, autocast = resolve_precision(settings.precision, device)
    accumulate = min(settings.accumulate, 2)  # the second batch runs while the gradients of the first are in memory
    peaks: dict[int, int] = {}
    for size in MEASURED:
        if peaks and predict(peaks, size) > limit:
            return
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        batch = collate([_sample(side, objects)] * size)
        assert isinstance(batch, tuple)
        steps = train_one_epoch(
            model, training.criterion, [batch] * (2 * accumulate), training.optimizer, training.schedule,
            training.scaler, device=device, autocast=autocast, accumulate=accumulate, clip_norm=settings.clip_norm,
        )  # fmt: skip
        for record in steps:  # two steps: the first creates the optimizer's state
            if record["micro_batches"] > 1:  # the batch did not fit
                return
            if training.ema:
                training.ema.update_parameters(model)
        loaded = PREFETCHED * config.data.workers * batch[0].nbytes if device.type == "cpu" else 0
        peaks[size] = peak_memory(device) - start + loaded
        yield size, peaks[size]


def _sample(side: tuple[int, int], objects: int) -> tuple[Tensor, dict[str, Any]]:
    """A grey image (3, H, W) with `objects` boxes at random places, each a quarter of its height and width."""
    height, width = side
    corners = torch.rand(objects, 2) * torch.tensor([width, height]) * 0.75
    boxes = torch.cat([corners, corners + torch.tensor([width, height]) * 0.25], dim=1)
    labels = torch.zeros(objects, dtype=torch.int64)
    target = {"boxes": boxes, "labels": labels, "image_id": 0, "orig_size": side, "size": side}
    return torch.full((3, height, width), 128, dtype=torch.uint8), target


if __name__ == "__main__":
    main()
