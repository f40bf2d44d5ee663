"""fit(): a training from its configuration to its checkpoints and figures, in the order in which it happens."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from detector import checkpoint
from detector.config.schema import Config, TrainConfig
from detector.data.loader import Loader
from detector.losses.class_alpha import alpha_table
from detector.losses.class_statistics import ClassStatistics, sample_every
from detector.losses.criterion import build_criterion
from detector.models import freeze
from detector.models.build import build_model
from detector.models.retinanet import RetinaNet
from detector.models.weights.transfer import LOGITS, Transfer
from detector.training.anomalies import Deadline, Watch
from detector.training.auto import imbalance
from detector.training.auto.batch_size import choose_batch_size
from detector.training.class_warnings import remedies, warnings_of
from detector.training.directory import RunDirectory, check_same_data
from detector.training.engine import train_one_epoch
from detector.training.log import RunLog
from detector.training.optim import build_ema, build_optimizer, build_schedule, scaled_lr
from detector.training.setup import build_loader, read_training_data
from detector.training.state import Progress, Run, Training
from detector.training.validation import conclude, evaluate_epoch, keep_best, look_for_best
from detector.utils.console import progress_bar
from detector.utils.device import resolve_device, resolve_precision
from detector.utils.errors import InputError, RunError
from detector.utils.lock import locked
from detector.utils.names import shortened
from detector.utils.seed import seed_everything, set_deterministic
from detector.utils.signals import StopRequest


def fit(config: Config, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train as `config` says, into `config.output_dir`.

    Returns 0 when it is done or its time is over, or 128 + the number of the signal that stopped it (after saving).
    Raises InputError, also where another process works in that directory, and RunError, after saving if it had begun.
    """
    deadline = Deadline(config.train.max_hours, time.monotonic())
    directory = RunDirectory(config)
    with locked(directory.path):
        return _fit(config, directory, resume, overwrite, deadline)


