"""Trainings that die: killed, stopped, with damaged checkpoints, on a full disk; what comes of them after --resume.

    python benchmarks/faults.py [--kills 50] [--stops 20] ... [--output DIR]

Each of CONFIGS trains a few steps in peace; then again and again, ended by SIGKILL (or SIGTERM) at random moments, or
with no more room for its files, and resumed; every such run is compared with the one in peace, bit for bit. Every trial
is a JSON line in <output>/results.jsonl, and those that have their line are not repeated: stop it and start it again as
you like. Exit code 1 if any failed. Small disks are mounted, which takes root (or `unshare -rm python ...`).
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

import numpy as np
import yaml
from PIL import Image

from detector import checkpoint
from detector.config.file import load_config, validate
from detector.training.resume_proof.differences import differences
from detector.training.resume_proof.processes import train, train_interrupted, train_whole, write_config
from detector.utils.cli import run
from detector.utils.errors import InputError
from detector.utils.json_lines import read_json_lines

BASE = {
    "data": {"image_size": 64, "augment": "light", "workers": 0},
    "model": {"backbone": {"name": "timm/test_resnet.r160_in1k", "weights": None, "norm": "batch"},
              "neck": {"channels": 16}, "head": {"depth": 1, "width": 16}, "anchors": {"base_size": 16},
              "postprocess": {"score_threshold": 0.0}},
    "train": {"epochs": 2, "batch_size": 2, "lr": 0.01, "precision": "fp32", "warmup_steps": 2, "log_every": 1,
              "save_every": 2, "keep": 1},
    "device": "cpu",
}  # fmt: skip
CONFIGS = {
    "plain": [],
    "accumulation, 2 workers": ["train.accumulate=2", "data.workers=2"],
    # of a larger network, whose checkpoints take long to write
    "average, adamw": ["train.ema=0.9", "train.optimizer=adamw", "model.backbone.name=resnet18"],
    "equalized focal": ["loss.classification=equalized_focal", "data.workers=2", "data.sampling=class_aware"],
    "adaptive focal, pasting": ["loss.classification=adaptive_focal", "augment.paste={classes: [dark]}"],
    "bf16, average, 2 workers": ["train.precision=bf16", "train.ema=0.9", "data.workers=2"],
    "mosaic, frozen at first": [
        "augment.mosaic=0.5", "augment.mixup=0.5", "train.freeze=[backbone]", "train.unfreeze={backbone.layer4: 2}",
    ],
}  # fmt: skip
LAST = "checkpoints/last.pt"
KEPT = (LAST, "checkpoints/best.pt", "eval/val/metrics.json", "eval/val/detections.json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, (_, _, count) in TRIALS.items():
        parser.add_argument(f"--{option}", type=int, default=count, help=f"default: {count}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "out/faults")
    args = parser.parse_args()
    multiprocessing.set_forkserver_preload(["detector.training.resume_proof.processes", "timm"])
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
                file.write(f"\n{json.dumps(done[-1])}")  # the line before may have been cut short
            print(json.dumps(done[-1]), flush=True)
    return _summary(done)


def _summary(done: list[dict]) -> int:
    for kind, _, _ in TRIALS.values():
        of_kind = [line for line in done if line["kind"] == kind]
        skipped = sum("skipped" in line for line in of_kind)
        good = sum(not line["problems"] for line in of_kind) - skipped
        print(f"{kind}: {good} of {len(of_kind)} as they should be{f', {skipped} skipped' if skipped else ''}")
        if kills := sum(line.get("kills", 0) for line in of_kind):
            saving, again = (sum(line.get(key, 0) for line in of_kind) for key in ("while_saving", "before_a_step"))
            print(f"  {kills} times ended, {saving} while saving, {again} of a resumed one before it had made a step")
        if full := sum(line.get("warnings", 0) > 0 for line in of_kind):
            print(f"  in {full} of them a checkpoint could not be saved")
    return int(any(line["problems"] for line in done))


def _kill(output: Path, name: str, number: int, rng: random.Random, signum: int = signal.SIGKILL) -> dict:
    """A training ended at random moments, every third three times, and resumed: the same as the one in peace?"""
    whole, seconds = _in_peace(output, name)
    steps, kills = _step(whole / LAST), 1 if number % 3 else 3
    log = output / f"{signal.Signals(signum).name}.txt"
    for _ in range(5):  # one that was done before its moment came is tried again
        parts = _fresh(output / log.stem)
        config = write_config(load_config(whole.with_suffix(".yaml")), parts.with_suffix(".yaml"))
        try:
            trial = train_interrupted(config, log, kills=kills, steps=steps, seconds=seconds, rng=rng, signum=signum)
        except RuntimeError as problem:
            return {"problems": [str(problem)]}
        if trial.kills:
            break
    again = sum(later <= sooner for sooner, later in pairwise(trial.steps))
    problems = differences(whole, parts)[:5] if trial.kills else ["never interrupted"]
    return {**asdict(trial), "before_a_step": again, "problems": problems}


def _damage(output: Path, name: str, number: int, rng: random.Random, flip: bool = False) -> dict:
    """A checkpoint cut short (to nothing at first) or with one byte changed: noticed, and the one before used?"""
    whole, _ = _in_peace(output, name)
    contents = bytearray((whole / LAST).read_bytes())
    size, offset = len(contents), rng.randrange(len(contents)) if flip or number else 0
    if flip:
        contents[offset] ^= rng.randrange(1, 256)
    else:
        del contents[offset:]
    folder = _fresh(output / "damaged")
    folder.mkdir()
    file, before = folder / "last.pt", folder / "last.1.pt"
    file.write_bytes(contents)
    os.link(whole / "checkpoints/last.1.pt", before)
    try:
        checkpoint.load(file)
        problems, said = ["not noticed"], None
    except InputError as problem:
        used, said = checkpoint.load_newest(file)[1], str(problem)
        problems = [] if used == before else ["the one before was not used"]
    return {"offset": offset, "of": size, "sentence": said, "problems": problems}


def _full(output: Path, name: str, number: int, rng: random.Random) -> dict:
    """A training that from a random moment on cannot write files larger than so many bytes."""
    limit = int(math.exp(rng.uniform(math.log(500), math.log(10e6))))

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fill(pid: int, seconds: float) -> None:
        with suppress(ProcessLookupError):
            if seconds < math.inf:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))

    return {"limit": limit, **_without_room(output, name, rng, _fresh(output / "full"), fill)}


def _small_disk(output: Path, name: str, number: int, rng: random.Random) -> dict:
    """A training on a disk that at a random moment gets full but for a few kB, every second time only for a while."""
    whole, a_run = _in_peace(output, name)
    disk, room = output / "small", rng.randrange(20_000)
    filler, until = disk / "filler", rng.uniform(0, a_run) if number % 2 else math.inf
    if reason := _mount(disk, 2 * sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())):
        return {"skipped": f"mounting is not possible: {reason}", "problems": []}

    def fill(pid: int, seconds: float) -> None:
        if seconds >= until:
            filler.unlink(missing_ok=True)
        elif (free := shutil.disk_usage(disk).free - room) > 0:
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                file.write(bytes(free))

    try:
        trial = _without_room(output, name, rng, disk / "run", fill)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    return {"room": room, "for_a_while": number % 2, **trial}


def _mount(folder: Path, size: int) -> str | None:
    """Mount an empty disk of so many bytes; why not, if it cannot be."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["umount", "--lazy", folder], capture_output=True)  # where a trial was killed
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    mounting = subprocess.run(command, capture_output=True, text=True)
    return mounting.stderr.strip() if mounting.returncode else None


