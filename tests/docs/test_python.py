"""The Python in docs/python.md runs, from top to bottom, beside a run directory and a photo."""

import importlib
import shutil
import sys
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parent))  # not a package: tests are collected with --import-mode=importlib
markdown = importlib.import_module("markdown_pages")


def test_the_page_runs(run, tmp_path):
    shutil.move(run, tmp_path / "runs" / "mine")
    Image.open(tmp_path / "val" / "1.png").save("photo.jpg")
    names: dict = {}
    for block in markdown.blocks(markdown.ROOT / "docs" / "python.md", "python"):
        exec(compile(block.text.replace('"star"', '"dark"'), "docs/python.md", "exec"), names)
    assert names["from_bytes"].keys() == names["from_array"].keys() == {"boxes", "scores", "labels", "names"}
    assert names["detect"].postprocess.nms == "all"