def _fit(config: Config, directory: RunDirectory, resume: bool, overwrite: bool, deadline: Deadline) -> int:
    settings = config.train
    last = directory.checkpoint_to_resume(config) if resume else None
    if not resume and not overwrite:
        directory.check_free()
    device = resolve_device(config.device)
    precision, autocast = resolve_precision(settings.precision, device)
    set_deterministic(settings.deterministic)
    train, val = read_training_data(config)
    if last:
        check_same_data(last, train, directory.path)

    notes = imbalance.choose(config, train)
    seed_everything(config.seed)
    model = build_model(config.model, len(train.class_names), pretrained=last is None)
    transfer = None
    if config.model.weights and not last:
        transfer = checkpoint.start_from(model, config.model.weights, train.class_names, config.model.class_map)
        notes += transfer.lines()
    frozen = freeze.resolve(model, settings.freeze, settings.unfreeze)
    if not last:
        notes += _check_frozen(config, model, frozen, transfer)
    if settings.batch_size == "auto":
        settings.batch_size, why = choose_batch_size(config, train, device)
        notes.append(why)
    loader, proportions = build_loader(config, train)
    total_steps = settings.epochs * -(-len(loader) // settings.accumulate)
    classes = (train.class_counts(), train.class_names)
    statistics = ClassStatistics(len(train.class_names))
    criterion = build_criterion(config.loss, *classes, statistics, sample_every(len(loader))).to(device)
    notes += [*proportions, *alpha_table(config.loss, *classes)]
    training = _build_training(settings, model, criterion, frozen, total_steps, device, autocast)
    training.progress.evaluated = -1 if transfer and transfer.kept else 0
    if last:
        training.load(last, source=str(directory.path))
        notes += look_for_best(directory, training.progress)
    progress = training.progress
    log = directory.open_log(config, (progress.step, progress.evaluated) if last else None)
    with closing(Run(config, directory, train, val, device, autocast, frozen, log)) as run:
        if not last:
            run.save(directory.last, training.state())  # from now on there is a run
            if not run.settle():
                raise RunError(f"{directory.path}: not even the first checkpoint could be saved; see above")
        directory.write_config(config)
        _introduce(run, training, notes, precision, total_steps)
        exit_code = _run_epochs(run, training, loader, deadline)
        if exit_code is None:
            _save_the_rest(run, training)
            conclude(run, progress, _ran_out_of_patience(progress, settings))
    return exit_code or 0


def _check_frozen(config: Config, model: RetinaNet, frozen: list[str], transfer: Transfer | None) -> list[str]:
    """A warning where what nothing was loaded into is never trained. Raises InputError if new classes are not."""
    unfreeze = config.train.unfreeze
    never = set(freeze.frozen_parameters(model, frozen, unfreeze, epoch=math.inf))
    if transfer and transfer.new and never & set(LOGITS):
        raise InputError(
            f"train.freeze: with the classification head frozen, {shortened(transfer.new)} can never be learnt"
        )
    if transfer:
        fresh = transfer.fresh
    else:
        pretrained = "backbone.body." if config.model.backbone.weights else ()
        fresh = {name for name, _ in model.named_parameters() if not name.startswith(pretrained)}
    random = sorted(never & fresh)
    return [f"warning: frozen for good, though nothing was loaded into it: {shortened(random, 3)}"] if random else []


def _build_training(
    settings: TrainConfig, model: RetinaNet, criterion, frozen: list[str], total_steps: int, device, autocast
) -> Training:
    model.to(device, memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format)
    # The optimizer gets all that is ever trained: what has no gradient yet costs it nothing, and its groups stay.
    freeze.set_frozen(model, frozen, settings.unfreeze, epoch=math.inf)
    optimizer = build_optimizer(model, settings, settings.batch_size * settings.accumulate)
    return Training(
        model,
        build_ema(model, settings.ema) if settings.ema else None,
        criterion,
        optimizer,
        build_schedule(optimizer, settings, total_steps),
        torch.amp.GradScaler(device.type, enabled=autocast is torch.float16),
    )


def _introduce(run: Run, training: Training, notes: list[str], precision: str, total_steps: int) -> None:
    """What is about to happen, on a few lines."""
    settings, train, log = run.config.train, run.train, run.log
    counts, progress = train.class_counts(), training.progress
    log.say(
        f"data: {len(train)} images with {counts.sum()} objects of {len(counts)} classes; {len(run.val)} val images"
    )
    for name, count in sorted(zip(train.class_names, counts.tolist(), strict=True), key=lambda row: -row[1]):
        log.say(f"  {count:8d} {name}", to_console=len(counts) <= 20)
    for split, data in (("train", train), ("val", run.val)):
        for reason, count in data.dropped.items():
            log.say(f"  {split}: {count} annotations left out: {reason}")
    for note in notes:
        log.say(note)
    trained = sum(p.numel() for group in training.optimizer.param_groups for p in group["params"]) / 1e6
    log.say(
        f"model: {run.config.model.backbone.name}, {trained:.1f} M trained parameters, on {run.device}, {precision}"
    )
    if run.frozen:
        later = [
            f"{part} until epoch {epoch}{', which this training does not reach' if epoch > settings.epochs else ''}"
            for part, epoch in settings.unfreeze.items()
        ]
        log.say(f"frozen: {', '.join(run.frozen)}{'; ' + ', '.join(later) if later else ''}")
    effective = settings.batch_size * settings.accumulate
    log.say(
        f"training: {settings.epochs} epochs, {total_steps} steps of {effective} images; {settings.optimizer}, "
        f"{settings.schedule}, lr {scaled_lr(settings.lr, effective):g} ({settings.lr:g} for 16, scaled to {effective})"
    )
    if progress.step:
        log.say(f"resumed after {progress.epoch} epochs and {progress.batch} batches, at step {progress.step}")


def _run_epochs(run: Run, training: Training, loader: Loader, deadline: Deadline) -> int | None:
    """Train and evaluate until the end (None), or until a signal or the time stops it (the exit code)."""
    progress, settings, log = training.progress, run.config.train, run.log
    while not _is_finished(progress, settings):
        evaluating = progress.epoch > progress.evaluated and _is_evaluated(progress.epoch, settings)
        with StopRequest() as stop:
            try:
                if evaluating:
                    done = evaluate_epoch(run, training, stop)
                else:
                    freeze.set_frozen(training.model, run.frozen, settings.unfreeze, epoch=progress.epoch + 1)
                    _train_epoch(run, training, loader, stop, deadline)
            except (InputError, RunError) as problem:
                keep_best(run, training)
                saved = _saved(run) if evaluating else _save(run, training)
                raise type(problem)(f"{problem} ({saved} at step {progress.step}; go on with --resume)") from None
            keep_best(run, training)
            if not evaluating or done:  # before evaluating, too: if that fails or is stopped, the state is there
                run.save(run.directory.last, training.state())
            saved = _saved(run) if stop.signum or stop.save else ""
        if stop.save:  # that came after the epoch's last step
            log.say(f"{saved} at step {progress.step}, as SIGUSR1 asks")
        if stop.signum:
            log.say(f"stopped by signal {stop.signum} at step {progress.step}; {saved}, continue with --resume")
            return 128 + stop.signum
        if deadline.is_over() and not _is_finished(progress, settings):
            log.say(
                f"train.max_hours: {settings.max_hours:g} h are over at step {progress.step}; {_saved(run)}, "
                "continue with --resume (and another train.max_hours, if you like)"
            )
            return 0
    return None


def _save(run: Run, training: Training) -> str:
    """Save the last checkpoint; as `_saved`."""
    run.save(run.directory.last, training.state())
    return _saved(run)


def _saved(run: Run) -> str:
    """Wait for what is being saved: "saved", or "not saved" where it turns out to be impossible."""
    return "saved" if run.settle() else "not saved"


def _save_the_rest(run: Run, training: Training) -> None:
    """Raises RunError where the end of a training cannot be saved."""
    saved = run.settle()
    keep_best(run, training)
    if not saved:
        saved = _save(run, training) == "saved"
    if not saved or training.unsaved:
        what = "the best checkpoint or its figures" if saved else "the last checkpoint"
        raise RunError(f"{run.directory.path}: {what} could not be saved, see above; make room and go on with --resume")


def _is_finished(progress: Progress, settings: TrainConfig) -> bool:
    return progress.evaluated >= settings.epochs or _ran_out_of_patience(progress, settings)


def _ran_out_of_patience(progress: Progress, settings: TrainConfig) -> bool:
    return settings.patience is not None and progress.evaluated - progress.best_epoch >= settings.patience


def _is_evaluated(epoch: int, settings: TrainConfig) -> bool:
    return epoch % settings.eval_every == 0 or epoch >= settings.epochs


def _train_epoch(run: Run, training: Training, loader: Loader, stop: StopRequest, deadline: Deadline) -> None:
    """From where the progress stands to the end of its epoch, or to the step at which `stop` or the time asks to end.

    Raises InputError for an image that cannot be used, RunError where a loader process dies or too many steps are bad:
    then, too, the state is that of a whole step.
    """
    progress, settings, log = training.progress, run.config.train, run.log
    name = f"epoch {progress.epoch + 1}/{settings.epochs}"
    watch, summary = Watch(run, training), None
    with progress_bar() as bar:
        task = bar.add_task(name, total=len(loader), completed=progress.batch, note="")
        start, images = time.perf_counter(), 0
        for record in _steps(run, training, loader):
            progress.step += 1
            progress.batch = record.pop("batches")
            _note_split(record.pop("split"), training.model, progress, run)
            images += record.pop("images")
            if watch.is_good(record):
                if training.ema:
                    training.ema.update_parameters(training.model)
                record["images_per_second"] = images / (time.perf_counter() - start)
                bar.update(task, completed=progress.batch, note=f"loss {record['loss']:.3f}")
                if progress.step % settings.log_every == 0 or progress.batch == len(loader):
                    record |= training.criterion.classification.figures()
                    log.numbers("train", progress.step, progress.epoch + 1, record)
                summary = record
            if progress.batch < len(loader):
                if stop.signum or deadline.is_over():
                    return
                if stop.save:
                    stop.save = False
                    log.say(f"{_save(run, training)} at step {progress.step}, as SIGUSR1 asks")
                elif settings.save_every and progress.step % settings.save_every == 0:
                    run.save(run.directory.last, training.state())
    progress.epoch, progress.batch = progress.epoch + 1, 0
    _say_epoch(name, summary, time.perf_counter() - start, log)
    for line in watch.summary():
        log.say(f"  {line}")
    _log_classes(run, training)


def _steps(run: Run, training: Training, loader: Loader) -> Iterator[dict]:
    """Trains on the rest of the epoch; a record after every step."""
    progress, settings = training.progress, run.config.train
    loader.set_position(progress.epoch, progress.batch)
    if progress.batch == 0:
        training.criterion.statistics.reset()
    return train_one_epoch(
        training.model,
        training.criterion,
        loader,
        training.optimizer,
        training.schedule,
        training.scaler,
        device=run.device,
        autocast=run.autocast,
        start=progress.batch,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        split=progress.split,
    )


def _say_epoch(name: str, last: dict | None, seconds: float, log: RunLog) -> None:
    """last: record of the epoch's last good step, None if it had none."""
    if last is None:
        log.say(f"{name}: no step was taken, {seconds:.0f} s")
        return
    log.say(
        f"{name}: loss {last['loss']:.3f} (cls {last['loss_cls']:.3f}, box {last['loss_box']:.3f}), "
        f"lr {last['lr']:.2g}, {last['images_per_second']:.1f} images/s, {seconds:.0f} s"
    )


def _log_classes(run: Run, training: Training) -> None:
    """How each class fared in the epoch's loss, and a sentence where one is left behind."""
    progress = training.progress
    figures = training.criterion.statistics.summary(run.train.class_names)
    run.log.per_class(progress.step, progress.epoch, figures)
    for line in warnings_of(figures["per_class"], remedies(run.config)):
        run.log.say(f"  {line}")


def _note_split(split: int, model: RetinaNet, progress: Progress, run: Run) -> None:
    if split > progress.split:
        progress.split = split
        looks_at_batch = any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
        same = "but batch norm sees only a part" if looks_at_batch else "with the same gradient"
        run.log.say(
            f"{run.config.train.batch_size} images do not fit into the memory of {run.device}: "
            f"computed in {split} parts from step {progress.step} on, {same}"
        )
