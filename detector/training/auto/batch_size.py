"""`train.batch_size: auto`: the largest batch for the device, from the memory that training steps were seen to take."""

from __future__ import annotations

import numpy as np
import torch

from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.data.transforms import fed_size
from detector.training.auto.step_memory import MEASURED, measure, predict
from detector.training.optim import REFERENCE_BATCH
from detector.utils.console import console
from detector.utils.errors import InputError
from detector.utils.memory import available_memory

MEMORY_SHARE = 0.8  # of what is available; the rest is for loader workers, for what else runs, and for a line's error
MAX_IMAGES = 4 * REFERENCE_BATCH  # an optimizer step: the learning rate is not trusted to scale further
MIN_STEPS = 8  # an epoch: fewer, of batches almost as large as the data, teach little


def choose_batch_size(config: Config, train: CocoData, device: torch.device) -> tuple[int, str]:
    """Images a batch for `config.train.batch_size: auto`, and a sentence that says why so many.

    The measurement is another process's: nothing of this one changes, such as its random generators.
    Raises InputError if not one image fits, the model cannot be built, or the device's free memory is not known.
    """
    available = available_memory(device)
    if available is None:
        raise InputError(f"train.batch_size: auto: the free memory for {device} is not known here; give a number")
    console.print("batch_size auto: measuring the memory of a training step ...")
    peaks = measure(
        config,
        device,
        side=largest_fed_size(config, train),
        objects=int(np.diff(train.first).max()),
        num_classes=len(train.class_names),
        limit=available,
    )
    return choose(peaks, available, len(train), config.train.accumulate)


def choose(peaks: dict[int, int], available: int, num_images: int, accumulate: int = 1) -> tuple[int, str]:
    """The batch size and why, from the figures alone.

    peaks: bytes that a training takes with each of the batch sizes MEASURED; what is missing did not fit.
    available: bytes. num_images: of the training set. accumulate: batches an optimizer step.
    Raises InputError if not one image fits.
    """
    room = int(MEMORY_SHARE * available)
    share = f"{MEMORY_SHARE:.0%} of the {_human(available)} available"
    if not peaks or peaks[1] > room:
        needs = f"takes {_human(peaks[1])}, and that is more than" if peaks else "does not fit into"
        raise InputError(f"train.batch_size: auto: one image a step {needs} {share}; try a smaller data.image_size")

    measured = max(peaks)
    held = max(n for n in peaks if peaks[n] <= room)
    if measured < MEASURED[-1]:
        figures = f"{measured} took {_human(peaks[measured])} of the {_human(available)} available, more did not fit"
    else:
        each = max(1, predict(peaks, measured + 1) - peaks[measured])
        if held == measured:
            held += int((room - peaks[measured]) / each)
        base = max(0, peaks[measured] - measured * each)
        figures = f"an image takes {_human(each)} on top of {_human(base)}, and {share} hold {held}"

    size = 1
    while (why := _why_not(2 * size, held, 2 * size * accumulate, num_images)) is None:
        size *= 2
    return size, f"batch_size auto: {size} image{'s' if size > 1 else ''} ({figures}; {why})"


def _why_not(size: int, held: int, step: int, num_images: int) -> str | None:
    """What forbids batches of `size` and so optimizer steps of `step` images: why half of it is chosen."""
    if size > held:
        return "the largest power of two that fits"
    if step > MAX_IMAGES:
        return f"the learning rate is not scaled to steps of more than {MAX_IMAGES}"
    if -(-num_images // step) < MIN_STEPS:
        return f"more would make fewer than {MIN_STEPS} steps of the {num_images} images of an epoch"
    return None


def largest_fed_size(config: Config, train: CocoData) -> tuple[int, int]:
    """(h, w) in pixels that the images of a batch may be padded to: the highest one's by the widest one's."""
    image_size = config.data.image_size
    if isinstance(image_size, int):
        return image_size, image_size
    if isinstance(config.augment.transforms, list):  # one's own transforms may turn and crop, before the resizing
        return image_size.long, image_size.long
    sizes = np.unique(np.stack([train.heights, train.widths], axis=1), axis=0)
    fed = [fed_size(size, image_size) for size in sizes.tolist()]
    return max(h for h, _ in fed), max(w for _, w in fed)


def _human(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
