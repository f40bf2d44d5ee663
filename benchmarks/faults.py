"""Trainings with faults: killed, stopped, with damaged checkpoints, on a full disk. Do they resume to the same end?

    python benchmarks/faults.py [--kills 50] [--stops 20] ... [--output DIR]

Each configuration of fault_runs.py trains a few steps without interruption. Then it trains again and again, ended by
SIGKILL (or SIGTERM) at random moments or without room for its files, and resumed. Every such run is compared bit for
bit with the uninterrupted one. Each trial writes a JSON line to <output>/results.jsonl and is not repeated: stop and
restart this script as you like. Exit code 1 if any trial failed. Mounting small disks takes root (or `unshare -rm
python ...`).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path

from fault_runs import CONFIGS, LAST, emptied, step_of, uninterrupted

from detector import checkpoint
from detector.config.file import load_config
from detector.training.resume_proof.differences import differences
from detector.training.resume_proof.processes import start_training, train_interrupted, write_config
from detector.utils.cli import run
from detector.utils.errors import InputError
from detector.utils.json_lines import read_json_lines

KEPT = (LAST, "checkpoints/best.pt", "eval/val/metrics.json", "eval/val/detections.json")
PRELOADED = ["detector.training.resume_proof.processes", "timm"]  # before a training is forked

TakeRoom = Callable[[int, float], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, (_, _, count) in TRIALS.items():
        parser.add_argument(f"--{option}", type=int, default=count, help=f"default: {count}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "out/faults")
    args = parser.parse_args()
    multiprocessing.set_forkserver_preload(PRELOADED)
    args.output.mkdir(parents=True, exist_ok=True)
    results = args.output / "results.jsonl"
    done = read_json_lines(results)
    for option, (kind, trial, _) in TRIALS.items():
        for number in range(getattr(args, option.replace("-", "_"))):
            if (kind, number) in {(line["kind"], line["number"]) for line in done}:
                continue
            name = list(CONFIGS)[number % len(CONFIGS)]
            rng = random.Random(f"{args.seed} {kind} {number}")
            done.append({"kind": kind, "number": number, "config": name, **trial(args.output, name, number, rng)})
            with results.open("a") as file:
                file.write(f"\n{json.dumps(done[-1])}")  # the line before may be incomplete
            print(json.dumps(done[-1]), flush=True)
    return summarise(done)


def summarise(done: list[dict]) -> int:
    """Print a line for each kind of trial; the exit code."""
    for kind, _, _ in TRIALS.values():
        of_kind = [line for line in done if line["kind"] == kind]
        skipped = sum("skipped" in line for line in of_kind)
        good = sum(not line["problems"] for line in of_kind) - skipped
        print(f"{kind}: {good} of {len(of_kind)} as they should be{f', {skipped} skipped' if skipped else ''}")
        if kills := sum(line.get("kills", 0) for line in of_kind):
            saving, again = (sum(line.get(key, 0) for line in of_kind) for key in ("while_saving", "before_a_step"))
            print(f"  ended {kills} times: {saving} while saving, {again} after resuming but before the next step")
        if full := sum(line.get("warnings", 0) > 0 for line in of_kind):
            print(f"  in {full} of them a checkpoint could not be saved")
    return int(any(line["problems"] for line in done))


def try_kill(output: Path, name: str, number: int, rng: random.Random, signum: int = signal.SIGKILL) -> dict:
    """End a training at random moments (every third training three times) and resume it. Does it end the same?"""
    whole, seconds = uninterrupted(output, name)
    steps, kills = step_of(whole / LAST), 1 if number % 3 else 3
    log = output / f"{signal.Signals(signum).name}.txt"
    for _ in range(5):  # try again if the training was done before the moment came
        parts = emptied(output / log.stem)
        config = write_config(load_config(whole.with_suffix(".yaml")), parts.with_suffix(".yaml"))
        try:
            done = train_interrupted(config, log, kills=kills, steps=steps, seconds=seconds, rng=rng, signum=signum)
        except RuntimeError as problem:
            return {"problems": [str(problem)]}
        if done.kills:
            break
    before_a_step = sum(later <= sooner for sooner, later in pairwise(done.steps))
    problems = differences(whole, parts)[:5] if done.kills else ["never interrupted"]
    return {**asdict(done), "before_a_step": before_a_step, "problems": problems}


def try_damage(output: Path, name: str, number: int, rng: random.Random, flip: bool = False) -> dict:
    """Cut a checkpoint short (the first one to 0 bytes) or change one byte. Is the one before it used?"""
    whole, _ = uninterrupted(output, name)
    contents = bytearray((whole / LAST).read_bytes())
    size, offset = len(contents), rng.randrange(len(contents)) if flip or number else 0
    if flip:
        contents[offset] ^= rng.randrange(1, 256)
    else:
        del contents[offset:]
    folder = emptied(output / "damaged")
    folder.mkdir()
    file, before = folder / "last.pt", folder / "last.1.pt"
    file.write_bytes(contents)
    os.link(whole / "checkpoints/last.1.pt", before)
    try:
        checkpoint.load(file)
        problems, said = ["the damage was not noticed"], None
    except InputError as problem:
        used, said = checkpoint.load_newest(file)[1], str(problem)
        problems = [] if used == before else ["the checkpoint before was not used"]
    return {"offset": offset, "of": size, "sentence": said, "problems": problems}


def try_file_limit(output: Path, name: str, number: int, rng: random.Random) -> dict:
    """From a random moment on, let a training write only files of fewer than so many bytes."""
    limit = int(math.exp(rng.uniform(math.log(500), math.log(10e6))))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def take_room(pid: int, seconds: float) -> None:
        with suppress(ProcessLookupError):
            if seconds < math.inf:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))

    return {"limit": limit, **train_without_room(output, name, rng, emptied(output / "full"), take_room)}


def try_small_disk(output: Path, name: str, number: int, rng: random.Random) -> dict:
    """From a random moment on, leave a training only a few kB of disk; every second time only for a while."""
    whole, duration = uninterrupted(output, name)
    disk, room = output / "small", rng.randrange(20_000)
    filler, until = disk / "filler", rng.uniform(0, duration) if number % 2 else math.inf
    if reason := mount(disk, 2 * sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())):
        return {"skipped": f"mounting is not possible: {reason}", "problems": []}

    def take_room(pid: int, seconds: float) -> None:
        if seconds >= until:
            filler.unlink(missing_ok=True)
        elif (free := shutil.disk_usage(disk).free - room) > 0:
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                file.write(bytes(free))

    try:
        trial = train_without_room(output, name, rng, disk / "run", take_room)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    return {"room": room, "for_a_while": number % 2, **trial}


def mount(folder: Path, size: int) -> str | None:
    """Mount an empty disk of so many bytes. Returns why that failed, None if it did not."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["umount", "--lazy", folder], capture_output=True)  # left by a trial that was killed
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    mounting = subprocess.run(command, capture_output=True, text=True)
    return mounting.stderr.strip() if mounting.returncode else None


