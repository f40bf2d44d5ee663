"""What a training reads, and in which proportions its classes are shown."""

from __future__ import annotations

from detector.config.schema import Config
from detector.data.coco import CocoData, check_images_exist, load_descriptor, read_coco
from detector.data.exposure import exposure
from detector.data.loader import Loader, train_loader
from detector.data.mixing.mixer import Mixer
from detector.data.resampling import image_weights
from detector.evaluation.metrics.coco import check_measurable
from detector.models.limits import check_size
from detector.utils.errors import InputError


def read_training_data(config: Config) -> tuple[CocoData, CocoData]:
    """Train and val split, checked; val's classes are train's. Raises InputError."""
    descriptor = load_descriptor(config.data.dataset)
    train_split, val_split = descriptor.split("train"), descriptor.split("val")
    train = read_coco(train_split, descriptor.classes, config.data.bad_annotations)
    check_size(config, len(train.class_names))
    val = read_coco(val_split, train.class_names, config.data.bad_annotations)
    for data in (train, val) if config.data.bad_images == "error" else (val,):
        check_images_exist(data)
    if train.class_counts().sum() == 0:
        raise InputError(f"{train_split.annotations}: no object in the whole training set; nothing can be learnt")
    if val.class_counts().sum() == 0:
        raise InputError(f"{val_split.annotations}: no object in the whole val set; nothing can be measured")
    check_measurable(config.train.metric, val, train.class_counts())
    return train, val


def build_loader(config: Config, train: CocoData) -> tuple[Loader, list[str]]:
    """The batches of a training, and lines that say what sampling and pasting do to each class. Raises InputError."""
    weights, lines = image_weights(train, config.data.sampling, config.data.repeat_threshold)
    if config.data.sampling != "uniform":
        lines = [*lines, *exposure(train, weights).lines()]
    mixer = Mixer(train, config.augment, weights)
    loader = train_loader(
        train,
        image_size=config.data.image_size,
        augment=config.augment.transforms,
        batch_size=config.train.batch_size,
        workers=config.data.workers,
        seed=config.seed,
        weights=weights,
        mixer=mixer,
        replace_bad=config.data.bad_images == "replace",
    )
    return loader, [*lines, *mixer.lines()]
