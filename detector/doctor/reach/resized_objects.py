"""The objects of a split as the detector is fed them, and the grids of cells that it lays over each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from detector.config.schema import ModelConfig, ShortLong
from detector.data.coco import CocoData
from detector.data.loader import STRIDE
from detector.data.transforms import fed_size
from detector.models.build import build_model


@dataclass(frozen=True)
class FedObjects:
    """B objects (crowds and what the resizing leaves no area are left out) of I images, not augmented."""

    boxes: np.ndarray  # (B, 4) float32 xyxy, pixels of the image as fed
    labels: np.ndarray  # (B,) int64
    images: np.ndarray  # (B,) int64 index of the image, ascending
    index: np.ndarray  # (B,) int64 index among the boxes of the CocoData
    sizes: np.ndarray  # (I, 2) int64 h, w of the image with its own padding, as the backbone gets it alone

    @property
    def sides(self) -> np.ndarray:
        """(B, 2) float32 width and height."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


def fed_objects(data: CocoData, image_size: int | ShortLong) -> FedObjects:
    """The boxes of `data` clipped to their images and resized as in evaluation: `Transform` on all of them at once.

    An image is padded as alone in its batch; beside larger ones it gets more padding, and the more anchors at its edge.
    """
    sizes, inverse = np.unique(np.stack([data.heights, data.widths], axis=1), axis=0, return_inverse=True)
    fed = np.array([fed_size(size, image_size) for size in sizes.tolist()], np.int64)
    factors = (fed / sizes)[inverse.ravel()][:, ::-1]  # of x and y
    padded = np.full_like(fed, image_size) if isinstance(image_size, int) else fed
    padded = -(-padded // STRIDE) * STRIDE

    images = np.repeat(np.arange(len(data)), np.diff(data.first))
    corners = np.concatenate([data.boxes[:, :2], data.boxes[:, :2] + data.boxes[:, 2:]], axis=1)
    limits = np.stack([data.widths, data.heights] * 2, axis=1)[images]
    boxes = (corners.clip(0, limits) * np.tile(factors, 2)[images]).astype(np.float32)
    kept = np.flatnonzero(~data.iscrowd & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    return FedObjects(boxes[kept], data.labels[kept].astype(np.int64), images[kept], kept, padded[inverse.ravel()])


def grids(config: ModelConfig, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the model of `config` makes of images of `sizes` (U, 2) h, w in pixels: padded sizes (U, 2), as it pads to
    its backbone's stride, and the cells of each level (U, L, 2), rows and columns, finest level first.

    They come from the network itself, run without its weights' memory or arithmetic (torch's meta device).
    """
    model = build_model(config, num_classes=1, pretrained=False).to("meta").eval()
    body, fpn = model.backbone["body"], model.backbone["fpn"]
    padded = -(-sizes // body.stride) * body.stride
    with torch.inference_mode():
        levels = [fpn(body(torch.empty(1, 3, h, w, device="meta"))).values() for h, w in padded.tolist()]
    return padded, np.array([[tuple(level.shape[-2:]) for level in image] for image in levels], np.int64)