def train_without_room(output: Path, name: str, rng: random.Random, parts: Path, take_room: TakeRoom) -> dict:
    """Train, take the room away at a random moment, resume without room, and resume with room.

    The first two must go on or stop with one error, and lose no file. The last must end like the uninterrupted run.
    take_room(pid, seconds): called again and again with the seconds since the first call; with infinity at the end, to
    give the room back.
    """
    whole, duration = uninterrupted(output, name)
    config = write_config(load_config(whole.with_suffix(".yaml")), parts.with_suffix(".yaml"))
    last, said, codes, steps, problems = parts / LAST, [], [], [], []
    for moment in (rng.uniform(0, 0.8 * duration), 0):
        log = output / f"{parts.name}.{len(said)}.txt"
        code, files, sooner, later = _train_until_full(config, last, output / "pipe", log, moment, take_room)
        said.append(log.read_text())
        codes.append(code)
        steps.append((sooner, later))
        errors = sum(line.startswith("error: ") for line in said[-1].splitlines())
        if "Traceback" in said[-1] or (code, errors) not in ((0, 0), (1, 1)):
            problems.append(f"exit code {code}: {said[-1][-1000:]}")
        problems += [f"lost: {file}" for file in files if not _is_readable(file)]
        problems += [f"a checkpoint is lost: {steps}"] if later < sooner else []
    take_room(0, math.inf)
    again = start_training(config, bool(checkpoint.history(last)), log)
    again.join()
    if again.exitcode:
        problems.append(f"then exit code {again.exitcode}: {log.read_text()[-500:]}")
    else:  # TensorBoard's curves may have a gap if a warning said so
        gap = "TensorBoard" if any("TensorBoard could not be written" in text for text in said) else None
        problems += [line for line in differences(whole, parts) if line.split(":")[0] != gap]
    warnings = sum(text.count("could not be saved") for text in said)
    return {"kept_steps": steps, "exit_codes": codes, "warnings": warnings, "problems": problems[:5]}


def _train_until_full(
    config: Path, last: Path, pipe: Path, log: Path, moment: float, take_room: TakeRoom
) -> tuple[int | None, list[Path], int, int]:
    """Train, and take the room away after `moment` seconds.

    Returns the exit code, the KEPT files that there were at the moment, and the checkpoint's step then and at the end.
    """
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)  # the training's console goes through it, as a terminal does not fill up
    with log.open("w") as file:
        reader = subprocess.Popen(["cat", pipe], stdout=file)
    process = start_training(config, bool(checkpoint.history(last)), pipe)
    process.join(moment)
    run = last.parents[1]
    files, step = [file for file in map(run.joinpath, KEPT) if file.exists()], step_of(last)
    begin = time.monotonic()
    while process.exitcode is None:
        take_room(process.pid, time.monotonic() - begin)
        process.join(0.02)
    reader.wait()
    return process.exitcode, files, step, step_of(last)


def _is_readable(file: Path) -> bool:
    with suppress(InputError, OSError, ValueError):
        return (checkpoint.load(file) if file.suffix == ".pt" else json.loads(file.read_text())) is not None
    return False


# Option → the name of a kind of trial, the trial, how many by default.
TRIALS = {
    "kills": ("kill", try_kill, 50),
    "stops": ("stop", partial(try_kill, signum=signal.SIGTERM), 20),
    "truncations": ("truncation", try_damage, 100),
    "flips": ("flip", partial(try_damage, flip=True), 100),
    "full": ("full", try_file_limit, 20),
    "small-disk": ("small disk", try_small_disk, 20),
}


if __name__ == "__main__":
    run(main)
