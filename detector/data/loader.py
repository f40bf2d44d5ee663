"""Batches for training and evaluation. They are the same for any number of worker processes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from detector.config import ShortLong
from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.data.mixer import Mixer
from detector.data.sampler import BatchSampler
from detector.data.transforms import Transform, build_transform, letterbox
from detector.utils.errors import InputError

STRIDE = 32  # batches are padded to a multiple of this, so that every level from P3 to P5 divides evenly

Sample = tuple[torch.Tensor, dict]


class DetectionDataset(Dataset):
    """Image and target of (epoch, index, repeat): read, transformed with a seed made of that and `seed`, as tensors.

    repeat: how often the image came before in the epoch; may be left out where it did not.
    """

    def __init__(self, data: CocoData, transform: Transform, seed: int, mixer: Mixer | None = None):
        self.data = data
        self.transform = transform
        self.mixer = mixer
        self.seed = seed % 2**32

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: tuple[int, ...]) -> Sample | InputError:
        """(image, target), where

        image: (3,H,W) uint8, letterboxed to a square where image_size is a number.
        target: `boxes` (M,4) float32 xyxy pixels of the image as fed, `labels` (M,) int64 in 0..K-1, `image_id` int,
            `orig_size` (h, w) of the file, `size` (h, w) of the content, without any padding.

        An InputError is returned, not raised: torch would wrap it in the text of a worker's traceback.
        """
        try:
            return self._sample(*position)
        except InputError as problem:
            return problem

    def _sample(self, epoch: int, index: int, repeat: int = 0) -> Sample:
        data = self.data
        orig_size = (int(data.heights[index]), int(data.widths[index]))
        image = read_image(data.images_dir / data.file_name(index), orig_size)
        seed = int(np.random.SeedSequence((self.seed, epoch, index, repeat)).generate_state(1, np.uint64)[0])
        boxes, labels = data.target_boxes(index)
        if self.mixer:
            # a stream beside the one that the transform draws from
            image, boxes, labels = self.mixer.apply(image, boxes, labels, np.random.default_rng((seed, 1)))
        content, boxes, labels = self.transform(image, boxes, labels, seed)
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "image_id": int(data.image_ids[index]),
            "orig_size": orig_size,
            "size": content.shape[:2],
        }
        return torch.from_numpy(letterbox(content, self.transform.image_size)).permute(2, 0, 1), target


def collate(samples: Sequence[Sample | InputError]) -> tuple[torch.Tensor, list[dict]] | InputError:
    """Images (N,3,H,W) uint8, padded with 0 at the right and bottom to a multiple of STRIDE, and the list of targets;
    or the first InputError among the samples.

    The memory layout is channels last, as files decode to: a batch costs one straight copy.
    """
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images, targets = zip(*samples, strict=True)
    height, width = (-(-max(image.shape[axis] for image in images) // STRIDE) * STRIDE for axis in (1, 2))
    batch = torch.zeros((len(images), height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch, list(targets)


class Loader:
    """Iterates over (images, targets) batches as `collate` makes them. Raises the InputError of an unusable image."""

    def __init__(self, dataset: DetectionDataset, batches: BatchSampler, workers: int):
        self.dataset = dataset
        self.batches = batches
        self._loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            # only forked workers share the annotations with this process; elsewhere each gets a copy
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            # torch draws a seed for its workers, of which we have no use: not from the global generator
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._loader)

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration gives the batches of `epoch` from number `start` on. To be called before every epoch."""
        self.batches.set_position(epoch, start)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[dict]]]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                # a new one: raising `batch` itself would tie it, this frame and the workers into a reference cycle
                raise InputError(str(batch))
            yield batch


def train_loader(
    data: CocoData,
    *,
    image_size: int | ShortLong,
    augment: str | list[dict],
    batch_size: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    weights: np.ndarray | None = None,
    mixer: Mixer | None = None,
) -> Loader:
    """Shuffled, augmented batches of batch_size images for each of world_size processes (see BatchSampler).

    With ShortLong, images are batched with others of their orientation, which saves padding. weights: (I,), how often
    each image is drawn relative to the others (`resampling.image_weights`); None = each once an epoch. mixer: what puts
    other images' objects into one, before its transform; None = nothing does.
    """
    transform = build_transform(image_size, augment)
    ratios = None if isinstance(image_size, int) else data.heights / data.widths
    batches = BatchSampler(
        len(data), batch_size, seed, aspect_ratios=ratios, rank=rank, world_size=world_size, weights=weights
    )
    return Loader(DetectionDataset(data, transform, seed, mixer), batches, workers)


def eval_loader(data: CocoData, *, image_size: int | ShortLong, batch_size: int, workers: int) -> Loader:
    """The images once, in the file's order, only resized."""
    transform = build_transform(image_size, None)
    batches = BatchSampler(len(data), batch_size, seed=0, shuffle=False)
    return Loader(DetectionDataset(data, transform, seed=0), batches, workers)


def _start_worker(_: int) -> None:
    # Ctrl-C and SIGTERM often go to the whole process group, but the main process is to save first and end its workers
    # itself: so they leave the group. (Ignoring SIGTERM would not do, it is how they are ended when Python exits.)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    gc.freeze()  # what was inherited is neither searched, which would copy its memory pages, nor finalised here
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
