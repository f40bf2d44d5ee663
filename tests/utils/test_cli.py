"""Exit codes and messages on a full disk and on signals; the tools' own tests have the rest."""

import errno
import signal
import subprocess
import sys
import threading

import pytest

from detector.utils.cli import run


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # `run` replaces it


def test_a_full_disk_is_one_line(capsys):
    def main():
        raise OSError(errno.ENOSPC, "No space left on device", "out.json")

    with pytest.raises(SystemExit) as end:
        run(main)
    assert (end.value.code, capsys.readouterr().err) == (1, "error: out.json: No space left on device\n")


def test_a_file_that_the_system_refuses_is_one_line(capsys):
    for number, said in ((errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")):

        def main(number=number, said=said):
            raise OSError(number, said, "runs/a/log.txt")

        with pytest.raises(SystemExit) as end:
            run(main)
        assert (end.value.code, capsys.readouterr().err) == (2, f"error: runs/a/log.txt: {said}\n")


def test_several_processes_are_refused_before_they_begin(capsys, monkeypatch):
    for count, code in (("2", 2), ("1", 0), ("", 0), ("some", 0)):
        monkeypatch.setenv("WORLD_SIZE", count)
        with pytest.raises(SystemExit) as end:
            run(lambda: print("works"))
        out, err = capsys.readouterr()
        assert end.value.code == code and (out == "works\n") == (code == 0)
        assert err.startswith("error: started as 2 processes (WORLD_SIZE=2") == (code == 2) and err.count("\n") <= 1


@pytest.mark.parametrize(("problem", "said"), [(OSError(errno.ENOSPC, "full"), False), (KeyError("x"), True)])
def test_a_thread_reports_every_error_but_a_full_disk(capsys, problem, said):
    def fails():
        raise problem

    def main():
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 0 and ("Traceback" in capsys.readouterr().err) == said


CLEANS_UP = """
import time
from detector.utils.cli import run
def main():
    try:
        print("begins", flush=True)
        time.sleep(3600)
    finally:
        print("cleans up", flush=True)
        try:
            time.sleep(3600)
        except KeyboardInterrupt:  # as some libraries do
            time.sleep(3600)
run(main)
"""


def test_ctrl_c_twice_leaves_at_once():
    process = subprocess.Popen([sys.executable, "-c", CLEANS_UP], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for expected in (b"begins\n", b"cleans up\n"):
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130 and process.stderr.read() == b""


def test_background_jobs_still_ignore_ctrl_c(capsys):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as end:
            run(lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 0
