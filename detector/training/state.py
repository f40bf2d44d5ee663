"""A training under way: what changes in it and goes into last.pt, and what stays the same."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.data.loader import Loader
from detector.losses.class_statistics import ClassStatistics
from detector.losses.criterion import Criterion
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import load_strictly
from detector.training.directory import RunDirectory
from detector.training.log import RunLog
from detector.training.optim import set_lr
from detector.training.saver import Saver
from detector.utils.errors import InputError
from detector.utils.randomness import random_state, set_random_state
from detector.utils.text import shell_word


@dataclass
class Progress:
    """How far a training is: `batch` batches of epoch `epoch` (from 0) are done, `step` optimizer steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated: int = 0
    """Epochs done at the last evaluation; -1: the weights are to be evaluated before the first step."""
    best: float = -math.inf
    """Greatest value of `train.metric`."""
    best_epoch: int = 0
    """Epochs done when `best` was reached. `train.patience` counts from here."""
    micro_batches: int = 1
    """Parts that a batch must be computed in, for want of memory."""
    bad_steps: int = 0
    """Steps that were skipped because their loss or gradient was not finite."""
    bad_in_a_row: int = 0
    """Of these, the ones since the last good step."""
    replaced: int = 0
    """Images that could not be read and were replaced by others."""
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the last good steps, to recognise a jump (anomalies.py)."""

    def is_out_of_patience(self, config: Config) -> bool:
        """Whether `train.metric` has not improved for `train.patience` epochs, nor since the weights by class apply."""
        since = max(self.best_epoch, config.deferred_epochs)
        return config.train.patience is not None and self.evaluated - since >= config.train.patience

    def is_finished(self, config: Config) -> bool:
        """Whether the last epoch is evaluated, or patience is over."""
        return self.evaluated >= config.train.epochs or self.is_out_of_patience(config)


STATEFUL = ("criterion", "optimizer", "schedule", "scaler")


@dataclass
class Training:
    """What changes during a training: all of it goes into last.pt."""

    model: RetinaNet
    ema: AveragedModel | None
    criterion: Criterion
    optimizer: Optimizer
    schedule: LambdaLR
    scaler: GradScaler
    progress: Progress = field(default_factory=Progress)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def statistics(self) -> ClassStatistics:
        """How each class fares in the loss of this epoch."""
        assert self.criterion.statistics is not None
        return self.criterion.statistics

    @property
    def detector(self) -> RetinaNet:
        """The model that is evaluated and used: the moving average if there is one."""
        return cast(RetinaNet, self.ema.module) if self.ema else self.model

    def state(self) -> dict[str, Any]:
        """The contents of last.pt, tensors not copied."""
        state = {key: getattr(self, key).state_dict() for key in STATEFUL}
        if self.ema:
            state |= {"unaveraged": self.model.state_dict(), "averaged": int(self.ema.n_averaged)}
        return {
            "model": self.detector.state_dict(),
            **state,
            "progress": asdict(self.progress),
            "random": random_state(self.device),
        }

    def load(self, state: dict[str, Any], source: str) -> None:
        """Go on from the contents of last.pt. Raises InputError if they are of another training."""
        load_strictly(self.detector, state["model"], source=source)
        if self.ema:
            load_strictly(self.model, state["unaveraged"], source=source)
            self.ema.n_averaged.fill_(state["averaged"])
        try:
            for key in STATEFUL:
                getattr(self, key).load_state_dict(state[key])
            set_lr(self.schedule)
            self.progress = Progress(**state["progress"])
            if any(type(value) is not type(getattr(Progress(), key)) for key, value in vars(self.progress).items()):
                raise TypeError
            set_random_state(state["random"], self.device)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            raise InputError(
                f"{source}: this version cannot continue its training; start a new run with "
                f"{shell_word(f'model.weights={source}')}"
            ) from None


@dataclass(frozen=True)
class Prepared:
    """Everything that `prepare` makes of a configuration (setup.py)."""

    config: Config
    """Resolved: it holds what `imbalance: auto` and `batch_size: auto` chose."""
    train: CocoData
    val: CocoData
    loader: Loader
    device: torch.device
    autocast: torch.dtype | None
    """None is float32."""
    frozen: list[str]
    """The parts of `train.freeze`."""
    training: Training
    total_steps: int
    """Optimizer steps of the whole training."""
    shown: np.ndarray
    """(K,) int64, boxes of each class that an epoch shows on average, after sampling and pasting."""
    notes: list[str]
    """What was decided on the way, for the log."""


@dataclass(frozen=True)
class Run(Prepared):
    """A prepared training and where it writes."""

    directory: RunDirectory
    log: RunLog
    saver: Saver

    @property
    def progress(self) -> Progress:
        return self.training.progress

    def close(self) -> None:
        """Wait for the checkpoint that is being written, and close the logs."""
        try:
            self.saver.close()
        finally:
            self.log.close()
