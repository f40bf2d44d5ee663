"""The measuring process: what it measures, and what its parent makes of the ways in which it can end."""

import json
import re
import sys

import pytest
import torch

from detector.config.file import load_config
from detector.models.build import build_model
from detector.training.auto import measure_step, step_memory
from detector.training.auto.step_memory import measure, predict
from detector.utils.errors import InputError

CPU = torch.device("cpu")
JOB = {"side": (64, 64), "objects": 2, "num_classes": 2, "limit": 2**40}


@pytest.fixture
def config(tiny_config):
    return load_config(tiny_config, ["train.batch_size=auto"])


def ends(monkeypatch, answer: dict, how: str) -> None:
    """Another process in the place of the measuring one: it answers, and ends."""
    code = f"import os, sys; sys.stdin.read(); print({json.dumps(answer)!r}, flush=True); {how}"
    monkeypatch.setattr(step_memory, "COMMAND", (sys.executable, "-c", code))


def answers(config, **changes) -> list[dict]:
    return list(measure_step._answers(config.model_dump(), "cpu", **JOB | changes))


def test_predict():
    assert predict({1: 100}, 2) == 200
    assert predict({1: 100, 2: 120}, 4) == 160
    assert predict({1: 100, 2: 120, 4: 180}, 8) == 300


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_killed_by_the_system_is_a_size_that_does_not_fit(config, monkeypatch):
    ends(monkeypatch, {"size": 1, "peak": 7}, "os.kill(os.getpid(), 9)")
    assert measure(config, CPU, **JOB) == {1: 7}


def test_another_failure_is_not_taken_for_want_of_memory(config, monkeypatch):
    ends(monkeypatch, {"size": 1, "peak": 7}, "raise KeyError('strange')")
    with pytest.raises(RuntimeError, match="(?s)exit code 1.*KeyError: 'strange'"):
        measure(config, CPU, **JOB)


def test_what_the_user_got_wrong_arrives_as_such(config, monkeypatch):
    config = config.changed({"model.backbone.name": "resnet19"})
    with pytest.raises(InputError) as problem:
        build_model(config.model, num_classes=2)
    (answer,) = answers(config)
    assert answer == {"error": str(problem.value)}
    ends(monkeypatch, answer, "pass")
    with pytest.raises(InputError, match=re.escape(str(problem.value))):
        measure(config, CPU, **JOB)


def test_steps_are_measured_as_configured(config):
    config = config.changed({"train.accumulate": 8, "train.ema": 0.99, "train.precision": "bf16"})
    assert [a["size"] for a in answers(config)] == [1, 2, 4]


def test_batches_kept_ready_for_the_workers_count(config, monkeypatch):
    monkeypatch.setattr(measure_step, "peak_memory", lambda device: 1000)
    config = config.changed({"data.workers": 3})
    assert [a["peak"] for a in answers(config)] == [2 * 3 * n * 3 * 64 * 64 for n in (1, 2, 4)]


def test_sizes_beyond_the_limit_are_not_tried(config):
    assert [a["size"] for a in answers(config, limit=-1)] == [1]


@pytest.mark.parametrize(
    "problem", [MemoryError(), RuntimeError("can't allocate memory: you tried to allocate 8 bytes")]
)
def test_memory_that_is_refused_ends_the_measurement(config, monkeypatch, problem):
    real = measure_step.train_one_epoch

    def step(model, criterion, batches, *args, **options):
        if len(batches[0][1]) == 4:
            raise problem
        return real(model, criterion, batches, *args, **options)

    monkeypatch.setattr(measure_step, "train_one_epoch", step)
    assert [a["size"] for a in answers(config)] == [1, 2]
