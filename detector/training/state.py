"""A training under way: what moves in it, which a checkpoint keeps, and what does not."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from detector import checkpoint
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.evaluation.detections import Detections
from detector.losses.criterion import Criterion
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import load_strictly
from detector.training.directory import RunDirectory
from detector.training.log import RunLog
from detector.utils.errors import InputError
from detector.utils.seed import random_state, set_random_state


@dataclass
class Progress:
    """Where a training stands: `batch` batches of epoch `epoch` are done, `step` optimizer steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated: int = 0  # epochs done at the last evaluation; -1: the weights it starts from are to be evaluated first
    best: float = -math.inf  # value of `train.metric`
    best_epoch: int = 0
    split: int = 1  # parts that a batch must be computed in, for want of memory
    bad_steps: int = 0  # skipped, as their loss or gradient was not finite
    bad_in_a_row: int = 0  # of these, without a good one since
    replaced: int = 0  # images that could not be used, and gave their place to another
    recent_losses: list[float] = field(default_factory=list)  # of good steps, by which a jump is known (watch.py)


STATEFUL = ("criterion", "optimizer", "schedule", "scaler")


@dataclass(frozen=True)
class BestEvaluation:
    """What is kept of the best evaluation: the checkpoint, and what goes to eval/val."""

    state: dict
    detections: Detections
    metrics: dict
    samples: np.ndarray  # see evaluator.draw_samples


@dataclass
class Training:
    """What moves during a training. All of it is in a checkpoint but `unsaved`, which is to be one."""

    model: RetinaNet
    ema: AveragedModel | None
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)
    unsaved: BestEvaluation | None = None  # the best so far, as long as a full disk does not take it

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def detector(self) -> RetinaNet:
        """The model that is evaluated and used: the average, where there is one."""
        return self.ema.module if self.ema else self.model

    def state(self) -> dict:
        parts = {key: getattr(self, key).state_dict() for key in STATEFUL}
        if self.ema:
            parts |= {"unaveraged": self.model.state_dict(), "averaged": int(self.ema.n_averaged)}
        drawn = {"random": random_state(self.device)}
        return {"model": self.detector.state_dict(), **parts, "progress": asdict(self.progress), **drawn}

    def load(self, state: dict, source: str) -> None:
        load_strictly(self.detector, state["model"], source=source)
        if self.ema:
            load_strictly(self.model, state["unaveraged"], source=source)
            self.ema.n_averaged.fill_(state["averaged"])
        try:
            for key in STATEFUL:
                getattr(self, key).load_state_dict(state[key])
            self.progress = Progress(**state["progress"])
            if any(type(value) is not type(getattr(Progress(), key)) for key, value in vars(self.progress).items()):
                raise TypeError
            if state["random"]:
                set_random_state(state["random"], self.device)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            raise InputError(f"{source}: begun by another version; start a new run, model.weights={source}") from None


@dataclass(frozen=True)
class Run:
    """What stays the same during a training."""

    config: Config
    directory: RunDirectory
    train: CocoData
    val: CocoData
    device: torch.device
    autocast: torch.dtype | None
    frozen: list[str]  # parts, as in `train.freeze`
    log: RunLog
    writer: checkpoint.Writer = field(default_factory=checkpoint.Writer)

    def save(self, path: Path, state: dict) -> None:
        """In the background, see `checkpoint.Writer`; a failure is said when the next is saved, or by `settle`."""
        data = {
            "class_names": self.train.class_names,
            "category_ids": self.train.category_ids.tolist(),
            "class_counts": self.train.class_counts().tolist(),
            "num_images": len(self.train),
            "deployment": None,  # unless `state` has one
        }
        self.settle()
        keep = self.config.train.keep if path == self.directory.last else 0
        self.writer.start(path, {"config": self.config.model_dump(), **data, **state}, keep, before=self.log.flush)

    def settle(self) -> bool:
        """Wait for what is being saved; False, and a warning, where it could not be (on a full disk, say)."""
        try:
            self.writer.finish()
        except OSError as problem:
            self.log.say(f"warning: a checkpoint could not be saved ({problem.strerror}); the one before is kept")
            return False
        return True

    def close(self) -> None:
        """Wait for what is being saved, and close the logs."""
        try:
            self.settle()
        finally:
            self.writer.close()
            self.log.close()
