"""Signals as requests; tests/tools/test_tools.py sends them to a whole training."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.utils import signals
from detector.utils.signals import StopRequest


@pytest.fixture
def left(monkeypatch) -> list[int]:
    """The exit codes with which the process would have ended at once."""
    codes = []
    monkeypatch.setattr(signals, "exit_at_once", codes.append)
    return codes


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_a_flag_and_handlers_are_restored(left, signum):
    before = signal.getsignal(signum)
    with StopRequest() as stop:
        assert (stop.signum, stop.save) == (None, False)
        signal.raise_signal(signum)
        assert (stop.signum, stop.save) == (signum, False)
    assert signal.getsignal(signum) is before and left == []


def test_sigusr1_asks_to_save_and_not_to_stop():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGUSR1)
    assert (stop.signum, stop.save) == (None, True)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_request_exits_at_once(left, first):
    with StopRequest():
        signal.raise_signal(first)
        with StopRequest() as inner:  # while it is being saved
            signal.raise_signal(signal.SIGINT)
        assert left == [130] and inner.signum is None
        signal.raise_signal(signal.SIGINT)
    assert left == [130, 130]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.signum is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_exiting_at_once_kills_the_workers_and_prints_nothing():
    code = (
        "import multiprocessing, time; from detector.utils.signals import exit_at_once\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=[3600]); child.start()\n"
        "print(child.pid, flush=True); exit_at_once(130)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (130, "")
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    end = time.monotonic() + 600
    while stat.exists() and stat.read_text().split()[2] != "Z":  # killed, but not yet dead; a zombie is
        assert time.monotonic() < end
        time.sleep(0.01)


def test_blocked_signals_arrive_afterwards(left):
    with StopRequest() as stop:
        with signals.signals_blocked():
            signal.raise_signal(signal.SIGTERM)  # to this thread, and no other
            assert stop.signum is None
        assert stop.signum == signal.SIGTERM
