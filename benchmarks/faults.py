"""Trainings that die: killed, stopped, with damaged checkpoints, on a full disk; what comes of them after --resume.

    python benchmarks/faults.py [--kills 50] [--stops 20] [--truncations 100] [--full 20] [--output DIR]

Each of CONFIGS trains a few steps in peace; then again and again, ended by SIGKILL (or SIGTERM) at a random moment and
resumed, and every such run is compared with the one in peace, bit for bit (detector/resume_check.py). Every trial is a
JSON line in <output>/results.jsonl, and trials that have their line are not repeated: stop it and start it again as you
like. Exit code 1 if any trial failed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
from pathlib import Path

import yaml

from detector import checkpoint
from detector.config import load_config, validate
from detector.resume_check import differences, train, train_interrupted, train_whole, write_config
from detector.utils.cli import run
from detector.utils.errors import InputError

PROJECT = Path(__file__).parent.parent

BASE = {
    "data": {"image_size": 64, "augment": "light", "workers": 0},
    "model": {
        "backbone": {"name": "resnet18", "weights": None, "norm": "batch"},
        "fpn": {"channels": 16},
        "head": {"depth": 1, "width": 16},
        "anchors": {"base_size": 16},
        "postprocess": {"score_threshold": 0.0},
    },
    "train": {
        "epochs": 2, "batch_size": 2, "lr": 0.01, "precision": "fp32", "warmup_steps": 2, "log_every": 1,
        "save_every": 2, "keep": 1,
    },
    "device": "cpu",
}  # fmt: skip
CONFIGS = {
    "plain": [],
    "accumulation, 2 workers": ["train.accumulate=2", "data.workers=2"],
    "average, adamw": ["train.ema=0.9", "train.optimizer=adamw"],
    "equalized focal, 2 workers": [
        "loss.classification=equalized_focal",
        "data.workers=2",
        "data.sampling=class_aware",
    ],
    "adaptive focal, pasting": ["loss.classification=adaptive_focal", "augment.paste={classes: [dark]}"],
    "bf16, average, 2 workers": ["train.precision=bf16", "train.ema=0.9", "data.workers=2"],
    "mosaic, frozen at first": [
        "augment.mosaic=0.5",
        "augment.mixup=0.5",
        "train.freeze=[backbone]",
        "train.unfreeze={backbone.layer4: 2}",
    ],
}
TRAIN_IMAGES, VAL_IMAGES = 12, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("kills", 50), ("stops", 20), ("truncations", 100), ("full", 20)):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"default: {count}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=PROJECT / "out/faults")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    results = args.output / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    wanted = {"kill": args.kills, "stop": args.stops, "truncation": args.truncations, "full disk": args.full}
    for kind, count in wanted.items():
        for number in range(count):
            if any((line["kind"], line["number"]) == (kind, number) for line in done):
                continue
            name = list(CONFIGS)[number % len(CONFIGS)]
            line = {
                "kind": kind,
                "number": number,
                "config": name,
                **TRIALS[kind](args.output, name, number, args.seed),
            }
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            done.append(line)
            print(json.dumps(line), flush=True)
    return _summary(done)


def _summary(done: list[dict]) -> int:
    for kind in TRIALS:
        of_kind = [line for line in done if line["kind"] == kind]
        good = sum(not line["problems"] for line in of_kind)
        saving = sum(line.get("while_saving", 0) for line in of_kind)
        print(f"{kind}: {good} of {len(of_kind)} as they should be" + (f", {saving} while saving" if saving else ""))
    return int(any(line["problems"] for line in done))


def _kill(output: Path, name: str, number: int, seed: int, signum: int | None = None) -> dict:
    """A training ended at a random moment and resumed: the same as the one in peace?"""
    whole, seconds = _in_peace(output, name)
    config = load_config(whole.with_suffix(".yaml"))
    rng = random.Random(f"{seed} {signum} {number}")
    steps = _steps(whole)
    for _ in range(5):  # one that was done before its moment came is tried again
        parts = _fresh(output / f"parts{signum or ''}")
        trial = train_interrupted(
            write_config(config, parts.with_suffix(".yaml")), output / "console.txt",
            kills=1, steps=steps, seconds=seconds, rng=rng, signum=signum,
        )  # fmt: skip
        if trial.kills:
            break
    problems = differences(whole, parts) if trial.kills else ["never interrupted"]
    # an exit code of -15: before the tool was there to receive the signal
    if signum and not set(trial.exit_codes) <= {128 + signum, -signum}:
        problems.append(f"exit code {trial.exit_codes}")
    return {"step": trial.steps, "while_saving": trial.while_saving, "problems": problems[:5]}


def _stop(output: Path, name: str, number: int, seed: int) -> dict:
    return _kill(output, name, number, seed, signal.SIGTERM)


def _truncation(output: Path, name: str, number: int, seed: int) -> dict:
    """A checkpoint cut short anywhere, or with one byte changed: noticed, and the one before used?"""
    whole, _ = _in_peace(output, name)
    rng = random.Random(f"{seed} truncation {number}")
    folder = _fresh(output / "damaged")
    folder.mkdir()
    file, before = folder / "last.pt", folder / "last.1.pt"
    shutil.copy(whole / "checkpoints/last.pt", file)
    shutil.copy(whole / "checkpoints/last.1.pt", before)
    size = file.stat().st_size
    offset = rng.randrange(size)
    with file.open("r+b") as damaged:
        if number % 2:
            damaged.truncate(offset)
        else:
            damaged.seek(offset)
            byte = damaged.read(1)[0]
            damaged.seek(offset)
            damaged.write(bytes([byte ^ rng.randrange(1, 256)]))
    problems = []
    try:
        checkpoint.load(file)
        problems.append("not noticed")
    except InputError as problem:
        sentence = str(problem)
    if checkpoint.load_newest(file)[1] != before:
        problems.append("the one before was not used")
    return {"offset": offset, "of": size, "sentence": None if problems else sentence, "problems": problems}


def _full_disk(output: Path, name: str, number: int, seed: int) -> dict:
    """A training that from a random moment on cannot write files as large as a checkpoint: what is saved stays, it goes
    on, and once there is room it can be resumed to the same end."""
    whole, seconds = _in_peace(output, name)
    rng = random.Random(f"{seed} full {number}")
    parts = _fresh(output / "full")
    config = write_config(load_config(whole.with_suffix(".yaml")), parts.with_suffix(".yaml"))
    log = output / "full.txt"
    log.unlink(missing_ok=True)
    process = train(config, False, log)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    while process.exitcode is None and not (parts / "config.yaml").exists():
        process.join(0.01)
    process.join(rng.uniform(0, seconds / 2))
    if process.exitcode is None:
        limit = rng.randrange(200_000, 10_000_000)  # less than any checkpoint of these has
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))
    process.join()
    said = log.read_text().count("could not be saved")
    problems = [f"exit code {process.exitcode}: {log.read_text()[-500:]}"] if process.exitcode else []
    try:
        at = checkpoint.load(parts / "checkpoints/last.pt")["progress"]["step"]
    except InputError as problem:
        return {"problems": [*problems, str(problem)]}
    if not problems:
        again = train(config, True, log)
        again.join()
        problems += differences(whole, parts) if not again.exitcode else [f"exit code {again.exitcode} after that"]
    return {"kept_step": at, "said": said, "problems": problems[:5]}


TRIALS = {"kill": _kill, "stop": _stop, "truncation": _truncation, "full disk": _full_disk}


def _in_peace(output: Path, name: str) -> tuple[Path, float]:
    """Run directory of the training without interruption, and how long it took, in seconds."""
    whole = output / "whole" / "".join(c if c.isalnum() else "_" for c in name)
    duration = whole.with_suffix(".seconds")
    if not duration.exists():
        if not (output / "data/tiny.yaml").exists():
            _make_data(output / "data")
        tree = {**BASE, "data": {**BASE["data"], "dataset": str(output / "data/tiny.yaml")}}
        _fresh(whole).parent.mkdir(exist_ok=True)
        config = write_config(
            validate(yaml.safe_load(yaml.safe_dump(tree)), name, CONFIGS[name]), whole.with_suffix(".yaml")
        )
        duration.write_text(str(train_whole(config, output / "console.txt")))
    return whole, float(duration.read_text())


def _steps(whole: Path) -> int:
    return checkpoint.load(whole / "checkpoints/last.pt")["progress"]["step"]


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def _make_data(folder: Path) -> None:
    """Images of 64x48 with a bright square each, and in every third a dark one."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
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
    (folder / "tiny.yaml").write_text(
        "".join(f"{s}: {{images: {s}, annotations: {s}.json}}\n" for s in ("train", "val"))
    )


if __name__ == "__main__":
    run(main)
