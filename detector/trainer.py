"""fit(): a training from its configuration to its checkpoints and figures, in the order in which it happens."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from detector import checkpoint
from detector.config import Config, TrainConfig, dump
from detector.data.coco import CocoData, check_images_exist, load_descriptor, read_coco
from detector.data.loader import Loader, train_loader
from detector.engine import train_one_epoch
from detector.evaluation.coco import coco_metrics
from detector.evaluation.draw import plot_curves
from detector.evaluation.tables import coco_table, per_class_table
from detector.evaluator import detect_split, draw_samples, write_evaluation
from detector.losses.criterion import build_criterion
from detector.models.build import build_model, build_postprocess
from detector.models.files import load_strictly
from detector.models.retinanet import RetinaNet
from detector.optim import build_optimizer, build_schedule, scaled_lr
from detector.utils.device import resolve_device, resolve_precision
from detector.utils.errors import InputError
from detector.utils.logging import RunLog, progress_bar
from detector.utils.seed import seed_everything
from detector.utils.signals import StopRequest

# What --resume may change: everything else would make it another training, half of the one and half of the other.
RESUMABLE = (
    "output_dir", "device", "data.workers", "eval.", "train.epochs", "train.log_every", "train.eval_every",
)  # fmt: skip
RUN_FILES = ("config.yaml", "checkpoints", "metrics.jsonl", "log.txt", "tensorboard", "eval")


@dataclass
class Progress:
    """Where a training stands: `batch` batches of epoch `epoch` are done, `step` optimizer steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated: int = 0  # epochs done at the last evaluation
    best_ap: float = -math.inf


