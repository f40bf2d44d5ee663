"""Whether a run may be resumed, from which checkpoint, and with which configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from detector import checkpoint
from detector.config.file import differences, validate
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.training.auto import imbalance
from detector.training.directory import RunDirectory
from detector.training.optim import lr_factors, scaled_lr
from detector.training.state import Progress
from detector.utils.console import console
from detector.utils.errors import InputError
from detector.utils.text import counted, shell_word

# Settings that --resume may change. Any other would mix two trainings in one run.
CHANGEABLE = (
    "output_dir", "device", "data.workers", "eval.", "train.epochs", "train.patience", "train.log_every",
    "train.eval_every", "train.save_every", "train.keep", "train.max_hours", "train.max_bad_steps", "data.bad_images",
)  # fmt: skip

# Settings of `train` that are not given where they have this value: then what the run has counts, whether it chose that
# itself or was told.
CHOSEN = {"batch_size": "auto", "lr": None, "weight_decay": None}


def load_last(directory: RunDirectory) -> dict[str, Any]:
    """The newest last checkpoint that is not damaged; damaged ones are named and set aside.

    Raises InputError where there is none.
    """
    files = checkpoint.history(directory.last)
    if not files:
        raise InputError(f"{directory.path}: no run to resume (no {directory.last}); start it without --resume")
    last, file, problems = checkpoint.load_newest(directory.last)
    for damaged, problem in zip(files, problems, strict=False):
        console.print(f"warning: {problem}")
        damaged.replace(damaged.with_suffix(".damaged"))  # or the next save would keep it as last.1.pt
    if file != directory.last:
        console.print(f"warning: resuming from the newest checkpoint that is not damaged, {file}")
    if "optimizer" not in last:
        raise InputError(f"{directory.path}: its last checkpoint holds only weights; a training cannot resume from it")
    return last


def resumed_config(config: Config, last: dict[str, Any], directory: RunDirectory) -> Config:
    """The configuration, with what the run has in place of settings that are not given.

    Raises InputError if a setting outside CHANGEABLE differs from the run's.
    """
    begun = validate(last["config"], str(directory.last))
    taken = [name for name, chosen in CHOSEN.items() if getattr(config.train, name) == chosen]
    config = config.changed({f"train.{name}": getattr(begun.train, name) for name in taken})
    config = config.with_anchor_rule(begun.model.anchors.resolved_rule)
    config = imbalance.as_chosen(config, begun)
    for name, before, now in differences(begun.model_dump(), config.model_dump()):
        if not name.startswith(CHANGEABLE):
            raise InputError(
                f"{directory.path}: --resume continues the same training, but {name} was {before} and is {now}; "
                f"put it back, or start a new run with {shell_word(f'model.weights={directory.path}')}"
            )
    return config


def check_same_data(last: dict[str, Any], train: CocoData, val: CocoData, directory: Path) -> None:
    """Raises InputError unless classes, images and boxes are those that the checkpoint's run began with.

    A checkpoint of an earlier version has no fingerprints: then only classes and the number of images are compared.
    """
    if (last["class_names"], last["num_images"]) != (train.class_names, len(train)):
        raise InputError(
            f"{directory}: --resume needs the same training set; it had {counted(last['num_images'], 'image')} of "
            f"{', '.join(last['class_names'])}, now it has {len(train)} of {', '.join(train.class_names)}"
        )
    for name, data in (("train", train), ("val", val)):
        if last.get("fingerprints", {}).get(name) not in (None, data.fingerprint()):
            raise InputError(
                f"{directory}: --resume needs the same data, but the annotations of {name} (ids, file names, sizes or "
                f"boxes) have changed; put them back, or start a new run with "
                f"{shell_word(f'model.weights={directory}')}"
            )


def changed_length(begun: Config, config: Config, epoch_steps: int, progress: Progress) -> list[str]:
    """A line on what another `train.epochs` than the run's does to the learning rate, to weights by class and to mosaic
    and mixup; none if it is the same. epoch_steps: optimizer steps of an epoch."""
    if begun.train.epochs == config.train.epochs:
        return []
    before, now = (lr_factors(one.train, one.train.epochs * epoch_steps) for one in (begun, config))
    step, lr = progress.step, scaled_lr(config.train)
    change = f"train.epochs was {begun.train.epochs} and is {config.train.epochs}"
    rates = f"at step {step} the learning rate was {lr * before(step):.3g} and is {lr * now(step):.3g}"
    turns = [
        ("weights by class apply", begun.deferred_epochs, config.deferred_epochs),
        ("mosaic and mixup end", begun.mixed_epochs, config.mixed_epochs),
    ]
    moved = [turn for turn in turns if turn[1] != turn[2]]
    later = "".join(f"; {what} after epoch {new} instead of {old}" for what, old, new in moved)
    lies_ahead = all((progress.epoch, progress.batch) <= (min(old, new), 0) for _, old, new in moved)
    if all(before(done) == now(done) for done in range(step)) and lies_ahead:
        return [f"{change}: the steps so far are those of a training of {config.train.epochs} epochs; {rates}{later}"]
    return [
        f"warning: {change}, which stretches the schedule: from here on this is neither the training that began nor "
        f"one of {config.train.epochs} epochs; {rates}{later}"
    ]


def reconcile_best(directory: RunDirectory, progress: Progress) -> list[str]:
    """Make `progress` agree with best.pt, before a training resumes. Returns warnings.

    If best.pt is newer than last.pt, it stays the best until it is beaten or its epoch is evaluated again. If it is
    older or lost, the best of the coming epochs replaces it. If the model still has the weights of the best epoch, that
    epoch is evaluated again.
    """
    try:
        epoch, value = read_evaluated(directory)
    except InputError as problem:
        if progress.best == -math.inf:
            return []
        epoch, value, warnings = -1, -math.inf, [f"warning: {problem}; the next best checkpoint replaces it"]
    else:
        warnings = []
    if epoch >= progress.best_epoch and not warnings:
        progress.best, progress.best_epoch = value, epoch
        return []
    progress.best = value  # best_epoch stays: patience counts from the last improvement
    if (progress.epoch, progress.batch) == (progress.best_epoch, 0):
        progress.evaluated = progress.epoch - 1
    return warnings


def read_evaluated(directory: RunDirectory) -> tuple[int, float]:
    """Epoch and `train.metric` of best.pt. Raises InputError where it is lost."""
    match checkpoint.load(directory.best).get("evaluated"):
        case {"epoch": int(epoch), "value": float(value)}:
            return epoch, value
    raise InputError(f"{directory.best}: does not say which epoch it is of")
