"""The lock of a directory, against another process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detector.utils.errors import InputError
from detector.utils.lock import NAME, locked

# takes the lock, forks as a loader does its workers, and says both pids
HOLDER = """
import os, sys, time
from pathlib import Path
from detector.utils.lock import locked
with locked(Path(sys.argv[1])):
    worker = os.fork()
    if worker:
        print(os.getpid(), worker, flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    """(process that holds the lock of tmp_path / run, pid of its worker)"""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
    worker = int(process.stdout.readline().split()[1])
    yield process, worker
    process.kill()
    process.wait()
    os.kill(worker, signal.SIGKILL)
    process.stdout.close()


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_taken_over(holder, tmp_path):
    process, worker = holder
    with (
        pytest.raises(InputError, match=rf"run: process {process.pid} on \S+ is working in it"),
        locked(tmp_path / "run"),
    ):
        pass
    process.kill()
    process.wait()
    os.kill(worker, 0)  # its worker lives on for a while, as torch's do
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / NAME).read_text().startswith(f"{os.getpid()} ")
    assert not (tmp_path / "run" / NAME).exists()


def test_a_directory_made_for_nothing_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_lock_whose_file_was_just_removed_is_none(tmp_path, monkeypatch):
    """Who waited for the file of the last holder has a lock on nothing, and tries again."""
    real, calls = os.fstat, []

    def fstat(descriptor):
        if not calls:
            (tmp_path / NAME).unlink()
        calls.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    with locked(tmp_path):
        assert (tmp_path / NAME).exists()
