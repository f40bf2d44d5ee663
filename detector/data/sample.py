"""Reading one image of a dataset and the objects to train on."""

from __future__ import annotations

import numpy as np

from detector.data.coco import CocoData
from detector.data.image import read_image

# image (H,W,3) uint8 RGB; boxes (M,4) float32 xyxy in pixels of that image; labels (M,) int64 in 0..K-1
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_image_of(data: CocoData, index: int) -> np.ndarray:
    """Image `index` as (H,W,3) uint8 RGB, of the size that the annotation file states. Raises InputError."""
    return read_image(data.images_dir / data.file_name(index), data.size(index))


def read_sample(data: CocoData, index: int) -> Sample:
    """Image `index` with its boxes and labels (see `CocoData.target_boxes`). Raises InputError."""
    return read_image_of(data, index), *data.target_boxes(index)