def _without_room(output: Path, name: str, rng: random.Random, parts: Path, fill: Callable[[int, float], None]) -> dict:
    """No file is lost, it goes on or stops clean; so does a --resume that finds no room from its beginning on; and once
    there is, it is resumed to the same end.

    fill: takes the room of the process with that pid, so many seconds after it did first; after infinite ones not.
    """
    whole, seconds = _in_peace(output, name)
    config = write_config(load_config(whole.with_suffix(".yaml")), parts.with_suffix(".yaml"))
    last, said, codes, steps, problems = parts / LAST, [], [], [], []
    pipe = output / "pipe"  # between it and its console, which like a terminal has room
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    for moment in (rng.uniform(0, 0.8 * seconds), 0):
        log = output / f"{parts.name}.{len(said)}.txt"
        with log.open("w") as file:
            reader = subprocess.Popen(["cat", pipe], stdout=file)
        process = train(config, bool(checkpoint.history(last)), pipe)
        process.join(moment)
        files, sooner = [file for file in map(parts.joinpath, KEPT) if file.exists()], _step(last)
        begin = time.monotonic()
        while process.exitcode is None:
            fill(process.pid, time.monotonic() - begin)
            process.join(0.02)
        reader.wait()
        said.append(log.read_text())
        codes.append(process.exitcode)
        steps.append((sooner, _step(last)))
        errors = sum(line.startswith("error: ") for line in said[-1].splitlines())
        if "Traceback" in said[-1] or (process.exitcode, errors) not in ((0, 0), (1, 1)):
            problems.append(f"exit code {process.exitcode}: {said[-1][-1000:]}")
        problems += [f"lost: {file}" for file in files if not _is_whole(file)]
        problems += [f"a checkpoint is lost: {steps}"] if steps[-1][1] < sooner else []
    fill(process.pid, math.inf)
    again = train(config, bool(checkpoint.history(last)), log)
    again.join()
    if again.exitcode:
        problems.append(f"then {again.exitcode}: {log.read_text()[-500:]}")
    else:  # TensorBoard's curves may have a gap, if that was said
        gap = "TensorBoard" if any("TensorBoard cannot be written" in text for text in said) else None
        problems += [line for line in differences(whole, parts) if line.split(":")[0] != gap]
    warnings = sum(text.count("could not be saved") for text in said)
    return {"kept_steps": steps, "exit_codes": codes, "warnings": warnings, "problems": problems[:5]}