@dataclass
class Training:
    """What moves during a training: all that a checkpoint holds of it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)

    def state(self) -> dict:
        parts = {key: getattr(self, key).state_dict() for key in ("model", "optimizer", "schedule", "scaler")}
        return parts | {"progress": asdict(self.progress)}

    def load(self, state: dict, source: str) -> None:
        load_strictly(self.model, state["model"], source=source)
        for key in ("optimizer", "schedule", "scaler"):
            getattr(self, key).load_state_dict(state[key])
        self.progress = Progress(**state["progress"])


def fit(config: Config, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train as `config` says, into `config.output_dir`.

    Returns 0, or 128 + the number of the signal that stopped it (after saving). Raises InputError.
    """
    directory, settings = Path(config.output_dir), config.train
    last = _open_run(config, resume, overwrite)
    device = resolve_device(config.device)
    precision, autocast = resolve_precision(settings.precision, device)
    train, val = read_training_data(config)

    seed_everything(config.seed)
    model, new_classes = _build_model(config, train, last)
    model.to(device, memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format)
    loader = train_loader(
        train,
        image_size=config.data.image_size,
        augment=config.data.augment,
        batch_size=settings.batch_size,
        workers=config.data.workers,
        seed=config.seed,
    )
    total_steps = settings.epochs * -(-len(loader) // settings.accumulate)
    optimizer = build_optimizer(model, settings, settings.batch_size * settings.accumulate)
    schedule = build_schedule(optimizer, settings, total_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    training = Training(model, optimizer, schedule, scaler)
    criterion = build_criterion(config.loss).to(device)
    if last:
        training.load(last, source=str(directory))
    progress = training.progress

    log = _start_log(directory, config, progress.step if last else None)
    _save(directory / "checkpoints" / "last.pt", config, train, training.state())  # from now on there is a run
    _introduce(log, config, train, val, model, f"{device.type}, {precision}", total_steps)
    if new_classes:
        log.say(f"{config.model.weights} does not know {', '.join(new_classes)}: these start from nothing")
    if last:
        log.say(f"resumed after {progress.epoch} epochs and {progress.batch} batches, at step {progress.step}")

    while progress.evaluated < settings.epochs:
        if progress.epoch > progress.evaluated and _is_evaluated(progress.epoch, settings):
            _evaluate(training, config, train, val, device, directory, log)
            _save(directory / "checkpoints" / "last.pt", config, train, training.state())
            continue
        with StopRequest() as stop:
            _train_epoch(training, criterion, loader, settings, autocast, device, log, stop)
            # before evaluating: if that fails or is stopped, the state is there
            _save(directory / "checkpoints" / "last.pt", config, train, training.state())
        if stop.signum:
            log.say(f"stopped by signal {stop.signum} at step {progress.step}; saved, continue with --resume")
            log.close()
            return 128 + stop.signum
    log.say(f"done; the best checkpoint on val has AP {progress.best_ap:.3f}, its figures and pictures are in")
    log.say(f"{directory / 'eval' / 'val'}, the curves in {directory / 'eval' / 'curves.png'}")
    log.close()
    return 0


def _is_evaluated(epoch: int, settings: TrainConfig) -> bool:
    return epoch % settings.eval_every == 0 or epoch >= settings.epochs


def read_training_data(config: Config) -> tuple[CocoData, CocoData]:
    """Train and val split, checked; val's classes are train's. Raises InputError."""
    descriptor = load_descriptor(config.data.dataset)
    train_split, val_split = descriptor.split("train"), descriptor.split("val")
    train = read_coco(train_split, descriptor.classes, config.data.bad_annotations)
    val = read_coco(val_split, train.class_names, config.data.bad_annotations)
    for data in (train, val):
        check_images_exist(data)
    if train.class_counts().sum() == 0:
        raise InputError(f"{train_split.annotations}: no object in the whole training set; nothing can be learnt")
    if val.class_counts().sum() == 0:
        raise InputError(f"{val_split.annotations}: no object in the whole val set; nothing can be measured")
    return train, val


def _open_run(config: Config, resume: bool, overwrite: bool) -> dict | None:
    """The checkpoint to resume from, or None where a new run may start. Raises InputError where it may not."""
    directory = Path(config.output_dir)
    if not resume:
        if not overwrite and any((directory / name).exists() for name in ("config.yaml", "checkpoints")):
            raise InputError(f"{directory}: holds a run already; say --resume, --overwrite or output_dir=another")
        return None
    last = checkpoint.load(directory / "checkpoints" / "last.pt")
    if "optimizer" not in last:
        raise InputError(f"{directory}: its last checkpoint holds only weights; a training cannot go on from it")
    for path, before, now in _changes(last["config"], config.model_dump()):
        if not path.startswith(RESUMABLE):
            raise InputError(
                f"{directory}: --resume goes on with the same training, but {path} was {before} and is {now}; "
                f"put it back, or start a new run with model.weights={directory}"
            )
    return last


def _build_model(config: Config, train: CocoData, last: dict | None) -> tuple[RetinaNet, list[str]]:
    """The model, with its first weights unless it resumes, and the classes that `model.weights` does not know."""
    class_names = train.class_names
    if last and (last["class_names"], last["num_images"]) != (class_names, len(train)):
        raise InputError(
            f"{config.output_dir}: --resume needs the same training set; it had {last['num_images']} images of "
            f"{', '.join(last['class_names'])}, now it has {len(train)} of {', '.join(class_names)}"
        )
    model = build_model(config.model, len(class_names), pretrained=last is None)
    if last or not config.model.weights:
        return model, []
    return model, checkpoint.start_from(model, config.model.weights, class_names)


def _start_log(directory: Path, config: Config, resume_step: int | None) -> RunLog:
    """The run directory and its log; a new run takes the place of an old one, file by file."""
    if resume_step is None:
        for path in (directory / name for name in RUN_FILES):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(dump(config))
    return RunLog(directory, resume_step)


def _changes(before: dict, now: dict, path: str = "") -> Iterator[tuple[str, object, object]]:
    """(dotted path, value before, value now) of every setting that differs."""
    for key in now:
        if isinstance(now[key], dict) and isinstance(before.get(key), dict):
            yield from _changes(before[key], now[key], f"{path}{key}.")
        elif before.get(key) != now[key]:
            yield f"{path}{key}", before.get(key), now[key]


def _introduce(
    log: RunLog, config: Config, train: CocoData, val: CocoData, model: nn.Module, place: str, total_steps: int
) -> None:
    """What is about to happen, on a few lines."""
    settings, counts = config.train, train.class_counts()
    effective = settings.batch_size * settings.accumulate
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    log.say(f"data: {len(train)} images with {counts.sum()} objects of {len(counts)} classes; {len(val)} val images")
    for name, count in sorted(zip(train.class_names, counts.tolist(), strict=True), key=lambda row: -row[1]):
        log.say(f"  {count:8d} {name}", to_console=len(counts) <= 20)
    for split, data in (("train", train), ("val", val)):
        for reason, count in data.dropped.items():
            log.say(f"  {split}: {count} annotations left out: {reason}")
    log.say(f"model: {config.model.backbone.name}, {parameters:.1f} M trained parameters, on {place}")
    log.say(
        f"training: {settings.epochs} epochs, {total_steps} steps of {effective} images; {settings.optimizer}, "
        f"{settings.schedule}, lr {scaled_lr(settings.lr, effective):g} ({settings.lr:g} for 16, scaled to {effective})"
    )


def _train_epoch(training: Training, criterion, loader: Loader, settings, autocast, device, log, stop) -> None:
    """From where the progress stands to the end of its epoch, or to the step at which `stop` asks to end."""
    progress = training.progress
    loader.set_position(progress.epoch, progress.batch)
    steps = train_one_epoch(
        training.model,
        criterion,
        loader,
        training.optimizer,
        training.schedule,
        training.scaler,
        device=device,
        autocast=autocast,
        start=progress.batch,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
    )
    name = f"epoch {progress.epoch + 1}/{settings.epochs}"
    with progress_bar() as bar:
        task = bar.add_task(name, total=len(loader), completed=progress.batch, note="")
        start, images = time.perf_counter(), 0
        for record in steps:
            progress.step += 1
            progress.batch = record.pop("batches")
            images += record.pop("images")
            record["images_per_second"] = images / (time.perf_counter() - start)
            bar.update(task, completed=progress.batch, note=f"loss {record['loss']:.3f}")
            if progress.step % settings.log_every == 0 or progress.batch == len(loader):
                log.numbers("train", progress.step, progress.epoch + 1, record)
            if stop.signum and progress.batch < len(loader):
                return
    progress.epoch, progress.batch = progress.epoch + 1, 0
    log.say(
        f"{name}: loss {record['loss']:.3f} (cls {record['loss_cls']:.3f}, box {record['loss_box']:.3f}), "
        f"lr {record['lr']:.2g}, {record['images_per_second']:.1f} images/s, {time.perf_counter() - start:.0f} s"
    )


def _evaluate(training: Training, config: Config, train: CocoData, val: CocoData, device, directory: Path, log) -> None:
    """Figures and pictures of val; the checkpoint, files and table of the best so far are kept."""
    progress = training.progress
    postprocess = build_postprocess(config.model.postprocess)
    detections = detect_split(training.model, postprocess, val, config, device)
    metrics = coco_metrics(detections, val, config.eval.backend)
    log.numbers("eval", progress.step, progress.epoch, metrics)
    samples = draw_samples(detections, val)
    log.picture("val: truth, detections", progress.step, samples)
    log.say(f"  val AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f}, AP75 {metrics['AP75']:.3f}")
    if metrics["AP"] > progress.best_ap:
        progress.best_ap = metrics["AP"]
        _save(directory / "checkpoints" / "best.pt", config, train, {"model": training.model.state_dict()})
        write_evaluation(directory / "eval" / "val", detections, val, metrics, samples)
    progress.evaluated = progress.epoch
    plot_curves(directory / "metrics.jsonl", directory / "eval" / "curves.png")
    if progress.epoch >= config.train.epochs:
        log.say(f"{coco_table(metrics)}\n{per_class_table(metrics)}")


def _save(path: Path, config: Config, train: CocoData, state: dict) -> None:
    data = {
        "class_names": train.class_names,
        "category_ids": train.category_ids.tolist(),
        "num_images": len(train),
    }
    checkpoint.save(path, {"config": config.model_dump(), **data, **state})
