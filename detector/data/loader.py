"""Batches for training and evaluation. They are the same for any number of worker processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detector.config.schema import ShortLong
from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.data.mixing.mixer import Mixer
from detector.data.sampler import BatchSampler
from detector.data.transforms import Transform, build_transform, letterbox
from detector.data.workers import cause_of_failure, let_the_dead_wait, start_worker
from detector.utils.errors import InputError, RunError
from detector.utils.signals import signals_blocked

STRIDE = 32  # batches are padded to a multiple of this, so that every level from P3 to P5 divides evenly

REPLACEMENTS = 10  # images that are tried in the place of one that cannot be used

Sample = tuple[torch.Tensor, dict]


class DetectionDataset(Dataset):
    """Image and target of (epoch, index, repeat): read, transformed with a seed made of that and `seed`, as tensors.

    repeat: how often the image came before in the epoch; may be left out where it did not.
    replace_bad: whether an image that cannot be used gives its place to another, drawn by that seed.
    """

    def __init__(
        self, data: CocoData, transform: Transform, seed: int, mixer: Mixer | None = None, replace_bad: bool = False
    ):
        self.data = data
        self.transform = transform
        self.mixer = mixer
        self.replace_bad = replace_bad
        self.seed = seed % 2**32

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: tuple[int, ...]) -> Sample | InputError:
        """(image, target), where

        image: (3,H,W) uint8, letterboxed to a square where image_size is a number.
        target: `boxes` (M,4) float32 xyxy pixels of the image as fed, `labels` (M,) int64 in 0..K-1, `image_id` int,
            `orig_size` (h, w) of the file, `size` (h, w) of the content, without any padding. Of an image that took
            another's place also `replaced`: {"image_id": the other's, "by": its own, "reason": a sentence}.

        An InputError is returned, not raised: torch would wrap it in the text of a worker's traceback.
        """
        try:
            return self._sample(*position)
        except InputError as problem:
            return self._another(problem, *position) if self.replace_bad else problem

    def _another(self, problem: InputError, epoch: int, index: int, repeat: int = 0) -> Sample | InputError:
        """Another image in the place of one that cannot be used for `problem` (its own, or that of one mixed in)."""
        rng = np.random.default_rng((self._seed(epoch, index, repeat), 2))  # beside those of transform and mixer
        for other in rng.integers(len(self.data), size=REPLACEMENTS).tolist():
            try:
                image, target = self._sample(epoch, other, repeat)
            except InputError:
                continue
            was = {"image_id": int(self.data.image_ids[index]), "by": target["image_id"], "reason": str(problem)}
            return image, target | {"replaced": was}
        return InputError(f"{problem}; nor can {REPLACEMENTS} others, drawn to replace it: is the folder still there?")

    def _seed(self, epoch: int, index: int, repeat: int) -> int:
        return int(np.random.SeedSequence((self.seed, epoch, index, repeat)).generate_state(1, np.uint64)[0])

    def _sample(self, epoch: int, index: int, repeat: int = 0) -> Sample:
        data = self.data
        orig_size = (int(data.heights[index]), int(data.widths[index]))
        image = read_image(data.images_dir / data.file_name(index), orig_size)
        seed = self._seed(epoch, index, repeat)
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


def collate(samples: Sequence[Sample | InputError]) -> tuple[torch.Tensor, list[dict]] | InputError | RunError:
    """Images (N,3,H,W) uint8, padded with 0 at the right and bottom to a multiple of STRIDE, and the list of targets;
    or the first InputError among the samples, or the RunError that a worker has no room to share them.

    The memory layout is channels last, as files decode to: a batch costs one straight copy.
    """
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images, targets = zip(*samples, strict=True)
    height, width = (-(-max(image.shape[axis] for image in images) // STRIDE) * STRIDE for axis in (1, 2))
    batch = torch.zeros((len(images), height, width, 3), dtype=torch.uint8)
    if get_worker_info():
        # Left to the queue, this would be another copy, and if there is no room, nothing would ever arrive.
        try:
            for tensor in [batch, *(target[key] for target in targets for key in ("boxes", "labels"))]:
                tensor.share_memory_()
        except RuntimeError as problem:
            return RunError(cause_of_failure(problem, []) or str(problem))
    batch = batch.permute(0, 3, 1, 2)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch, list(targets)


class Loader:
    """Iterates over (images, targets) batches as `collate` makes them.

    Raises the InputError of an unusable image; RunError where a worker has died or shared memory is too small.
    """

    def __init__(self, dataset: DetectionDataset, batches: BatchSampler, workers: int):
        self.dataset = dataset
        self.batches = batches
        self._workers: list[multiprocessing.Process] = []
        self._loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=start_worker,
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
        batches = None
        while True:
            try:
                if batches is None:
                    batches = self._start()
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as problem:
                if (cause := cause_of_failure(problem, self._workers)) is None:
                    raise
                # with the exception would go this frame and the workers, in a reference cycle
                raise RunError(cause) from None
            if isinstance(batch, (InputError, RunError)):
                # a new one: raising `batch` itself would tie it, this frame and the workers into such a cycle
                raise type(batch)(str(batch))
            yield batch

    def _start(self) -> Iterator:
        """The batches; with the first epoch come the workers, which live on."""
        if self._workers:
            return iter(self._loader)
        before = multiprocessing.active_children()
        with signals_blocked():
            batches = iter(self._loader)
        self._workers = [child for child in multiprocessing.active_children() if child not in before]
        if self._workers:
            let_the_dead_wait()
        return batches


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
    replace_bad: bool = False,
) -> Loader:
    """Shuffled, augmented batches of batch_size images for each of world_size processes (see BatchSampler).

    With ShortLong, images are batched with others of their orientation, which saves padding. weights: (I,), how often
    each image is drawn relative to the others (`resampling.image_weights`); None = each once an epoch. mixer: what puts
    other images' objects into one, before its transform; None = nothing does. replace_bad: see DetectionDataset.
    """
    transform = build_transform(image_size, augment)
    ratios = None if isinstance(image_size, int) else data.heights / data.widths
    batches = BatchSampler(
        len(data), batch_size, seed, aspect_ratios=ratios, rank=rank, world_size=world_size, weights=weights
    )
    return Loader(DetectionDataset(data, transform, seed, mixer, replace_bad), batches, workers)


def eval_loader(data: CocoData, *, image_size: int | ShortLong, batch_size: int, workers: int) -> Loader:
    """The images once, in the file's order, only resized."""
    transform = build_transform(image_size, None)
    batches = BatchSampler(len(data), batch_size, seed=0, shuffle=False)
    return Loader(DetectionDataset(data, transform, seed=0), batches, workers)
