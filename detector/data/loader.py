"""Batches for training and evaluation. They are the same for any number of worker processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from detector.config.data import ShortLong
from detector.data.coco import CocoData
from detector.data.dataset import DetectionDataset, Item
from detector.data.mixing.mixer import Mixer
from detector.data.sampler import BatchSampler
from detector.data.transforms import build_transform
from detector.data.workers import explain_failure, report_deaths_at_next_batch, start_worker
from detector.utils.errors import InputError, RunError
from detector.utils.signals import signals_blocked

STRIDE = 32  # batches are padded to a multiple of this, so that every level from P3 to P5 divides evenly

Batch = tuple[torch.Tensor, list[dict[str, Any]]]  # images and targets


def collate(samples: Sequence[Item | InputError]) -> Batch | InputError | RunError:
    """Images (N,3,H,W) uint8, padded with 0 at the right and bottom to a multiple of STRIDE, and the list of targets.

    An InputError among the samples is returned instead of a batch; so is a RunError where shared memory is too small.
    The memory layout is channels last, as files are decoded: a batch costs one straight copy.
    """
    items = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        items.append(sample)
    images, targets = zip(*items, strict=True)
    height, width = (-(-max(image.shape[axis] for image in images) // STRIDE) * STRIDE for axis in (1, 2))
    batch = torch.zeros((len(images), height, width, 3), dtype=torch.uint8)
    if get_worker_info():
        # Torch's queue would copy the batch once more, and without room for it the main process would wait for ever.
        try:
            for tensor in [batch, *(target[key] for target in targets for key in ("boxes", "labels"))]:
                tensor.share_memory_()
        except RuntimeError as problem:
            return RunError(explain_failure(problem, []) or str(problem))
    batch = batch.permute(0, 3, 1, 2)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch, list(targets)


class Loader:
    """Iterates over (images, targets) batches as `collate` makes them.

    Raises the InputError of an unusable image, and RunError where a worker has died or shared memory is too small.
    """

    def __init__(self, dataset: DetectionDataset, batches: BatchSampler, workers: int):
        self.dataset = dataset
        self.batches = batches
        self._workers: list[BaseProcess] = []
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=start_worker,
            # Forked workers share the annotations with this process; on other systems each worker gets a copy.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            # Torch draws a seed for its workers, which nothing uses: keep the global generator as it is.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._loader)

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration give the batches of `epoch` from number `start` on. Call it before every epoch."""
        self.batches.set_position(epoch, start)

    def __iter__(self) -> Iterator[Batch]:
        batches = None
        while True:
            try:
                if batches is None:
                    batches = self._start()
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as problem:  # a dead worker also breaks its connection
                if (cause := explain_failure(problem, self._workers)) is None:
                    raise
                # `from None`: the exception would keep this frame, and so the workers, alive in a reference cycle.
                raise RunError(cause) from None
            if isinstance(batch, (InputError, RunError)):
                # A new exception: raising `batch` itself would make such a cycle too.
                raise type(batch)(str(batch))
            yield batch

    def _start(self) -> Iterator:
        """The iterator of an epoch. The first call starts the workers, which live until the loader is gone."""
        if self._workers:
            return iter(self._loader)
        before = multiprocessing.active_children()
        with signals_blocked():
            batches = iter(self._loader)
        self._workers = [child for child in multiprocessing.active_children() if child not in before]
        if self._workers:
            report_deaths_at_next_batch()
        return batches


def train_loader(
    data: CocoData,
    *,
    image_size: int | ShortLong,
    transforms: str | list[dict],
    batch_size: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    weights: np.ndarray | None = None,
    mixer: Mixer | None = None,
    replace_bad: bool = False,
) -> Loader:
    """Shuffled, augmented batches of batch_size images for each of world_size processes (see BatchSampler).

    With ShortLong, images are batched with others of their orientation, which saves padding. Of a range of short sides
    each image draws its own.

    transforms: a preset or a list of albumentations transforms (see AugmentConfig).
    weights: (I,) float64 >= 0, how often each image is drawn relative to the others (`resampling.image_weights`);
        None = each once an epoch.
    mixer, replace_bad: see DetectionDataset.

    Raises InputError when `transforms` is wrong.
    """
    transform = build_transform(image_size, transforms)
    ratios = None if isinstance(image_size, int) else data.heights / data.widths
    batches = BatchSampler(
        len(data), batch_size, seed, aspect_ratios=ratios, rank=rank, world_size=world_size, weights=weights
    )
    return Loader(DetectionDataset(data, transform, seed, mixer, replace_bad), batches, workers)


def eval_loader(data: CocoData, *, image_size: int | ShortLong, batch_size: int, workers: int) -> Loader:
    """Batches of all images once, in the file's order, only resized."""
    transform = build_transform(image_size, None)
    batches = BatchSampler(len(data), batch_size, seed=0, shuffle=False)
    return Loader(DetectionDataset(data, transform, seed=0), batches, workers)
