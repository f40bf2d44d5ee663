"""A COCO file of two images and four objects, small enough to know by heart."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from detector.data.descriptor import Split

# ids out of order, with gaps, and objects not sorted by image: nothing may rely on any of that
COCO = {
    "images": [
        {"id": 30, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 10, "file_name": "b.png", "height": 50, "width": 20},
    ],
    "annotations": [
        {"id": 5, "image_id": 10, "category_id": 9, "bbox": [1, 2, 3.25, 4], "area": 7.5, "iscrowd": 0},
        {"id": 6, "image_id": 30, "category_id": 2, "bbox": [50, 30, 20, 5], "segmentation": [[1, 2, 3, 4]]},
        {"id": 8, "image_id": 10, "category_id": 2, "bbox": [0, 0, 20, 50], "area": 1000, "iscrowd": 1},
        {"id": 7, "image_id": 10, "category_id": 4, "bbox": [5, 6, 7, 8], "area": 56},
    ],
    "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 4, "name": "bird"}],
}


@pytest.fixture
def coco() -> dict:
    """The contents of the file, to change at will."""
    return copy.deepcopy(COCO)


@pytest.fixture
def split_of(tmp_path):
    """Writes contents as a split's annotation file, with or without grey images of the stated sizes."""

    def write(contents: dict, images: bool = False) -> Split:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for i, entry in enumerate(contents["images"] if images else ()):
            grey = np.full((entry["height"], entry["width"], 3), 10 * i + 10, np.uint8)
            Image.fromarray(grey).save(folder / entry["file_name"])
        (tmp_path / "coco.json").write_text(json.dumps(contents))
        return Split(folder, tmp_path / "coco.json")

    return write