def _is_whole(file: Path) -> bool:
    with suppress(InputError, OSError, ValueError):
        return (checkpoint.load(file) if file.suffix == ".pt" else json.loads(file.read_text())) is not None
    return False


def _step(last: Path) -> int:
    """Of the newest checkpoint, -1 if there is none."""
    for _ in range(3):  # the training may be at its renaming
        with suppress(IndexError, InputError, OSError):
            return checkpoint.load_newest(last)[0]["progress"]["step"]
    return -1


# Option → its kind of trial, the trial, how many.
TRIALS = {
    "kills": ("kill", _kill, 50),
    "stops": ("stop", partial(_kill, signum=signal.SIGTERM), 20),
    "truncations": ("truncation", _damage, 100),
    "flips": ("flip", partial(_damage, flip=True), 100),
    "full": ("full", _full, 20),
    "small-disk": ("small disk", _small_disk, 20),
}


def _in_peace(output: Path, name: str) -> tuple[Path, float]:
    """Run directory of the training without interruption, and how long it took, in seconds."""
    whole = output / "whole" / "".join(c if c.isalnum() else "_" for c in name)
    duration = whole.with_suffix(".seconds")
    if not duration.exists():
        if not (output / "data/tiny.yaml").exists():
            _make_data(output / "data")
        tree = {**BASE, "data": {**BASE["data"], "dataset": str(output / "data/tiny.yaml")}}
        _fresh(whole).parent.mkdir(exist_ok=True)
        config = validate(yaml.safe_load(yaml.safe_dump(tree)), name, CONFIGS[name])
        config = write_config(config, whole.with_suffix(".yaml"))
        duration.write_text(str(train_whole(config, output / "console.txt")))
    return whole, float(duration.read_text())


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def _make_data(folder: Path) -> None:
    """Images of 64x48 with a bright square each, and in every third a dark one."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        (folder / split).mkdir(parents=True)
        coco = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}]}
        for i in range(count):
            image = rng.integers(100, 140, (48, 64, 3), dtype=np.uint8)
            coco["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
            for category, value, left in ((7, 255, 0), (3, 0, 32))[: 1 + (i % 3 == 0)]:
                x, y = int(rng.integers(left, left + 12)), int(rng.integers(0, 28))
                image[y : y + 20, x : x + 20] = value
                box = {"id": len(coco["annotations"]), "image_id": i, "category_id": category, "iscrowd": 0}
                coco["annotations"].append(box | {"bbox": [x, y, 20, 20], "area": 400})
            Image.fromarray(image).save(folder / split / f"{i}.png")
        (folder / f"{split}.json").write_text(json.dumps(coco))
    splits = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(splits))


if __name__ == "__main__":
    run(main)
