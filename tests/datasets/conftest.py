"""The scripts in datasets/ are commands, not a package: they are run as commands."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture
def run_script(capsys, monkeypatch):
    """run_script("from_csv.py", ...) → a finished process, its output as text.

    The scripts run in this process, because a new one imports half a second long, but for make_shapes.py, whose
    workers need it as their main program.
    """

    def run(name: str, *arguments) -> subprocess.CompletedProcess:
        command = [str(SCRIPTS / name), *map(str, arguments)]
        if name == "make_shapes.py":
            return subprocess.run([sys.executable, *command], capture_output=True, text=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command)
            patch.syspath_prepend(str(SCRIPTS))
            capsys.readouterr()
            code = 0
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as end:
                code = end.code
        return subprocess.CompletedProcess(command, code, *capsys.readouterr())

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
