"""The worker processes of a loader: how they start, and why they died."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

import cv2
import torch

from detector.utils.signals import HANDLED, unblock_signals

LITTLE_SHARED_MEMORY = (
    "the shared memory, through which workers pass their batches, is too small; start docker with a larger --shm-size "
    "(such as 8g), or set data.workers=0"
)
CAUSES = {
    "SIGKILL": "which the system does when memory runs out; try fewer data.workers, or a smaller train.batch_size",
    "SIGBUS": f"most likely because {LITTLE_SHARED_MEMORY}",
    "SIGSEGV": "that is, it crashed; data.workers=0 shows where",
}


def start_worker(_: int) -> None:
    """Prepare a new worker process: signals, garbage collection, threads. It was forked while signals were blocked."""
    # Signals are often sent to the whole process group. The main process must save before it ends its workers, so they
    # leave the group. They keep SIGTERM: Python ends them with it at exit.
    for signum in HANDLED:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    unblock_signals()
    gc.freeze()  # the collector would write to inherited objects, which copies their memory pages
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def report_deaths_at_next_batch() -> None:
    """Remove torch's SIGCHLD handler; call it once workers were started.

    When a worker dies, that handler raises an exception wherever the main process is, even in the middle of an
    optimizer step. Without it, the loader notices the death within seconds, when it waits for the next batch.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def explain_failure(problem: Exception, workers: Sequence[BaseProcess]) -> str | None:
    """A sentence on why torch's loader raised `problem`; None where it is a defect, whose traceback is needed."""
    for worker in workers:
        worker.join(timeout=0.2)  # updates `exitcode`; connections break a moment before it is known
        if worker.exitcode:
            return f"a loader process (pid {worker.pid}) {_describe_end(worker.exitcode)}"
    text = str(problem)
    if "shared memory" in text or "unable to write to file </torch_" in text:
        return LITTLE_SHARED_MEMORY
    if "DataLoader worker" in text and "exited unexpectedly" in text:
        return f"a loader process ended for an unknown reason ({text.splitlines()[0]}); try data.workers=0"
    return None


def _describe_end(exitcode: int) -> str:
    if exitcode > 0:
        return f"ended with exit code {exitcode}; data.workers=0 shows why"
    name = signal.Signals(-exitcode).name
    return f"was killed by {name}, {CAUSES.get(name, 'which this program does not send')}"
