"""Trainings in processes of their own: without interruption, or ended at random moments and resumed.

Each process is forked from a server that has imported torch and done nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from detector import checkpoint
from detector.config.file import dump, load_config
from detector.config.schema import Config
from detector.training.trainer import fit
from detector.utils.cli import run
from detector.utils.json_lines import read_json_lines

# When to end a training, and with which probability: while it writes a checkpoint; some time after its start (which may
# hit its preparations or an evaluation); shortly after an optimizer step.
MOMENTS = {"saving": 0.3, "time": 0.3, "step": 0.4}
POLL_SECONDS = 0.003  # between two looks whether the moment has come

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["detector.training.resume_proof.processes"])


@dataclass
class Interruptions:
    """How often and when a training was ended."""

    kills: int = 0
    while_saving: int = 0  # how many of the kills came while a checkpoint was being written
    steps: tuple[int, ...] = ()  # the last step in metrics.jsonl at each kill
    exit_codes: tuple[int, ...] = ()  # of the ended processes


def start_training(config: Path, resume: bool, log: Path) -> BaseProcess:
    """Start a training in a process of its own, which appends its console output to the file `log`."""
    process = _processes.Process(target=_train, args=(config, resume, log))
    process.start()
    return process


def train_uninterrupted(config: Path, log: Path) -> float:
    """Train without interruption. Returns the duration in seconds. Raises RuntimeError if the training fails."""
    first = _processes.Process(target=int)  # it waits until the server has imported torch
    first.start()
    first.join()
    begin = time.monotonic()
    process = start_training(config, False, log)
    process.join()
    _check_exit_code(process, log)
    return time.monotonic() - begin


def train_interrupted(
    config: Path,
    log: Path,
    *,
    kills: int,
    steps: int,
    seconds: float,
    rng: random.Random,
    signum: int = signal.SIGKILL,
) -> Interruptions:
    """Train to the end, but end the process `kills` times by `signum`, at random moments, and resume each time.

    steps: of the whole training, which must log each step. seconds: about its duration without interruption.
    There are fewer kills than `kills` if the training is done earlier. Raises RuntimeError if a training fails.
    """
    directory, done = load_config(config).run_directory, Interruptions()
    while True:
        resume = bool(checkpoint.history(directory / "checkpoints" / "last.pt"))
        partial_before = _partial_files(directory)
        process = start_training(config, resume, log)
        moment = _random_moment(directory, resume, partial_before, kills, steps, seconds, rng)
        if done.kills < kills and _wait_for(moment, process):
            partial = _partial_files(directory)
            assert process.pid is not None
            with suppress(ProcessLookupError):
                os.kill(process.pid, signum)
            process.join()
            if process.exitcode in (-signum, 128 + signum):  # otherwise it was done, or had failed, just before
                if signum == signal.SIGKILL:  # nothing is tidied up: what is there now was being written
                    partial = _partial_files(directory)
                done.kills += 1
                done.while_saving += not partial <= partial_before
                done.steps += (_last_step(directory),)
                done.exit_codes += (process.exitcode,)
                continue
        process.join()
        _check_exit_code(process, log)
        return done


def write_config(config: Config, path: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write `config` with `changes` (dotted path → value) to a file, whose path without suffix is its run directory."""
    path.write_text(dump(config.changed({"output_dir": str(path.with_suffix("")), **(changes or {})})))
    return path


def _train(config: Path, resume: bool, log: Path) -> None:
    """What a process does: train, with its console in the file `log`."""
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    # New text streams: the inherited ones were made for another kind of file (one cannot seek in a pipe, say).
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    run(lambda: fit(load_config(config), resume=resume))


def _check_exit_code(process: BaseProcess, log: Path) -> None:
    if process.exitcode:
        raise RuntimeError(f"a training ended with exit code {process.exitcode}:\n{log.read_text()[-3000:]}")


def _wait_for(moment: Callable[[], bool], process: BaseProcess) -> bool:
    """Wait until `moment` is true. False if the process ended before."""
    while process.exitcode is None:
        if moment():
            return True
        time.sleep(POLL_SECONDS)
    return False


def _random_moment(
    directory: Path, resumed: bool, partial_before: set, kills: int, steps: int, seconds: float, rng: random.Random
) -> Callable[[], bool]:
    """A function that says whether the moment to end a training has come. Arguments: as in train_interrupted."""
    kind = rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
    if kind == "saving":
        return _while_saving(directory, partial_before, rng)
    if kind == "time":
        return _after_seconds(rng.uniform(0, seconds / kills))
    done = _last_step(directory) if resumed else 0
    return _after_step(directory, rng.randint(done, max(done, steps - 1)), rng.uniform(0, seconds / steps))


def _after_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _after_step(directory: Path, step: int, seconds: float) -> Callable[[], bool]:
    """So many seconds after a step was logged."""
    is_over: Callable[[], bool] | None = None

    def moment() -> bool:
        nonlocal is_over
        if is_over is None and _last_step(directory) >= step:
            is_over = _after_seconds(seconds)
        return is_over is not None and is_over()

    return moment


def _while_saving(directory: Path, partial_before: set, rng: random.Random) -> Callable[[], bool]:
    """While a checkpoint is being written: the first, second or third from now on.

    partial_before: the partial files that an earlier process left.
    """
    skip, was_saving, is_saving = rng.randrange(3), False, False

    def moment() -> bool:
        nonlocal skip, was_saving, is_saving
        was_saving, is_saving = is_saving, not _partial_files(directory) <= partial_before
        skip -= is_saving and not was_saving
        return is_saving and skip < 0 and rng.random() < 0.2  # not always at the start of the writing

    return moment


def _partial_files(directory: Path) -> set[tuple[str, int, int]]:
    """The checkpoints that are not completely written: (name, inode, time of the last change in ns) of each."""
    found = set()
    for file in (directory / "checkpoints").glob("*.partial"):
        with suppress(FileNotFoundError):  # it was completed in this moment
            stat = file.stat()
            found.add((file.name, stat.st_ino, stat.st_mtime_ns))
    return found


def _last_step(directory: Path) -> int:
    lines = read_json_lines(directory / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0
