"""A few real kills (benchmarks/faults.py has many), and that the comparison they are judged by sees what differs."""

import copy
import random
from pathlib import Path

import pytest
import torch

from detector import checkpoint
from detector.config.file import dump, load_config
from detector.training.resume_proof import interrupted as resume_check
from detector.training.resume_proof.interrupted import (
    Trial,
    differences,
    train_interrupted,
    train_whole,
    unequal,
    write_config,
)


@pytest.fixture
def config(tiny_config):
    options = [
        "data.workers=1",
        "train.ema=0.9",
        "train.keep=0",
        "loss.classification=equalized_focal",
        "train.save_every=2",
    ]
    return load_config(tiny_config, ["train.batch_size=1", "train.epochs=1", *options])


def test_killed_runs_end_as_the_uninterrupted_one(config, tmp_path):
    seconds = train_whole(write_config(config, tmp_path / "whole.yaml"), tmp_path / "console.txt")
    trial = train_interrupted(
        write_config(config, tmp_path / "parts.yaml"), tmp_path / "console.txt",
        kills=1, steps=6, seconds=seconds, rng=random.Random(1),
    )  # fmt: skip
    assert trial.kills and set(trial.exit_codes) == {-9}
    assert differences(tmp_path / "whole", tmp_path / "parts") == []

    last = tmp_path / "parts" / "checkpoints" / "last.pt"
    state = checkpoint.load(last)
    state["optimizer"]["state"][3]["exp_avg"] *= 1.0001
    checkpoint.save(last, state)
    metrics = tmp_path / "parts" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines, lines[-1]]))
    found = differences(tmp_path / "whole", tmp_path / "parts")
    assert found[0] == "last.pt: .optimizer.state.3.exp_avg has other bits"
    assert len(found) == 2 and found[1].startswith("metrics.jsonl: ")
    last.unlink()
    assert "no such file" in differences(tmp_path / "whole", tmp_path / "parts")[0]


class Process:
    """Of a training that was done just before the signal came, or that the signal ended."""

    pid = 2**31 - 1  # nobody's
    exitcode = None

    def __init__(self, code, do=lambda: None):
        self._code, self._do = code, do

    def join(self):
        if self.exitcode is None:
            self.exitcode = self._code
            self._do()


@pytest.mark.parametrize(
    ("signum", "codes", "expected"),
    [
        (9, [0], Trial()),  # by itself
        (9, [-9, 0], Trial(kills=1, steps=(0,), exit_codes=(-9,))),
        (15, [143, -15, 0], Trial(kills=2, steps=(0, 0), exit_codes=(143, -15))),
    ],
)
def test_only_what_the_signal_ended_is_counted(signum, codes, expected, config, tmp_path, monkeypatch):
    assert _interrupted(config, tmp_path, monkeypatch, [Process(code) for code in codes], signum) == expected


def test_a_half_written_checkpoint_of_before_is_not_being_written(config, tmp_path, monkeypatch):
    partial = Path(config.output_dir) / "checkpoints" / "last.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"old")
    processes = [Process(-9), Process(-9, lambda: partial.write_bytes(b"new")), Process(-9, partial.unlink), Process(0)]
    assert _interrupted(config, tmp_path, monkeypatch, processes, 9).while_saving == 1


def _interrupted(config, tmp_path, monkeypatch, processes, signum):
    monkeypatch.setattr(resume_check, "KINDS", {"time": 1})
    monkeypatch.setattr(resume_check, "train", lambda *arguments: processes.pop(0))
    (tmp_path / "parts.yaml").write_text(dump(config))
    return train_interrupted(
        tmp_path / "parts.yaml", tmp_path / "console.txt",
        kills=9, steps=6, seconds=0, rng=random.Random(0), signum=signum,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.update(a=2), [".a is 1 and 2"]),
        (lambda state: state.pop("a"), [".a is only in one"]),
        (lambda state: state["b"][1].mul_(-1), [".b[1] has other bits"]),  # of 0
        (lambda state: state["b"].append(3), [".b is "]),
        (lambda state: state.update(c=0), [".c is nan and 0"]),
        (lambda state: None, []),
    ],
)
def test_what_differs(change, expected):
    state = {"a": 1, "b": [2, torch.zeros(2)], "c": float("nan")}
    other = copy.deepcopy(state)
    change(other)
    found = list(unequal(state, other))
    assert len(found) == len(expected) and all(a.startswith(b) for a, b in zip(found, expected, strict=True))


def test_verify_resume(succeeds, tiny_config, monkeypatch, tmp_path):
    """The tool, with trainings that end at once (real ones are above)."""
    import detector.verify_resume as module

    seen = []

    def whole(config, log):
        seen.append(load_config(config))
        return 1.0

    def interrupted(config, log, **options):
        seen.append(load_config(config))
        return Trial(kills=options["kills"], steps=(1, 4))

    monkeypatch.setattr(module, "train_whole", whole)
    monkeypatch.setattr(module, "train_interrupted", interrupted)
    monkeypatch.setattr(module, "differences", lambda a, b: [])
    out = succeeds("verify_resume", tiny_config, "--steps", 4, "--kills", 2, "train.batch_size=auto")
    assert "killed 2 times" in out and "the same: weights" in out
    a, b = seen
    assert (a.train.save_every, b.train.save_every) == (None, 1) and a.train.deterministic and b.train.log_every == 1
    assert (a.train.batch_size, a.train.epochs) == (16, 4)
