"""Settings that are each allowed but together ask for more than any machine has: refused before anything is built."""

from __future__ import annotations

from torch import Tensor

from detector.config.schema import Config
from detector.models.build import build_without_memory
from detector.models.retinanet import RetinaNet
from detector.utils.errors import InputError

MAX_PARAMETERS = 500_000_000  # beyond the backbone, 2 GB; 10,000 classes and the usual settings have 220 million
MAX_PIXELS = 500_000_000  # of a batch, whose activations take 500 bytes a pixel and more; 280 images of 1333 x 1333
MAX_HELD_PIXELS = 10_000_000_000  # of a step with train.accumulate, which keeps its images: 30 GB
MAX_OUTPUTS = 40_000_000_000  # of a batch, 160 GB; 10,000 classes at 640 px and 9 anchors a cell are 0.8 G an image


def check_size(config: Config, num_classes: int) -> None:
    """Raises InputError if the settings pass one of the limits above, or as `build_model` does.

    To be called before anything is built; it takes no memory to speak of. It does not know the machine: what is too
    large for that is found by trying.
    """
    _check_images(config, num_classes)
    _check_parameters(build_without_memory(config.model, num_classes), num_classes)


def check_buildable(config: Config, num_classes: int, state: dict[str, Tensor], *, source: str) -> None:
    """Raises InputError as `check_size` does, and if `state` is too small to be that of the configured detector.

    To be called before a detector is built for a state dict that came from anywhere, so that a small file cannot ask
    for a large detector. source: the file, for the message.
    """
    _check_images(config, num_classes)
    model = build_without_memory(config.model, num_classes)
    _check_parameters(model, num_classes)
    check_holds(state, sum(tensor.numel() for tensor in model.state_dict().values()), source=source)


def check_holds(state: dict[str, Tensor], count: int, *, source: str) -> None:
    """Raises InputError if the tensors of `state` have fewer bytes, views counted once, than `count` numbers need."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    if sum(storages.values()) < count:
        raise InputError(
            f"{source}: another architecture than the configured one, which has {count} numbers; its tensors have "
            f"{sum(storages.values())} bytes"
        )


def _check_images(config: Config, num_classes: int) -> None:
    """The limits of a batch's images and outputs."""
    batch_size = 1 if config.train.batch_size == "auto" else config.train.batch_size
    train_image, eval_image = _pixels_of_image(config)
    train, evaluation = batch_size * train_image, config.eval.batch_size * eval_image
    anchors = config.model.anchors
    cells_per_pixel = 4 / 3 / config.model.neck.finest_stride**2  # each level has a quarter of the one before
    outputs_per_pixel = cells_per_pixel * anchors.scales * len(anchors.ratios) * (num_classes + 4)
    for settings, count, unit, most in (
        ("data.image_size and train.batch_size", train, "pixels a batch", MAX_PIXELS),
        ("data.image_size and eval.batch_size", evaluation, "pixels a batch", MAX_PIXELS),
        ("data.image_size, train.batch_size and train.accumulate", train * config.train.accumulate,
         "pixels a step", MAX_HELD_PIXELS),
        ("data.image_size, train.batch_size and model.anchors", train * outputs_per_pixel, "outputs", MAX_OUTPUTS),
        ("data.image_size, eval.batch_size and model.anchors", evaluation * outputs_per_pixel, "outputs", MAX_OUTPUTS),
    ):  # fmt: skip
        _check(settings, count, unit, most, num_classes)


def _check_parameters(model: RetinaNet, num_classes: int) -> None:
    parts = (model.neck, model.attention, model.head)
    count = sum(parameter.numel() for part in parts for parameter in part.parameters())
    settings = "model.neck, model.attention, model.head and model.anchors"
    _check(settings, count, "parameters", MAX_PARAMETERS, num_classes)


def _check(settings: str, count: float, unit: str, most: int, num_classes: int) -> None:
    if count > most:
        of_classes = f", for {num_classes} classes," if num_classes > 1 else ""
        raise InputError(f"{settings} together{of_classes} ask for {count:.2g} {unit}; {most:.0e} are the most")


def _pixels_of_image(config: Config) -> tuple[int, int]:
    """The most pixels of an image with its padding, in training and in evaluation.

    With {short, long}, a training batch is all upright or all lying; an evaluation batch may be mixed.
    """
    size = config.data.image_size
    return (size**2, size**2) if isinstance(size, int) else (size.greatest * size.long, size.long**2)
