"""Settings that are each allowed and together ask for more than any machine has: refused before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.utils.errors import InputError

if TYPE_CHECKING:
    from detector.config.schema import Config, ModelConfig

MAX_PARAMETERS = 500_000_000  # of pyramid and head, 2 GB; with 10,000 classes and the usual settings they have 220 M
MAX_PIXELS = 500_000_000  # of a batch, whose activations take 500 bytes a pixel and more; 280 images of 1333 x 1333
MAX_HELD_PIXELS = 10_000_000_000  # of a step with train.accumulate, which keeps its images: 30 GB
MAX_OUTPUTS = 40_000_000_000  # of a batch, 160 GB; 10,000 classes at 640 px and 9 anchors a cell are 0.8 G an image


def check_size(config: Config, num_classes: int = 1) -> None:
    """Raises InputError where the settings ask for more than one of the limits above; those of the memory that is there
    are found by trying. num_classes: 1 where they are not known yet.
    """
    model, settings = config.model, config.train
    step = 1 if settings.batch_size == "auto" else settings.batch_size
    trained, evaluated = _pixels(config)
    of_train, of_val = step * trained, config.eval.batch_size * evaluated
    outputs = model.anchors.scales * len(model.anchors.ratios) * (num_classes + 4)
    cells = 1 / 48  # a pixel: 1/64 of them on P3, a quarter of that on P4, ...
    of_classes = f", for {num_classes} classes," if num_classes > 1 else ""
    for what, count, unit, most in (
        ("model.neck, model.head and model.anchors", parameters(model, num_classes), "parameters", MAX_PARAMETERS),
        ("data.image_size and train.batch_size", of_train, "pixels a batch", MAX_PIXELS),
        ("data.image_size and eval.batch_size", of_val, "pixels a batch", MAX_PIXELS),
        ("data.image_size, train.batch_size and train.accumulate", of_train * settings.accumulate,
         "pixels a step", MAX_HELD_PIXELS),
        ("data.image_size, train.batch_size and model.anchors", of_train * cells * outputs, "outputs", MAX_OUTPUTS),
        ("data.image_size, eval.batch_size and model.anchors", of_val * cells * outputs, "outputs", MAX_OUTPUTS),
    ):  # fmt: skip
        if count > most:
            raise InputError(f"{what} together{of_classes} ask for {count:.2g} {unit}; {most:.0e} are the most")


def parameters(config: ModelConfig, num_classes: int) -> int:
    """Of pyramid and head, without the few that depend on the backbone's channels and those of norms, and biases."""
    channels, width, depth = config.neck.channels, config.head.width, config.head.depth
    pyramid = 4 * 9 * channels**2  # the outputs of P3, P4, P5 and P7
    tower = 9 * (channels * width + (depth - 1) * width**2) if depth else 0
    anchors = config.anchors.scales * len(config.anchors.ratios)
    return pyramid + 2 * tower + 9 * (width if depth else channels) * anchors * (num_classes + 4)


def _pixels(config: Config) -> tuple[int, int]:
    """The most of an image as fed, with its padding: in training, where a batch is all upright or all lying, and in an
    evaluation, where it is not."""
    size = config.data.image_size
    return (size**2, size**2) if isinstance(size, int) else (size.short * size.long, size.long**2)
