"""A few broken files of each kind, always the same; benchmarks/fuzz.py runs 10,000."""

import importlib
import sys
from pathlib import Path

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
pytest.importorskip("timm", reason="timm is not installed")

sys.path.append(str(Path(__file__).parent))  # not a package: tests are collected with --import-mode=importlib
cases = importlib.import_module("cases")

FEW = {"json": 60, "yaml": 150, "image": 300, "checkpoint": 100}


@pytest.mark.parametrize("kind", FEW)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
def test_broken_files_give_an_answer_or_one_line(kind, tmp_path):
    check = getattr(cases.Checks(tmp_path / "files"), kind)

    @hypothesis.settings(
        max_examples=FEW[kind], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(cases.KINDS[kind]())
    def run(content):
        check(content)

    run()
