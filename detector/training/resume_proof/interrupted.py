"""Whether trainings that are killed and resumed end as if nothing had happened, bit for bit: tried out.

Trainings run in processes of their own, forked from one that has loaded torch and done nothing else.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector import checkpoint
from detector.config.file import dump, load_config
from detector.config.schema import Config
from detector.training.trainer import fit
from detector.utils.cli import run
from detector.utils.errors import InputError
from detector.utils.records import read_records

OF_CLOCKS = ("images_per_second",)  # figures that no two trainings share
OF_THE_TRIAL = ("output_dir", "train.save_every", "train.keep")  # settings that may differ
# When a training is killed, and how often so: while it writes a checkpoint; after a time from its start, which may be
# in its preparations or an evaluation; a moment after a step.
KINDS = {"saving": 0.3, "time": 0.3, "step": 0.4}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["detector.training.resume_proof.interrupted"])


@dataclass
class Trial:
    """What came of a training that was interrupted."""

    kills: int = 0
    while_saving: int = 0  # of these, in the middle of writing a checkpoint
    steps: tuple[int, ...] = ()  # how far it was, by its records, at each kill
    exit_codes: tuple[int, ...] = ()  # of the processes that were ended


def train(config: Path, resume: bool, log: Path) -> multiprocessing.Process:
    """The process of a training, started. Its console goes to the file `log`."""
    process = _processes.Process(target=_train, args=(config, resume, log))
    process.start()
    return process


def _train(config: Path, resume: bool, log: Path) -> None:
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    # those of before were made for another kind of file (a pipe cannot be sought in, say)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    run(lambda: fit(load_config(config), resume=resume))


def train_whole(config: Path, log: Path) -> float:
    """Train without interruption; how long it took, in seconds. Raises RuntimeError if it failed."""
    process = _processes.Process(target=int)  # the first one waits for torch to be loaded
    process.start()
    process.join()
    begin = time.monotonic()
    process = train(config, False, log)
    process.join()
    _check(process.exitcode, log)
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
) -> Trial:
    """Train, ended by `signum` at `kills` random moments, fewer where it is done before, and resumed each time, to the
    end.

    steps: of the training, each of which must be logged. seconds: about how long it takes.
    Raises RuntimeError if a training failed by itself.
    """
    directory, trial = Path(load_config(config).output_dir), Trial()
    while True:
        resume = bool(checkpoint.history(directory / "checkpoints" / "last.pt"))
        old = _partials(directory)
        process = train(config, resume, log)
        kind = rng.choices(list(KINDS), KINDS.values())[0]
        if kind == "saving":
            moment = _while_saving(directory, old, rng)
        elif kind == "time":
            moment = _in_time(rng.uniform(0, seconds / kills))
        else:
            before = _last_step(directory) if resume else 0
            moment = _at_step(directory, rng.randint(before, max(before, steps - 1)), rng.uniform(0, seconds / steps))
        if trial.kills < kills and _wait(process, moment):
            partials = _partials(directory)
            with suppress(ProcessLookupError):
                os.kill(process.pid, signum)
            process.join()
            if process.exitcode in (-signum, 128 + signum):  # else it was done, or had failed, just before
                trial.kills += 1
                # After SIGKILL nobody tidies up: what is there now was being written.
                trial.while_saving += not (_partials(directory) if signum == signal.SIGKILL else partials) <= old
                trial.steps += (_last_step(directory),)
                trial.exit_codes += (process.exitcode,)
                continue
        process.join()
        _check(process.exitcode, log)
        return trial


def differences(whole: Path, parts: Path) -> list[str]:
    """What differs between the run directories of two trainings, bit for bit; none if they are the same.

    Compared: last.pt (weights, average, optimizer, schedule, scaler, loss, generators, progress) and best.pt, the lines
    of metrics.jsonl but for what is measured with a clock, TensorBoard's figures, and the files of the best evaluation.
    """
    found = []
    for name in ("last.pt", "best.pt"):
        a, b = (_contents(run / "checkpoints" / name) for run in (whole, parts))
        found += [state for state in (a, b) if isinstance(state, str)] or [f"{name}: {path}" for path in unequal(a, b)]
    a, b = (_records(run) for run in (whole, parts))
    found += [
        f"metrics.jsonl, line {i + 1}: {p}" for i, pair in enumerate(zip(a, b, strict=False)) for p in unequal(*pair)
    ]
    if len(a) != len(b):
        found.append(f"metrics.jsonl: {len(a)} and {len(b)} lines")
    found += [f"TensorBoard: {path}" for path in unequal(_scalars(whole), _scalars(parts))]
    for name in ("metrics.json", "detections.json"):
        a, b = (run / "eval/val" / name for run in (whole, parts))
        if not (a.exists() and b.exists() and a.read_bytes() == b.read_bytes()):
            found.append(f"eval/val/{name}")
    return found


def unequal(a, b, path: str = "") -> Iterator[str]:
    """Where two nested values of dicts, lists, tensors and plain values differ; NaN is equal to itself."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if (key in a) != (key in b):
                yield f"{path}.{key} is only in one"
            else:
                yield from unequal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from unequal(*pair, f"{path}[{i}]")
    elif hasattr(a, "shape") and hasattr(b, "shape"):
        if a.shape != b.shape or a.dtype != b.dtype or a.numpy().tobytes() != b.numpy().tobytes():
            yield f"{path} has other bits"
    elif a != b and not (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)):
        yield f"{path} is {str(a)[:60]} and {str(b)[:60]}"


