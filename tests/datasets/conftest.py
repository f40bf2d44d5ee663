"""The scripts in datasets/ are commands, not a package: they are run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture
def run_script():
    """run_script("from_csv.py", ...) → the finished process, its output as text."""

    def run(name: str, *arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, SCRIPTS / name, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


@pytest.fixture
def scripts_on_path(monkeypatch):
    """Lets a test import the scripts' modules."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.fixture
def make_image(tmp_path):
    """make_image("a.jpg", 100, 80) writes a plain image below tmp_path; orientation 6: stored on its side."""

    def make(name: str, width: int, height: int, orientation: int = 1) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (width, height)).save(file, exif=exif)
        return file

    return make
