"""What a training step takes of a device's memory, measured in a process of its own.

Only there is the peak the step's alone, and if the system ends that process for want of memory, this one learns it.
It is `python -m detector.training.auto.step_memory`: a job in JSON on stdin, a line of JSON on stdout for each batch
size.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from detector.config.schema import Config
from detector.data.loader import collate
from detector.losses.class_statistics import ClassStatistics
from detector.losses.criterion import build_criterion
from detector.models import freeze
from detector.models.build import build_model
from detector.training.engine import train_one_epoch
from detector.training.optim import build_ema, build_optimizer
from detector.utils.cli import keep_freed_memory
from detector.utils.device import resolve_precision
from detector.utils.errors import InputError
from detector.utils.memory import peak_memory

MEASURED = (1, 2, 4)  # images a batch
PREFETCHED = 2  # batches that torch's loader keeps ready for each worker
COMMAND = (sys.executable, "-m", "detector.training.auto.step_memory")


def measure(config: Config, device: torch.device, **job) -> dict[int, int]:
    """Bytes that training takes with each of the batch sizes MEASURED, beyond those of a process that only started.

    side: (h, w) of the images, pixels; objects: of each image; num_classes; limit: bytes, larger batches are not tried.
    A size that does not fit is missing from the result, as are those above it. On the CPU, what `predict` makes of
    them was seen to be 8 to 24 % high: batches of several sizes fragment the heap.
    Raises InputError as building the model does; RuntimeError if the measuring process fails in any other way.
    """
    # Not multiprocessing, which would run the user's script again. In a session of its own: Ctrl-C is for the parent.
    done = subprocess.run(
        COMMAND,
        input=json.dumps({"config": config.model_dump(), "device": str(device), **job}),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        start_new_session=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer in answers:
        if "error" in answer:
            raise InputError(answer["error"])
    if done.returncode not in (0, -9):  # -9 is SIGKILL: the system took its memory back
        raise RuntimeError(f"measuring a training step failed with exit code {done.returncode}:\n{done.stderr}")
    return {answer["size"]: answer["peak"] for answer in answers}


def predict(peaks: dict[int, int], size: int) -> float:
    """Bytes that a larger batch takes: on the line through the last two, or proportional to the only one."""
    (before, low), (last, high) = [(0, 0), *sorted(peaks.items())][-2:]
    return high + (size - last) * (high - low) / (last - before)


def main() -> None:
    """The measuring process."""
    with suppress(OSError):  # should the system run out of memory, this process goes before any other
        Path("/proc/self/oom_score_adj").write_text("1000")
    keep_freed_memory()  # as the tools do
    logging.disable(logging.WARNING)  # the training will say it all again
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        for answer in _answers(**json.load(sys.stdin)):
            print(json.dumps(answer), file=stdout, flush=True)


def _answers(config: dict, device: str, **job) -> Iterator[dict]:
    """{"size", "peak"} of each batch size that fits, or {"error"}, a sentence on what the user got wrong."""
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


def _peaks(config: Config, device: torch.device, side, objects, num_classes, limit) -> Iterator[tuple[int, int]]:
    """(images a batch, bytes at the peak) of real optimizer steps, for MEASURED, as far as they fit."""
    settings = config.train
    start = peak_memory(device)
    model = build_model(config.model, num_classes, pretrained=False)
    model.to(device, memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format)
    frozen = freeze.resolve(model, settings.freeze, settings.unfreeze)
    freeze.set_frozen(model, frozen, settings.unfreeze, epoch=math.inf)  # the most that will be trained
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # in no precision can anything overflow
    optimizer = build_optimizer(model, settings, effective_batch=1)
    ema = build_ema(model, settings.ema) if settings.ema else None
    schedule = LambdaLR(optimizer, lambda step: 0.0)
    _, autocast = resolve_precision(settings.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    # of what is measured, only how many classes there are matters
    criterion = build_criterion(config.loss, np.ones(num_classes, int), statistics=ClassStatistics(num_classes))
    criterion.to(device)
    accumulate = min(settings.accumulate, 2)  # the second batch finds the gradients of the first
    peaks: dict[int, int] = {}
    for size in MEASURED:
        if peaks and predict(peaks, size) > limit:
            return
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        images, targets = collate([_sample(side, objects)] * size)
        steps = train_one_epoch(
            model, criterion, [(images, targets)] * (2 * accumulate), optimizer, schedule, scaler,
            device=device, autocast=autocast, accumulate=accumulate, clip_norm=settings.clip_norm,
        )  # fmt: skip
        for record in steps:  # two: with the first comes the optimizer's state
            if record["split"] > 1:  # memory was short, and the engine helped itself
                return
            if ema:
                ema.update_parameters(model)
        loaded = PREFETCHED * config.data.workers * images.nbytes if device.type == "cpu" else 0
        peaks[size] = peak_memory(device) - start + loaded
        yield size, peaks[size]


def _sample(side: tuple[int, int], objects: int) -> tuple[torch.Tensor, dict]:
    """A grey image (3, H, W) with so many objects, each a quarter as high and wide, somewhere."""
    height, width = side
    corners = torch.rand(objects, 2) * torch.tensor([width, height]) * 0.75
    boxes = torch.cat([corners, corners + torch.tensor([width, height]) * 0.25], dim=1)
    labels = torch.zeros(objects, dtype=torch.int64)
    target = {"boxes": boxes, "labels": labels, "image_id": 0, "orig_size": side, "size": side}
    return torch.full((3, height, width), 128, dtype=torch.uint8), target


if __name__ == "__main__":
    main()