def write_config(config: Config, path: Path, **changes) -> Path:
    """`config` as a file, with other values of `section__key`; its run directory is `path` without suffix."""
    tree = {**config.model_dump(), "output_dir": str(path.with_suffix(""))}
    for name, value in changes.items():
        section, key = name.split("__")
        tree[section] = {**tree[section], key: value}
    path.write_text(dump(Config.model_validate(tree)))
    return path


def _wait(process: multiprocessing.Process, moment: Callable[[], bool]) -> bool:
    """Until `moment`; False if the process ended before."""
    while process.exitcode is None:
        if moment():
            return True
        time.sleep(0.003)
    return False


def _in_time(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _at_step(directory: Path, step: int, seconds: float) -> Callable[[], bool]:
    """So long after the record of that step."""
    later = None

    def moment() -> bool:
        nonlocal later
        if later is None and _last_step(directory) >= step:
            later = _in_time(seconds)
        return later is not None and later()

    return moment


def _while_saving(directory: Path, old: set[tuple], rng: random.Random) -> Callable[[], bool]:
    """During the n-th writing of a checkpoint, for a random n. old: what lay there half written before."""
    left, was, now = rng.randrange(3), False, False

    def moment() -> bool:
        nonlocal left, was, now
        was, now = now, not _partials(directory) <= old
        left -= now and not was
        return now and left < 0 and rng.random() < 0.2  # not always at its beginning

    return moment


def _partials(directory: Path) -> set[tuple]:
    """The checkpoints that are half written: (name, inode, time of the last change) of each."""
    found = set()
    for file in (directory / "checkpoints").glob("*.partial"):
        with suppress(FileNotFoundError):  # just finished
            stat = file.stat()
            found.add((file.name, stat.st_ino, stat.st_mtime_ns))
    return found


def _check(exit_code: int, log: Path) -> None:
    if exit_code:
        raise RuntimeError(f"a training ended with exit code {exit_code}:\n{log.read_text()[-3000:]}")


def _records(run: Path) -> list[dict]:
    lines = read_records(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in OF_CLOCKS} for line in lines]


def _last_step(run: Path) -> int:
    lines = read_records(run / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def _contents(file: Path) -> dict | str:
    """Of a checkpoint, without the settings that may differ; or what is wrong with it."""
    try:
        state = checkpoint.load(file)
    except InputError as problem:
        return str(problem)
    config = json.loads(json.dumps(state["config"]))
    for name in OF_THE_TRIAL:
        *section, key = name.split(".")
        (config[section[0]] if section else config).pop(key)
    return {**state, "config": config}


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.split("/")[-1] not in OF_CLOCKS]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
