"""What a training is about to do, on a few lines of its log."""

from __future__ import annotations

from collections.abc import Sequence

from detector.config.schema import Config
from detector.config.train import TrainConfig
from detector.data.loader import STRIDE
from detector.models.build import build_anchors
from detector.training.optim import OWN_RATES, rates, scaled_lr
from detector.training.state import Run
from detector.utils.device import device_name, resolve_precision
from detector.utils.text import counted

MOST_ON_CONSOLE = 20  # classes; log.txt has all


def introduce(run: Run, notes: Sequence[str]) -> None:
    """Data, `notes` on what was decided, model and schedule."""
    config, train, progress, log = run.config, run.train, run.progress, run.log
    counts = train.class_counts()
    log.say(
        f"data: {counted(len(train), 'image')} with {counted(counts.sum(), 'object')} of "
        f"{counted(len(counts), 'class')}; {counted(len(run.val), 'val image')}"
    )
    for name, count in sorted(zip(train.class_names, counts.tolist(), strict=True), key=lambda row: -row[1]):
        log.say(f"  {count:8d} {name}", to_console=len(counts) <= MOST_ON_CONSOLE)
    findings = _data_findings(run)
    for finding in findings:
        log.say(f"  {finding}")
    planned = {"device": device_name(run.device), "epochs": config.train.epochs, "findings": findings}
    log.line("start", progress.step, progress.epoch, planned)
    for note in notes:
        log.say(note)
    groups = run.training.optimizer.param_groups
    trained = sum(p.numel() for group in groups for p in group["params"]) / 1e6
    precision, _ = resolve_precision(config.train.precision, run.device)
    log.say(f"model: {config.model.backbone.name}, {trained:.1f} M trained parameters, on {run.device}, {precision}")
    if config.model.neck.finest == "p2":
        log.say(cost_of_p2(config))
    if run.frozen:
        log.say(f"frozen: {_frozen(run.frozen, config.train)}")
    settings, images = config.train, config.train.images_per_step
    log.say(
        f"training: {counted(settings.epochs, 'epoch')}, {counted(run.total_steps, 'step')} of "
        f"{counted(images, 'image')}; {settings.optimizer}, "
        f"{settings.schedule}, {_rates(settings)}"
    )
    if progress.step:
        done = f"{counted(progress.epoch, 'epoch')} and {counted(progress.batch, 'batch')}"
        log.say(f"resumed after {done}, at step {progress.step}")


def cost_of_p2(config: Config) -> str:
    """A line on what `model.neck.finest: p2` costs: the anchors of an image with and without that level."""
    size = config.data.image_size
    sides = (size, size) if isinstance(size, int) else (size.greatest, size.long)
    height, width = (-(-side // STRIDE) * STRIDE for side in sides)
    anchors = build_anchors(config.model)
    strides = [anchors.finest_stride * 2**level for level in range(6)]  # P2..P7
    grids = [(-(-height // stride), -(-width // stride)) for stride in strides]
    count, less = (sum(anchors.level_sizes(levels)) for levels in (grids, grids[1:]))
    return (
        f"model.neck.finest p2: {count} anchors for an image of {width}x{height} px instead of {less}: "
        f"{count / less:.1f} times the work of the head and of the loss"
    )


def _data_findings(run: Run) -> list[str]:
    """What is wrong with the annotations, a sentence each, for the log and for the report."""
    return [
        f"{split}: {remark}" for split, data in (("train", run.train), ("val", run.val)) for remark in data.remarks()
    ]


def _rates(settings: TrainConfig) -> str:
    """Learning rate and weight decay, how the one was scaled, and which are the optimizer's own."""
    given, own = rates(settings), OWN_RATES[settings.optimizer]
    whose = f"{settings.optimizer}'s own"
    rule = "by the square root" if settings.optimizer == "adamw" else "in proportion"
    lr = [f"{given.lr:g} for 16", whose if given.lr == own.lr else "", f"scaled to {settings.images_per_step} {rule}"]
    decay = f" ({whose})" if given.weight_decay == own.weight_decay else ""
    return f"lr {scaled_lr(settings):.3g} ({', '.join(filter(None, lr))}), weight decay {given.weight_decay:g}{decay}"


def _frozen(parts: list[str], settings: TrainConfig) -> str:
    unfrozen = [
        f"{part} until epoch {epoch}{', which this training does not reach' if epoch > settings.epochs else ''}"
        for part, epoch in settings.unfreeze.items()
    ]
    return f"{', '.join(parts)}{'; ' + ', '.join(unfrozen) if unfrozen else ''}"
