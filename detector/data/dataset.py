"""One training or evaluation sample: read, mixed with others, transformed, as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from detector.data.coco import CocoData
from detector.data.mixing.mixer import Mixer
from detector.data.sample import read_sample
from detector.data.transforms import Transform, letterbox
from detector.utils.errors import InputError

REPLACEMENTS = 10  # images tried in place of an unusable one
# Each use of a sample's seed has a random stream of its own: the transform draws from the seed itself.
MIXING, REPLACING = 1, 2

Item = tuple[torch.Tensor, dict[str, Any]]  # image and target


class DetectionDataset(Dataset):
    """Image and target of a position (epoch, index, repeat). All randomness comes from `seed` and the position.

    repeat: how often the image came before in the epoch; 0 where it is left out.
    mixer: mixes other images into one before its transform; None = nothing is mixed.
    replace_bad: whether an image that cannot be used is replaced by a random other.
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
        """Number of images."""
        return len(self.data)

    def __getitem__(self, position: tuple[int, ...]) -> Item | InputError:
        """(image, target), where

        image: (3,H,W) uint8, letterboxed to a square where image_size is a number.
        target: `boxes` (M,4) float32 xyxy pixels of the image as fed, `labels` (M,) int64 in 0..K-1, `image_id` int,
            `orig_size` (h, w) of the file, `size` (h, w) of the content, without any padding. If the image replaces
            another, also `replaced`: {"image_id": the other's, "by": its own, "reason": a sentence}.

        An InputError is returned, not raised: torch would wrap it in the text of a worker's traceback.
        """
        try:
            return self._sample(*position)
        except InputError as problem:
            return self._replacement(problem, *position) if self.replace_bad else problem

    def _sample(self, epoch: int, index: int, repeat: int = 0) -> Item:
        image, boxes, labels = read_sample(self.data, index)
        seed = self._seed(epoch, index, repeat)
        if self.mixer:
            image, boxes, labels = self.mixer.apply(image, boxes, labels, np.random.default_rng((seed, MIXING)), epoch)
        content, boxes, labels = self.transform(image, boxes, labels, seed)
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "image_id": int(self.data.image_ids[index]),
            "orig_size": self.data.size(index),
            "size": content.shape[:2],
        }
        return torch.from_numpy(letterbox(content, self.transform.image_size)).permute(2, 0, 1), target

    def _replacement(self, problem: InputError, epoch: int, index: int, repeat: int = 0) -> Item | InputError:
        """A random other image, because of `problem` with the one at `index` or with one that is mixed into it."""
        rng = np.random.default_rng((self._seed(epoch, index, repeat), REPLACING))
        for other in rng.integers(len(self.data), size=REPLACEMENTS).tolist():
            try:
                image, target = self._sample(epoch, other, repeat)
            except InputError:
                continue
            replaced = {"image_id": int(self.data.image_ids[index]), "by": target["image_id"], "reason": str(problem)}
            return image, target | {"replaced": replaced}
        return InputError(
            f"{problem}; the {REPLACEMENTS} images drawn to replace it cannot be used either: does the folder exist?"
        )

    def _seed(self, epoch: int, index: int, repeat: int) -> int:
        return int(np.random.SeedSequence((self.seed, epoch, index, repeat)).generate_state(1, np.uint64)[0])
