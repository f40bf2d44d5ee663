"""`train.batch_size: auto`: the largest batch for the device, from the measured memory of training steps."""

from __future__ import annotations

from dataclasses import dataclass

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
from detector.utils.text import counted

MEMORY_SHARE = 0.8  # of the available memory; the rest is for loader workers, other programs and prediction errors
MAX_IMAGES = 4 * REFERENCE_BATCH  # images per step: beyond this, scaling the learning rate is not trusted
MIN_STEPS = 8  # steps per epoch: fewer, of batches almost as large as the data, teach little


@dataclass(frozen=True)
class BatchSize:
    """The batch size that was chosen, and why it is not twice as large."""

    size: int
    """Images per batch."""
    figures: str
    """What was measured, a clause."""
    limit: str
    """What forbids a larger batch, a clause."""

    def line(self) -> str:
        """For the log."""
        return f"batch_size auto: {counted(self.size, 'image')} ({self.figures}; {self.limit})"


def choose_batch_size(config: Config, train: CocoData, device: torch.device) -> BatchSize:
    """The batch size for `train.batch_size: auto`.

    Another process does the measuring, so nothing changes in this one, such as its random generators.
    Raises InputError if not one image fits, the model cannot be built, or the device's free memory is not known.
    """
    available = available_memory(device)
    if available is None:
        raise InputError(f"train.batch_size: auto: the free memory of {device} is not known here; give a number")
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


def choose(peaks: dict[int, int], available: int, num_images: int, accumulate: int = 1) -> BatchSize:
    """The batch size from the figures alone.

    peaks: batch size → bytes that training takes, for the sizes in MEASURED that fitted. available: bytes.
    num_images: of the training set. accumulate: batches per step. Raises InputError if not one image fits.
    """
    room = int(MEMORY_SHARE * available)
    share = f"{MEMORY_SHARE:.0%} of the {_human(available)} available"
    if not peaks or peaks[1] > room:
        needs = f"takes {_human(peaks[1])}, more than" if peaks else "does not fit into"
        raise InputError(f"train.batch_size: auto: a step of one image {needs} {share}; try a smaller data.image_size")

    measured = max(peaks)
    fitting = max(n for n in peaks if peaks[n] <= room)
    if measured < MEASURED[-1]:
        figures = f"{measured} took {_human(peaks[measured])} of the {_human(available)} available, more did not fit"
    else:
        each = max(1.0, predict(peaks, measured + 1) - peaks[measured])
        if fitting == measured:
            fitting += int((room - peaks[measured]) / each)
        base = max(0.0, peaks[measured] - measured * each)
        figures = f"an image takes {_human(each)} on top of {_human(base)}, and {share} hold {fitting}"

    size = 1
    while (limit := _limit(2 * size, fitting, 2 * size * accumulate, num_images)) is None:
        size *= 2
    return BatchSize(size, figures, limit)


def _limit(size: int, fitting: int, step: int, num_images: int) -> str | None:
    """What forbids batches of `size`, and so optimizer steps of `step` images; None: nothing."""
    if size > fitting:
        return "the largest power of two that fits"
    if step > MAX_IMAGES:
        return f"the learning rate is not scaled to steps of more than {MAX_IMAGES}"
    if -(-num_images // step) < MIN_STEPS:
        return f"more would make fewer than {MIN_STEPS} steps of the {num_images} images of an epoch"
    return None


def largest_fed_size(config: Config, train: CocoData) -> tuple[int, int]:
    """(h, w) in pixels that a batch may be padded to: the greatest height and width of the resized images."""
    image_size = config.data.image_size
    if isinstance(image_size, int):
        return image_size, image_size
    if isinstance(config.augment.transforms, list):  # these come before the resizing, and may turn and crop
        return image_size.long, image_size.long
    sizes = np.unique(np.stack([train.heights, train.widths], axis=1), axis=0)
    fed = [fed_size((h, w), image_size) for h, w in sizes.tolist()]
    return max(h for h, _ in fed), max(w for _, w in fed)


def _human(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
