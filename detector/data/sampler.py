"""Which images make up which batch: a pure function of (seed, epoch), so a training can resume at any batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Position = tuple[int, int, int]  # epoch, index of the image, and how often it was drawn before in this epoch


class BatchSampler:
    """Batches of images for one process; iterating yields lists of (epoch, index, repeat) for a DataLoader.

    An epoch is num_images draws. Without weights every image is drawn once. With weights, image i is drawn m_i times
    on average (`expected_draws`), and in each epoch m_i times rounded down or up. `repeat` counts an image's earlier
    draws in the epoch, so that each draw can be augmented differently.

    The last batch may be smaller. With several processes, each gets every world_size-th image of a global batch of
    batch_size * world_size. The last global batch is filled up with up to world_size - 1 draws from the epoch's
    beginning, so that all processes take equally many steps.

    Args:
        num_images: number of images in the dataset.
        batch_size: images per batch of this process.
        seed: decides the order, together with the epoch.
        aspect_ratios: (num_images,) height / width. Images with a ratio above 1 are batched together, and so are the
            others, which saves padding; only the leftovers of both at the end may be mixed. None = not grouped.
        shuffle: False keeps the order of the dataset.
        rank, world_size: this process and their number.
        weights: (num_images,) >= 0, how often each image is drawn relative to the others; None = all equally often.
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
        weights: np.ndarray | None = None,
    ):
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.upright = np.zeros(num_images, bool) if aspect_ratios is None else np.asarray(aspect_ratios) > 1
        self.shuffle = shuffle
        self.expected = None if weights is None else expected_draws(weights)
        self.rank = rank
        self.world_size = world_size
        self.set_position(0, 0)

    def set_position(self, epoch: int, start: int) -> None:
        """Let the next iteration give the batches of `epoch` from number `start` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Batches of a whole epoch, for any start."""
        return -(-self.num_images // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Position]]:
        yield from self.batches(self.epoch)[self.start :]

    def batches(self, epoch: int) -> list[list[Position]]:
        """All batches of an epoch for this process."""
        order = self.draws(epoch)
        positions = [(epoch, *draw) for draw in zip(order.tolist(), _earlier(order).tolist(), strict=True)]
        batches = self._global_batches(order)
        if batches:
            uneven = -len(batches[-1]) % self.world_size
            batches[-1] += np.resize(np.arange(len(order)), uneven).tolist()
        return [[positions[place] for place in batch[self.rank :: self.world_size]] for batch in batches]

    def draws(self, epoch: int) -> np.ndarray:
        """(num_images,) int64: the images of an epoch in order, before they are divided into batches."""
        rng = np.random.default_rng((self.seed % 2**32, epoch))
        order = rng.permutation(self.num_images) if self.shuffle else np.arange(self.num_images)
        if self.expected is None:
            return order
        drawn = np.repeat(np.arange(self.num_images), systematic_counts(self.expected, rng))
        return drawn[order]  # equal weights give the same order as no weights

    def _global_batches(self, order: np.ndarray) -> list[list[int]]:
        """Indices into `order`: batches of one orientation, in the order in which they fill up; then the leftovers."""
        size = self.batch_size * self.world_size
        batches: list[list[int]] = []
        waiting: tuple[list[int], list[int]] = ([], [])
        for place, upright in enumerate(self.upright[order].tolist()):
            group = waiting[upright]
            group.append(place)
            if len(group) == size:
                batches.append(group.copy())
                group.clear()
        rest = waiting[0] + waiting[1]
        return batches + [rest[i : i + size] for i in range(0, len(rest), size)]


def expected_draws(weights: np.ndarray) -> np.ndarray:
    """(N,) float64: how often each image is drawn in an epoch of N draws, on average, for weights (N,) >= 0."""
    weights = np.asarray(weights, np.float64)
    assert np.isfinite(weights).all() and (weights >= 0).all() and (weights > 0).any()
    return weights * (len(weights) / weights.sum())


def systematic_counts(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64, sum N: how often each image is drawn, which is `expected` rounded down or up, on average `expected`.

    Systematic sampling (Madow 1949): the images lie one after the other on a line, image i over a length of
    expected[i]. The points u, u + 1, ... with one uniform u draw the images on which they fall. Images of equal length
    are neighbours, so the number of draws from them varies by at most one between epochs. Their order
    is random, so that it does not depend on the file's order which images are rounded up together.

    expected: (N,) >= 0, sum N.
    """
    size = len(expected)
    order = rng.permutation(size)
    order = order[np.argsort(expected[order], kind="stable")]
    ends = np.cumsum(expected[order])
    points = np.ceil(ends - rng.random())  # number of points before the end of each image
    points[-1] = size  # exact in spite of rounding errors; the last image is at least 1 long
    counts = np.empty(size, np.int64)
    counts[order] = np.diff(points, prepend=0)
    return counts


def _earlier(order: np.ndarray) -> np.ndarray:
    """(D,) int64: how many earlier draws are of the same image, for each of the draws `order` (D,)."""
    by_image = np.argsort(order, kind="stable")
    first = np.searchsorted(order[by_image], order)  # where the draws of its image begin
    earlier = np.empty(len(order), np.int64)
    earlier[by_image] = np.arange(len(order)) - first[by_image]
    return earlier
