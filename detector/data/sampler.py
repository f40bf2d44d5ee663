"""Which images make up which batch: a pure function of (seed, epoch), so that any point of a training can be found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class BatchSampler:
    """Batches of image indices for one process; iterating yields lists of (epoch, index) for a DataLoader.

    Every image comes once an epoch; the last batch is as small as what is left. With several processes, each gets every
    world_size-th image of a global batch of batch_size * world_size, and the last global batch is filled up with up to
    world_size - 1 images of its epoch's beginning, so that all processes take as many steps.

    Args:
        num_images: images of the dataset.
        batch_size: images a batch of this process.
        seed: with the epoch, decides the order.
        aspect_ratios: (num_images,) height / width; batches are then made of images that are all upright or all not,
            which saves padding, except where the leftovers of both meet at the end. None = not grouped.
        shuffle: False keeps the order of the dataset.
        rank, world_size: this process and their number.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        aspect_ratios: np.ndarray | None = None,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.upright = np.zeros(num_images, bool) if aspect_ratios is None else np.asarray(aspect_ratios) > 1
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.set_position(0, 0)

    def set_position(self, epoch: int, start: int) -> None:
        """The next iteration gives the batches of `epoch` from number `start` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the next iteration starts."""
        return -(-self.num_images // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        for batch in self.batches(epoch)[self.start :]:
            yield [(epoch, index) for index in batch]

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch for this process."""
        order = np.arange(self.num_images)
        if self.shuffle:
            order = np.random.default_rng((self.seed % 2**32, epoch)).permutation(self.num_images)
        batches = self._global_batches(order)
        if batches:
            uneven = -len(batches[-1]) % self.world_size
            batches[-1] += np.resize(order, uneven).tolist()
        return [batch[self.rank :: self.world_size] for batch in batches]

    def _global_batches(self, order: np.ndarray) -> list[list[int]]:
        """Cut `order` into batches of one orientation, each where its last image comes; then the leftovers of both."""
        size = self.batch_size * self.world_size
        batches = []
        waiting: tuple[list[int], list[int]] = ([], [])
        for index, upright in zip(order.tolist(), self.upright[order].tolist(), strict=True):
            group = waiting[upright]
            group.append(index)
            if len(group) == size:
                batches.append(group.copy())
                group.clear()
        rest = waiting[0] + waiting[1]
        return batches + [rest[i : i + size] for i in range(0, len(rest), size)]
