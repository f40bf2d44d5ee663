"""The lock of a directory that another process holds or held."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detector.utils.errors import InputError
from detector.utils.lock import NAME, locked

# takes the lock, forks as a loader forks its workers, and prints both pids
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
    """(the process that holds the lock of tmp_path / run, the pid of its worker)"""
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
    os.kill(worker, 0)  # the worker is still alive, as torch's workers are for a while
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / NAME).read_text().startswith(f"{os.getpid()} ")
    assert not (tmp_path / "run" / NAME).exists()


def test_a_new_directory_is_removed_if_it_stays_empty(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_lock_on_a_removed_file_does_not_count(tmp_path, monkeypatch):
    """A process that opened the file before its holder removed it must try again."""
    real, calls = os.fstat, []

    def fstat(descriptor):
        if not calls:
            (tmp_path / NAME).unlink()
        calls.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    with locked(tmp_path):
        assert (tmp_path / NAME).exists()
