"""A dataset small enough to train on in seconds, and where the real ones are, if they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL_DATA = Path(__file__).parents[1].parent / "shared" / "data"

TINY = """
data: {{dataset: {dataset}, image_size: 64, augment: none, workers: 0}}
model:
  backbone: {{name: resnet18, weights: null, norm: batch}}
  fpn: {{channels: 16}}
  head: {{depth: 1, width: 16}}
  anchors: {{base_size: 16}}
  postprocess: {{score_threshold: 0}}
train: {{epochs: 2, batch_size: 2, lr: 1e-3, optimizer: adamw, precision: fp32, warmup_steps: 0, log_every: 1}}
device: cpu
"""


@pytest.fixture(scope="session")
def real_data():
    """Folder of a real dataset, by name; skips where it is absent."""

    def folder(name: str) -> Path:
        if not (REAL_DATA / name).is_dir():
            pytest.skip(f"real dataset {name} is not at {REAL_DATA / name}")
        return REAL_DATA / name

    return folder


@pytest.fixture
def tiny_dataset(tmp_path) -> Path:
    """Descriptor of 6 training and 4 val images of 64x48: bright squares (id 7) and dark ones (id 3); one is empty."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        folder = tmp_path / split
        folder.mkdir()
        coco = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}]}
        for i in range(count):
            image = rng.integers(100, 140, (48, 64, 3), dtype=np.uint8)
            coco["images"].append({"id": 10 * i + 5, "file_name": f"{i}.png", "width": 64, "height": 48})
            for k, (category, value) in enumerate(((7, 255), (3, 0)) if i else ()):
                x, y = int(rng.integers(32 * k, 32 * k + 12)), int(rng.integers(0, 28))
                image[y : y + 20, x : x + 20] = value
                box = {"id": 100 + 2 * i + k, "image_id": 10 * i + 5, "category_id": category, "iscrowd": 0}
                coco["annotations"].append(box | {"bbox": [x, y, 20, 20], "area": 400})
            Image.fromarray(image).save(folder / f"{i}.png")
        (tmp_path / f"{split}.json").write_text(json.dumps(coco))
    descriptor = tmp_path / "tiny.yaml"
    descriptor.write_text("".join(f"{s}: {{images: {s}, annotations: {s}.json}}\n" for s in ("train", "val")))
    return descriptor


@pytest.fixture
def tiny_config(tiny_dataset, tmp_path) -> Path:
    """Config of a very small detector on that dataset, writing to <tmp_path>/run."""
    path = tmp_path / "config.yaml"
    path.write_text(TINY.format(dataset=tiny_dataset) + f"output_dir: {tmp_path / 'run'}\n")
    return path
