"""A dataset small enough to train on in seconds, where the real ones are, if they are, and how tools are run."""

import io
import json
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

# One thread in this process and in those that tests start: pytest-xdist gives every core a process, and more threads
# than cores wait for one another. Before torch and numpy are imported, which read this once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ[variable] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"  # where a test asks for more threads, they sleep instead of spinning

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # for subprocesses
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore Ctrl-C, and so what they start

REAL_DATA = Path(os.environ.get("DETECTOR_TEST_DATA") or ROOT.parent / "shared" / "data")

TINY = """
data: {dataset: tiny.yaml, image_size: 64, workers: 0}
augment: {transforms: none}
model:
  backbone: {name: timm/test_resnet, weights: null, norm: batch}
  neck: {channels: 16}
  head: {depth: 1, width: 16}
  anchors: {base_size: 16}
  postprocess: {score_threshold: 0}
train: {epochs: 2, batch_size: 2, lr: 1e-3, optimizer: adamw, precision: fp32, warmup_steps: 0, log_every: 1}
device: cpu
output_dir: run
"""


@pytest.fixture(scope="session")
def real_data():
    """real_data("bccd") → the folder of that real dataset, below DETECTOR_TEST_DATA or ../shared/data; else skips."""

    def folder(name: str) -> Path:
        if not (REAL_DATA / name).is_dir():
            pytest.skip(
                f"no real dataset {name} in {REAL_DATA}; the environment variable DETECTOR_TEST_DATA says where"
            )
        return REAL_DATA / name

    return folder


def write_tiny_dataset(folder: Path) -> Path:
    """Descriptor of 6 training and 4 val images of 64x48: bright squares (id 7) and dark ones (id 3); one is empty."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        images = folder / split
        images.mkdir()
        coco = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}]}
        for i in range(count):
            image = rng.integers(100, 140, (48, 64, 3), dtype=np.uint8)
            coco["images"].append({"id": 10 * i + 5, "file_name": f"{i}.png", "width": 64, "height": 48})
            for k, (category, value) in enumerate(((7, 255), (3, 0)) if i else ()):
                x, y = int(rng.integers(32 * k, 32 * k + 12)), int(rng.integers(0, 28))
                image[y : y + 20, x : x + 20] = value
                box = {"id": 100 + 2 * i + k, "image_id": 10 * i + 5, "category_id": category, "iscrowd": 0}
                coco["annotations"].append(box | {"bbox": [x, y, 20, 20], "area": 400})
            Image.fromarray(image).save(images / f"{i}.png")
        (folder / f"{split}.json").write_text(json.dumps(coco))
    descriptor = folder / "tiny.yaml"
    descriptor.write_text("".join(f"{s}: {{images: {s}, annotations: {s}.json}}\n" for s in ("train", "val")))
    return descriptor


@pytest.fixture
def tiny_dataset(tmp_path) -> Path:
    """Descriptor of the tiny dataset, in <tmp_path>, to change at will."""
    return write_tiny_dataset(tmp_path)


@pytest.fixture
def tiny_config(tiny_dataset, tmp_path, monkeypatch) -> Path:
    """Config of a very small detector on that dataset, writing to run/. All paths in it are relative to <tmp_path>, the
    working directory, so that a run may be copied into it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with the tiny dataset and `run`, an epoch of training with tiny_config: to read, not to change."""
    from detector.config.file import load_config
    from detector.training.trainer import fit

    folder = tmp_path_factory.mktemp("trained")
    write_tiny_dataset(folder)
    (folder / "config.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_figures_blank(patch)
        assert fit(load_config("config.yaml", ["train.epochs=1"])) == 0
    return folder


@pytest.fixture
def run(trained, tiny_config, tmp_path) -> Path:
    """A copy of that run in <tmp_path>/run, to change at will, beside the dataset and tiny_config."""
    return shutil.copytree(trained / "run", tmp_path / "run")


def save_figures_blank(patch: pytest.MonkeyPatch) -> None:
    """From now on figures are composed as ever and saved blank: drawing them takes longer than a tiny training."""
    from matplotlib.figure import Figure

    draw, blank = Figure.savefig, {}

    def savefig(self, file, format="png", **options) -> None:
        if format not in blank:
            buffer = io.BytesIO()
            draw(Figure(figsize=(1, 1)), buffer, format=format)
            blank[format] = buffer.getvalue()
        if isinstance(file, str | Path):
            Path(file).write_bytes(blank[format])
        else:
            file.write(blank[format])

    patch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def blank_figures(monkeypatch) -> None:
    save_figures_blank(monkeypatch)


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


@pytest.fixture
def little_memory():
    """little_memory(model, limit) → the model, which runs out of memory where more than `limit` images come at once."""
    from torch import OutOfMemoryError, nn

    class LittleMemory(nn.Module):
        def __init__(self, model: nn.Module, limit: int):
            super().__init__()
            self.model, self.limit, self.seen = model, limit, []

        def forward(self, images, sizes):
            self.seen.append(len(images))
            if len(images) > self.limit:
                raise OutOfMemoryError("CUDA out of memory")
            return self.model(images, sizes)

    return LittleMemory
