"""A dataset small enough to train on in seconds, where the real ones are, if they are, and how tools are run."""

import json
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore Ctrl-C, and so what they start

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"

TINY = """
data: {{dataset: {dataset}, image_size: 64, workers: 0}}
augment: {{transforms: none}}
model:
  backbone: {{name: timm/test_resnet, weights: null, norm: batch}}
  neck: {{channels: 16}}
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


@pytest.fixture
def tool(capsys, monkeypatch):
    """Runs a tool's script as __main__ in this process (importing torch anew each time would take minutes)."""

    def tool(name: str, *arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        capsys.readouterr()
        code = None
        try:
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        except SystemExit as end:  # not pytest.raises, which would keep the exception, its frames and their workers
            code = end.code
        return code, *capsys.readouterr()

    return tool


@pytest.fixture
def succeeds(tool):
    def succeeds(name: str, *arguments) -> str:
        code, out, err = tool(name, *arguments)
        assert code == 0, err
        return out

    return succeeds


@pytest.fixture
def fails(tool):
    """The sentence of a tool that ends with exit code 2 and one line on stderr."""

    def fails(name: str, *arguments) -> str:
        code, _, err = tool(name, *arguments)
        assert code == 2, (code, err)
        assert err.startswith("error: ") and err.count("\n") == 1, err
        return err

    return fails
