"""The files that a run logs to, after it was killed or on a full disk."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.training import log as logging
from detector.training.log import RunLog


def events(directory: Path) -> dict:
    """TensorBoard tag → steps in order, of all events in the files, purged ones too."""
    reader = EventAccumulator(str(directory / "tensorboard"), purge_orphaned_data=False)
    reader.Reload()
    found = {tag: sorted(event.step for event in reader.Scalars(tag)) for tag in reader.Tags()["scalars"]}
    return found | {tag: sorted(event.step for event in reader.Images(tag)) for tag in reader.Tags()["images"]}


def test_resuming_removes_what_was_logged_after_the_checkpoint(tmp_path):
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.numbers("train", step, 1, {"loss": step / 2})
    log.numbers("eval", 2, 1, {"AP": 0.5})  # at the step of the checkpoint, but logged after it
    log.picture("val", 2, np.zeros((4, 4, 3), np.uint8))
    log.per_class(2, 1, {"per_class": {"dog": {"score": 0.5}}})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # incomplete
    (file,) = (tmp_path / "tensorboard").iterdir()
    with file.open("ab") as events_file:
        events_file.write(b"\x10\0\0\0\0")

    log = RunLog(tmp_path, resume_at=(2, 0))
    log.numbers("eval", 2, 1, {"AP": 0.25})
    log.picture("val", 2, np.zeros((4, 4, 3), np.uint8))
    log.numbers("train", 3, 2, {"loss": 1.5})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 1), ("train", 2), ("classes", 2), ("eval", 2), ("train", 3),
    ]  # fmt: skip
    assert lines[3]["AP"] == 0.25
    assert events(tmp_path) == {"train/loss": [1, 2, 3], "classes/score/dog": [2], "eval/AP": [2], "eval/val": [2]}


def test_flushed_events_are_in_the_files(tmp_path):
    """The checkpoint that is saved next relies on it."""
    log = RunLog(tmp_path)
    log.numbers("train", 1, 1, {"loss": 0.5})
    log.flush()
    assert events(tmp_path) == {"train/loss": [1]}
    log.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_reported_once_and_does_not_stop_the_training(tmp_path, capsys):
    for name in ("metrics.jsonl", "log.txt"):
        (tmp_path / name).symlink_to("/dev/full")
    log = RunLog(tmp_path)
    for step in (1, 2):
        log.say(f"step {step}")
        log.numbers("train", step, 1, {"loss": 0.5})
    log.flush()
    log.close()
    said = capsys.readouterr().out
    assert said.count("warning: metrics.jsonl could not be written: No space left on device; training goes on") == 1
    assert said.count("warning: log.txt") == 1 and "step 2" in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_on_a_full_disk(tmp_path, capsys, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    log = RunLog(tmp_path)
    with monkeypatch.context() as context:
        context.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
        for step in range(50):
            log.numbers("train", step, 1, {"loss": 0.5})
        log.flush()
    log.flush()  # the disk has room again
    log.numbers("later", 50, 1, {"loss": 0.5})
    log.close()
    assert events(tmp_path) == {"later/loss": [50]}
    assert capsys.readouterr().out.count("warning: TensorBoard could not be written") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 51


def test_a_console_on_a_full_disk(tmp_path, monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(logging, "console", Console(file=full))
        log = RunLog(tmp_path)
        log.say("a sentence")
        log.close()
        assert (tmp_path / "log.txt").read_text() == "a sentence\n"
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # otherwise closing it fails
