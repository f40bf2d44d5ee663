"""A few real kills (benchmarks/faults.py has many), and which of the kills are counted."""

import random
from pathlib import Path

import pytest

from detector import checkpoint
from detector.config.file import load_config
from detector.training.resume_proof import processes
from detector.training.resume_proof.differences import differences
from detector.training.resume_proof.processes import (
    Interruptions,
    train_interrupted,
    train_uninterrupted,
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
    seconds = train_uninterrupted(write_config(config, tmp_path / "whole.yaml"), tmp_path / "console.txt")
    done = train_interrupted(
        write_config(config, tmp_path / "parts.yaml"), tmp_path / "console.txt",
        kills=1, steps=6, seconds=seconds, rng=random.Random(1),
    )  # fmt: skip
    assert done.kills and set(done.exit_codes) == {-9}
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
    """In place of a training's process: ends with an exit code when it is waited for, after calling `do`."""

    pid = 2**31 - 1  # no process has it
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
        (9, [0], Interruptions()),  # done just before the signal
        (9, [-9, 0], Interruptions(kills=1, steps=(0,), exit_codes=(-9,))),
        (15, [143, -15, 0], Interruptions(kills=2, steps=(0, 0), exit_codes=(143, -15))),
    ],
)
def test_only_processes_that_the_signal_ended_are_counted(signum, codes, expected, config, tmp_path, monkeypatch):
    assert _interrupted(config, tmp_path, monkeypatch, [Process(code) for code in codes], signum) == expected


def test_a_training_that_fails_is_an_error(config, tmp_path, monkeypatch):
    (tmp_path / "console.txt").write_text("error: no room")
    with pytest.raises(RuntimeError, match="a training ended with exit code 1:\nerror: no room"):
        _interrupted(config, tmp_path, monkeypatch, [Process(1)], 9)


def test_a_partial_checkpoint_from_before_does_not_count_as_being_written(config, tmp_path, monkeypatch):
    partial = Path(config.output_dir) / "checkpoints" / "last.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"old")
    ends = [Process(-9), Process(-9, lambda: partial.write_bytes(b"new")), Process(-9, partial.unlink), Process(0)]
    done = _interrupted(config, tmp_path, monkeypatch, ends, 9, Path(config.output_dir))
    assert done.while_saving == 1


def _interrupted(config, tmp_path, monkeypatch, ends, signum, directory=None):
    monkeypatch.setattr(processes, "MOMENTS", {"time": 1})
    monkeypatch.setattr(processes, "start_training", lambda *arguments: ends.pop(0))
    file = write_config(config, (directory or tmp_path / "parts").with_suffix(".yaml"))
    return train_interrupted(
        file, tmp_path / "console.txt", kills=9, steps=6, seconds=0, rng=random.Random(0), signum=signum
    )
