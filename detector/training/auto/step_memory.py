"""How much memory a training step takes on a device, measured in another process (measure_step.py).

A fresh process measures only the step. If it runs out of memory, only that process is killed, and this one sees how it
ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import torch

from detector.config.schema import Config
from detector.utils.errors import InputError

MEASURED = (1, 2, 4)  # images per batch
COMMAND = (sys.executable, "-m", "detector.training.auto.measure_step")


def measure(config: Config, device: torch.device, **job: Any) -> dict[int, int]:
    """Bytes that training takes with each of the batch sizes MEASURED, beyond a process that has only started.

    side: (h, w) of the images, pixels. objects: per image. num_classes. limit: bytes; larger batches are not tried.
    Batch sizes that do not fit are missing from the result. On the CPU, what `predict` makes of it was seen to be 8 to
    24 % too high, because batches of several sizes fragment the heap.
    Raises InputError as building the model does; RuntimeError if the measuring process fails in any other way.
    """
    # Not multiprocessing, which would run the user's script again. A session of its own: Ctrl-C is for the parent.
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
    """Bytes that a larger batch takes: on the line through the last two peaks, or proportional to the only one."""
    (before, low), (last, high) = [(0, 0), *sorted(peaks.items())][-2:]
    return high + (size - last) * (high - low) / (last - before)
