"""The processes that read images: how they start, and why they die."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import Process

import cv2
import torch

from detector.utils.signals import HANDLED, unblock_signals

LITTLE_SHARED_MEMORY = (
    "the shared memory, through which workers pass their batches, is too small; start docker with a greater --shm-size "
    "(8g, say), or say data.workers=0"
)
CAUSES = {
    "SIGKILL": "which the system does when memory runs out; try fewer data.workers, or a smaller train.batch_size",
    "SIGBUS": f"most likely because {LITTLE_SHARED_MEMORY}",
    "SIGSEGV": "that is, it crashed; data.workers=0 shows where",
}


def start_worker(_: int) -> None:
    """What a worker does first; it was forked while signals were held back."""
    # Signals often go to the whole process group, but the main process is to save first and end its workers itself: so
    # they leave the group. (Ignoring SIGTERM would not do, it is how they are ended when Python exits.)
    for signum in HANDLED:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    unblock_signals()
    gc.freeze()  # what was inherited is neither searched, which would copy its memory pages, nor finalised here
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def let_the_dead_wait() -> None:
    """To be called when workers were started: take back torch's handler of SIGCHLD.

    When a worker dies, that raises an exception wherever the main process just is, be it in the middle of an optimizer
    step. Without it the death is noticed when the next batch is waited for, within seconds.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def cause_of_failure(problem: RuntimeError, workers: Sequence[Process]) -> str | None:
    """A sentence on why torch's loader failed with `problem`; None if that is for a traceback to say."""
    for worker in workers:
        worker.join(timeout=0)  # learns how it ended, if it did
        if worker.exitcode:
            return f"a loader process (pid {worker.pid}) {_end(worker.exitcode)}"
    text = str(problem)
    if "shared memory" in text or "unable to write to file </torch_" in text:
        return LITTLE_SHARED_MEMORY
    if "DataLoader worker" in text and "exited unexpectedly" in text:
        return f"a loader process ended without a reason ({text.splitlines()[0]}); data.workers=0 does without them"
    return None


def _end(exitcode: int) -> str:
    if exitcode > 0:
        return f"ended with exit code {exitcode}; data.workers=0 shows why"
    name = signal.Signals(-exitcode).name
    return f"was killed by {name}, {CAUSES.get(name, 'which this program does not send')}"
