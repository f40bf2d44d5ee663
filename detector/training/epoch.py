"""A training epoch, or what is left of it: steps, records, saving on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from detector.losses.criterion import set_class_weights
from detector.models import freeze
from detector.training.anomalies import StepMonitor
from detector.training.class_warnings import neglected_classes, remedies
from detector.training.deadline import Deadline
from detector.training.engine import train_one_epoch
from detector.training.state import Run
from detector.utils.console import progress_bar
from detector.utils.signals import StopRequest


def train_epoch(run: Run, stop: StopRequest, deadline: Deadline) -> bool:
    """Train the rest of the epoch. End after a step if `stop` or the deadline asks for it. Returns True, because it
    ends between steps only.

    Raises InputError for an image that cannot be read, RunError if a loader process dies or too many steps are bad;
    the state is that of a whole step then, too.
    """
    progress, settings, log, training = run.progress, run.config.train, run.log, run.training
    freeze.set_frozen(training.model, run.frozen, settings.unfreeze, epoch=progress.epoch + 1)
    deferred = progress.epoch < run.config.deferred_epochs  # of the epoch alone, so a checkpoint need not record it
    set_class_weights(training.criterion, run.config.loss, run.shown, deferred=deferred)
    name = f"epoch {progress.epoch + 1}/{settings.epochs}"
    monitor, last = StepMonitor(run), None
    with progress_bar() as bar:
        task = bar.add_task(name, total=len(run.loader), completed=progress.batch)
        start, images = time.perf_counter(), 0
        for record in _steps(run):
            progress.step += 1
            progress.batch = record.pop("batches")
            _note_micro_batches(run, record.pop("micro_batches"))
            images += record.pop("images")
            if monitor.accept(record):
                if training.ema:
                    training.ema.update_parameters(training.model)
                record["images_per_second"] = images / (time.perf_counter() - start)
                bar.update(task, completed=progress.batch, note=f"loss {record['loss']:.3f}")
                if progress.step % settings.log_every == 0 or progress.batch == len(run.loader):
                    record |= training.criterion.classification.figures()
                    log.numbers("train", progress.step, progress.epoch + 1, record)
                last = record
            if progress.batch < len(run.loader):
                if stop.signum or deadline.is_over():
                    return True
                _save_within_epoch(run, stop)
    progress.epoch, progress.batch = progress.epoch + 1, 0
    log.say(_summary(name, last, time.perf_counter() - start))
    for line in monitor.summary():
        log.say(f"  {line}")
    _log_classes(run)
    return True


def _steps(run: Run) -> Iterator[dict[str, Any]]:
    """Train on the rest of the epoch; a record after every step."""
    training, progress, settings = run.training, run.progress, run.config.train
    run.loader.set_position(progress.epoch, progress.batch)
    if progress.batch == 0:
        training.statistics.reset()
    return train_one_epoch(
        training.model,
        training.criterion,
        run.loader,
        training.optimizer,
        training.schedule,
        training.scaler,
        device=run.device,
        autocast=run.autocast,
        start=progress.batch,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        micro_batches=progress.micro_batches,
    )


def _save_within_epoch(run: Run, stop: StopRequest) -> None:
    """Save as SIGUSR1 asks, or every `train.save_every` steps."""
    step, save_every = run.progress.step, run.config.train.save_every
    if stop.save:
        stop.save = False
        run.saver.save_last(run.training.state())
        run.log.say(f"{'saved' if run.saver.wait() else 'not saved'} at step {step}, as SIGUSR1 asks")
    elif save_every and step % save_every == 0:
        run.saver.save_last(run.training.state())


def _note_micro_batches(run: Run, micro_batches: int) -> None:
    """Remember into how many parts batches are divided, and say so when that changes."""
    progress = run.progress
    if micro_batches > progress.micro_batches:
        progress.micro_batches = micro_batches
        modules = run.training.model.modules()
        looks_at_batch = any(isinstance(module, _BatchNorm) and module.training for module in modules)
        effect = "but batch norm sees only a part" if looks_at_batch else "with the same gradient"
        run.log.say(
            f"a batch (train.batch_size={run.config.train.batch_size}) does not fit into the memory of {run.device}: "
            f"computed in {micro_batches} micro-batches from step {progress.step} on, {effect}"
        )


def _summary(name: str, last: dict[str, Any] | None, seconds: float) -> str:
    """last: the record of the epoch's last good step; None if it had none."""
    if last is None:
        return f"{name}: no step was taken, {seconds:.0f} s"
    parts = ", ".join(f"{key.removeprefix('loss_')} {last[key]:.3f}" for key in last if key.startswith("loss_"))
    return (
        f"{name}: loss {last['loss']:.3f} ({parts}), lr {last['lr']:.2g}, {last['images_per_second']:.1f} images/s, "
        f"{seconds:.0f} s"
    )


def _log_classes(run: Run) -> None:
    """How each class fared in the epoch's loss, and a warning for each that is neglected."""
    figures = run.training.statistics.summary(run.train.class_names)
    run.log.per_class(run.progress.step, run.progress.epoch, figures)
    for line in neglected_classes(figures["per_class"], remedies(run.config, run.training.criterion.classification)):
        run.log.say(f"  {line}")
