"""A few broken files of each kind, always the same ones; benchmarks/fuzz.py runs 10,000."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from detector.config.file import load_config
from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.data.image import read_image
from detector.inference.detector import load
from detector.training.replay import replay

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
pytest.importorskip("timm", reason="timm is not installed")

sys.path.append(str(Path(__file__).parent))  # pytest does not add it: --import-mode=importlib
cases = importlib.import_module("cases")
checkpoint_cases = importlib.import_module("checkpoint_cases")

FEW = {"json": 60, "yaml": 150, "image": 300, "checkpoint": 100}


@pytest.mark.parametrize("kind", FEW)
@pytest.mark.filterwarnings("ignore")  # Pillow warns about damaged metadata
def test_broken_files_are_read_or_refused_in_one_line(kind, tmp_path):
    check = getattr(cases.Checks(tmp_path / "files"), kind)

    @hypothesis.settings(
        max_examples=FEW[kind], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(cases.KINDS[kind]())
    def run(content):
        check(content)

    run()


def test_the_files_that_cases_begin_with_are_accepted(tmp_path):
    """Otherwise every case would be refused by the first check, and show nothing."""
    (tmp_path / "images").mkdir()
    for name, text in (("c.yaml", cases.CONFIG), ("d.yaml", cases.DESCRIPTOR), ("coco.json", json.dumps(cases.SOUND))):
        (tmp_path / name).write_text(text)
    assert load_config(tmp_path / "c.yaml").seed == 3
    assert len(read_coco(load_descriptor(tmp_path / "d.yaml").split("train"))) == 2
    for content in cases.sound_images():
        (tmp_path / "image").write_bytes(content)
        assert sorted(read_image(tmp_path / "image").shape) == [3, 9, 13]
    for name, contents in (("c.pt", checkpoint_cases.checkpoint()), ("bad.pt", checkpoint_cases.bad_batch())):
        (tmp_path / name).write_bytes(checkpoint_cases.saved(contents))
    assert load(tmp_path / "c.pt", device="cpu").class_names == ["cat", "dog"]
    replay(tmp_path / "bad.pt")
