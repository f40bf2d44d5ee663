"""The objects of a split in pixels of the resized images, and the grids of anchor cells over these images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from detector.config.data import ShortLong
from detector.config.model import ModelConfig
from detector.data.coco import CocoData
from detector.data.loader import STRIDE
from detector.data.transforms import fed_size
from detector.models.build import build_without_memory


@dataclass(frozen=True)
class ResizedObjects:
    """B objects of I images, resized without augmentation. Crowds are left out, and boxes that end up without area."""

    boxes: np.ndarray  # (B, 4) float32 xyxy, pixels of the resized image
    labels: np.ndarray  # (B,) int64
    images: np.ndarray  # (B,) int64 index of the image, ascending
    index: np.ndarray  # (B,) int64 index among the boxes of the CocoData
    padded_sizes: np.ndarray  # (I, 2) int64 h, w of the resized image, padded as alone in its batch

    @property
    def sides(self) -> np.ndarray:
        """(B, 2) float32 width and height."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


def resize_objects(data: CocoData, image_size: int | ShortLong) -> ResizedObjects:
    """Clip the boxes of `data` to their images and resize them as evaluation does, all at once.

    Beside larger images in a batch, an image gets more padding, and so more anchors at its edges, than counted here.
    """
    sizes, inverse = np.unique(np.stack([data.heights, data.widths], axis=1), axis=0, return_inverse=True)
    resized = np.array([fed_size(size, image_size) for size in sizes.tolist()], np.int64)
    factors = (resized / sizes)[inverse.ravel()][:, ::-1]  # of x and y
    padded = np.full_like(resized, image_size) if isinstance(image_size, int) else resized
    padded = -(-padded // STRIDE) * STRIDE

    images = data.box_images
    corners = np.concatenate([data.boxes[:, :2], data.boxes[:, :2] + data.boxes[:, 2:]], axis=1)
    limits = np.stack([data.widths, data.heights] * 2, axis=1)[images]
    boxes = (corners.clip(0, limits) * np.tile(factors, 2)[images]).astype(np.float32)
    kept = np.flatnonzero(~data.iscrowd & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    return ResizedObjects(boxes[kept], data.labels[kept].astype(np.int64), images[kept], kept, padded[inverse.ravel()])


def grids(config: ModelConfig, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Padded sizes (U, 2) and cells of each level (U, L, 2), rows and columns, finest first, for images of `sizes`.

    sizes: (U, 2) h, w in pixels. The network itself computes the cells, without memory for its weights or arithmetic
    (torch's meta device). Raises InputError if `config` names a model that cannot be built.
    """
    model = build_without_memory(config, num_classes=1).eval()
    padded = -(-sizes // model.body.stride) * model.body.stride
    with torch.inference_mode():
        levels = [model.pyramid(torch.empty(1, 3, h, w, device="meta")).values() for h, w in padded.tolist()]
    return padded, np.array([[tuple(level.shape[-2:]) for level in image] for image in levels], np.int64)
