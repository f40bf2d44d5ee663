"""Loader processes that die: named with the cause, whatever the main process was doing."""

import os
import signal
import time

import pytest
import torch

from detector.data.coco import read_coco
from detector.data.loader import train_loader
from detector.data.workers import explain_failure
from detector.utils.errors import RunError


@pytest.fixture
def loader(coco, split_of):
    data = read_coco(split_of(coco, images=True))
    return train_loader(data, image_size=64, transforms="none", batch_size=1, seed=0, workers=1)


@pytest.mark.parametrize(
    ("signum", "cause"),
    [
        (signal.SIGKILL, "was killed by SIGKILL, which the system does when memory runs out; try fewer data.workers"),
        (
            signal.SIGBUS,
            "was killed by SIGBUS, most likely because the shared memory.*--shm-size.*or set data.workers=0",
        ),
        (signal.SIGSEGV, "was killed by SIGSEGV, that is, it crashed; data.workers=0 shows where"),
    ],
)
def test_a_worker_that_is_killed_is_named_when_its_batch_is_waited_for(loader, signum, cause):
    loader.set_position(0)
    next(iter(loader))
    pid = loader._workers[0].pid
    os.kill(pid, signal.SIGSTOP)  # or it would make the rest before it dies
    loader.set_position(1)
    os.kill(pid, signum)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.2)  # nothing is raised here, in what might be an optimizer step
    with pytest.raises(RunError, match=rf"^a loader process \(pid {pid}\) {cause}"):
        list(loader)


def test_a_worker_that_is_killed_before_its_batch_is_fetched(loader):
    """The batch is in the queue, but its memory is asked for from the worker."""
    loader.set_position(0)
    batches = iter(loader)
    next(batches)
    pid = loader._workers[0].pid
    time.sleep(0.5)  # it makes the second batch
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RunError, match=rf"^a loader process \(pid {pid}\) was killed by SIGKILL"):
        list(batches)


def test_signals_to_the_group_are_not_for_workers(loader):
    loader.set_position(0)
    batches = iter(loader)
    next(batches)
    pid = loader._workers[0].pid
    assert os.getpgid(pid) == pid
    for signum in (signal.SIGINT, signal.SIGUSR1):
        os.kill(pid, signum)
    assert len(list(batches)) == 1


def test_too_little_shared_memory_says_what_to_set(loader, monkeypatch):
    """As torch says it in a worker; left to its queue, the batch would be waited for without end."""

    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(RunError, match="^the shared memory.*is too small.*--shm-size.*data.workers=0$"):
        list(loader)


def test_other_errors_are_for_a_traceback():
    assert explain_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), []) is None
