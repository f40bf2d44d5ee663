"""prepare(): from a configuration to everything that a training needs: data, model, criterion, optimizer, loader."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.amp import GradScaler
from torchvision.ops import DeformConv2d

from detector import checkpoint
from detector.config.file import validate
from detector.config.schema import Config
from detector.data.coco import CocoData, UnknownClass
from detector.data.exposure import exposure
from detector.data.loader import Loader, train_loader
from detector.data.mixing.mixer import build_mixer
from detector.data.resampling import image_weights
from detector.data.split import read_split
from detector.evaluation.metrics.coco import check_measurable
from detector.inference.config_check import check_config
from detector.losses.class_alpha import alpha_lines
from detector.losses.class_statistics import ClassStatistics, sample_every
from detector.losses.criterion import build_criterion
from detector.models import freeze
from detector.models.build import build_model, to_device
from detector.models.limits import check_size
from detector.models.retinanet import RetinaNet
from detector.models.weights.transfer import LOGITS, Transfer, transfer
from detector.training.auto import imbalance
from detector.training.auto.batch_size import choose_batch_size
from detector.training.optim import build_ema, build_optimizer, build_schedule, rates
from detector.training.resume import changed_length, check_same_data
from detector.training.state import Prepared, Training
from detector.utils.device import resolve_device, resolve_precision
from detector.utils.errors import InputError
from detector.utils.randomness import seed_everything, set_deterministic
from detector.utils.text import command, shortened


def prepare(config: Config, last: dict[str, Any] | None = None) -> Prepared:
    """Read the data, resolve what is `auto`, and build model, criterion, optimizer and loader.

    last: the checkpoint to resume from, which `config` belongs to. All weights come from it. Raises InputError for
    whatever is wrong with the configuration or the data.
    """
    check_config(config)
    chosen_rates = rates(config.train)._asdict()
    config = config.changed({f"train.{name}": value for name, value in chosen_rates.items()})
    device = resolve_device(config.device)
    set_deterministic(config.train.deterministic)
    train, val = read_training_data(config)
    if last:
        check_same_data(last, train, val, config.run_directory)
    notes: list[str] = []
    if chosen := imbalance.choose(config, train):
        config = imbalance.apply(config, chosen)
        notes += chosen.lines()

    seed_everything(config.seed)
    config, model, loaded = _build(config, train, is_new=last is None)
    if config.train.deterministic:
        check_deterministic(model, device)
    notes += [*loaded.lines(), f"model.anchors.rule: {config.model.anchors.rule}"] if loaded else []
    frozen = freeze.resolve(model, config.train.freeze, config.train.unfreeze)
    notes += _check_frozen(config, model, frozen, loaded) if last is None else []
    if config.train.batch_size == "auto":  # measured last, because it takes a while
        batch_size = choose_batch_size(config, train, device)
        config = config.changed({"train.batch_size": batch_size.size})
        notes.append(batch_size.line())
    loader, shown, loader_notes = build_loader(config, train)
    total_steps = config.train.epochs * -(-len(loader) // config.train.accumulate)
    training = build_training(
        config,
        model,
        frozen,
        class_names=train.class_names,
        shown=shown,
        batches=len(loader),
        total_steps=total_steps,
        device=device,
    )
    if last is None:
        training.progress.evaluated = -1 if loaded and loaded.kept else 0
    else:
        training.load(last, source=str(config.run_directory))
        begun = validate(last["config"], str(config.run_directory))
        notes += changed_length(begun, config, total_steps // config.train.epochs, training.progress)
    built = training.criterion.classification
    notes += [*loader_notes, *alpha_lines(config.loss, built, shown, train.class_names)]
    _, autocast = resolve_precision(config.train.precision, device)
    return Prepared(config, train, val, loader, device, autocast, frozen, training, total_steps, shown, notes)


def read_training_data(config: Config) -> tuple[CocoData, CocoData]:
    """The train and val splits, checked; val has the classes of train. Raises InputError."""
    train = read_split(config, "train", check_images=config.data.bad_images == "error")
    check_size(config, len(train.class_names))
    val = _read_val(config, train)
    for name, data, verb in (("train", train, "learnt"), ("val", val, "measured")):
        if data.class_counts().sum() == 0:
            raise InputError(f"{config.data.dataset}: no object in the whole {name} split; nothing can be {verb}")
    check_measurable(config.train.metric, val, train.class_counts())
    return train, val


def _read_val(config: Config, train: CocoData) -> CocoData:
    try:
        return read_split(config, "val", train.class_names)
    except UnknownClass as problem:
        repair = command("tools/doctor.py", config.data.dataset, "--fix", "OUT.json", "--split", "val")
        raise InputError(f"{problem}; if val has no such object, `{repair}` adds the category") from None


def build_loader(config: Config, train: CocoData) -> tuple[Loader, np.ndarray, list[str]]:
    """The training batches; (K,) int64 boxes of each class that an epoch of them shows, on average; and lines on what
    sampling and pasting do to each class. Raises InputError."""
    weights, lines = image_weights(train, config.data.sampling, config.data.repeat_threshold)
    if config.data.sampling != "uniform":
        lines = [*lines, *exposure(train, weights).lines()]
    mixer = build_mixer(config, train, weights)
    assert isinstance(config.train.batch_size, int)
    loader = train_loader(
        train,
        image_size=config.data.image_size,
        transforms=config.augment.transforms,
        batch_size=config.train.batch_size,
        workers=config.data.workers,
        seed=config.seed,
        weights=weights,
        mixer=mixer,
        replace_bad=config.data.bad_images == "replace",
    )
    return loader, np.rint(mixer.shown).astype(np.int64), [*lines, *mixer.lines()]


def build_training(
    config: Config,
    model: RetinaNet,
    frozen: list[str],
    *,
    class_names: list[str],
    shown: np.ndarray,
    batches: int,
    total_steps: int,
    device: torch.device,
) -> Training:
    """Model, criterion, optimizer, schedule and scaler on the device, as of the start of a training.

    shown: (K,) int64, boxes of each class that an epoch shows. batches: per epoch. Also for measuring a step's memory
    (step_memory.py) and for replaying a bad step (replay.py).
    """
    settings = config.train
    statistics = ClassStatistics(len(class_names))
    criterion = build_criterion(config.loss, shown, class_names, statistics, sample_every(batches)).to(device)
    to_device(model, device, settings.channels_last)
    # The optimizer gets every parameter that is trained in any epoch. It skips those without a gradient.
    freeze.set_frozen(model, frozen, settings.unfreeze, epoch=math.inf)
    optimizer = build_optimizer(model, settings)
    _, autocast = resolve_precision(settings.precision, device)
    return Training(
        model,
        build_ema(model, settings.ema) if settings.ema else None,
        criterion,
        optimizer,
        build_schedule(optimizer, settings, total_steps),
        GradScaler(device.type, enabled=autocast is torch.float16),
    )


def check_deterministic(model: RetinaNet, device: torch.device) -> None:
    """Raises InputError where torch would, at the first backward pass."""
    if device.type == "cuda" and any(isinstance(module, DeformConv2d) for module in model.modules()):
        raise InputError(
            "train.deterministic: deformable convolution has no deterministic gradient on a GPU; "
            "set model.attention.name to light or none"
        )


def _build(config: Config, train: CocoData, *, is_new: bool) -> tuple[Config, RetinaNet, Transfer | None]:
    """The configuration with its rule of anchors, the model, and what of `model.weights` a new run loads into it."""
    weights = checkpoint.read_detector(config.model.weights) if is_new and config.model.weights else None
    config = config.with_anchor_rule(weights.anchor_rule if weights else "exact")
    model = build_model(config.model, len(train.class_names), pretrained=is_new)
    loaded = transfer(model, weights, train.class_names, config.model.class_map) if weights else None
    return config, model, loaded


def _check_frozen(config: Config, model: RetinaNet, frozen: list[str], loaded: Transfer | None) -> list[str]:
    """Warn about randomly initialised parameters that stay frozen. Raises InputError if they belong to new classes."""
    never_trained = set(freeze.frozen_parameters(model, frozen, config.train.unfreeze, epoch=math.inf))
    if loaded and loaded.new and never_trained & set(LOGITS):
        raise InputError(
            f"train.freeze: with the classification head frozen, {shortened(loaded.new)} can never be learnt"
        )
    if loaded:
        random = loaded.fresh
    else:
        pretrained = "backbone.body." if config.model.backbone.weights else ()
        random = frozenset(name for name, _ in model.named_parameters() if not name.startswith(pretrained))
    stuck = sorted(never_trained & random)
    return [f"warning: randomly initialised and never trained: {shortened(stuck, 3)}"] if stuck else []
