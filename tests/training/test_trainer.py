"""Trainings that stop and go on: the moving average, unfreezing and early stopping end as if never interrupted."""

import errno
import fcntl
import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from torch.nn.functional import dropout

from detector import checkpoint
from detector.config.file import load_config
from detector.config.schema import Config
from detector.evaluation.metrics.average_precision import SUMMARY
from detector.inference import evaluate
from detector.inference.detector import load
from detector.models.build import build_model, build_without_memory
from detector.training.log import RunLog
from detector.training.resume import changed_length
from detector.training.resume_proof.differences import differences
from detector.training.startup_log import cost_of_p2
from detector.training.state import Progress
from detector.training.trainer import fit
from detector.utils.errors import InputError, RunError

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def train(tiny_config, tmp_path):
    """Trains into tmp_path / name; returns the directory, whose last line of log.txt says how it ended."""

    def train(name: str, *overrides: str, resume: bool = False) -> Path:
        config = load_config(tiny_config, [*overrides, f"output_dir={tmp_path / name}"])
        fit(config, resume=resume)
        return tmp_path / name

    return train


class StopAfter:
    """In place of StopRequest: asks to stop when it was looked at so many times; training looks after each step."""

    save = False

    def __init__(self, looks: int):
        self.looks = looks

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    @property
    def signum(self) -> int | None:
        self.looks = max(0, self.looks - 1)
        return None if self.looks else 15


def records(run: Path, kind: str) -> list[dict]:
    """Without their times."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "time"} for line in lines if line["kind"] == kind]


def assert_equal(a, b, path: str = "") -> None:
    """Of two checkpoints, every tensor and number."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def last(run: Path) -> dict:
    state = checkpoint.load(run / "checkpoints" / "last.pt")
    state["config"].pop("output_dir")
    return state


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.ema=0.9"],
        ["train.freeze=[backbone]", "train.unfreeze={backbone.layer4: 2, backbone.stem: 3}", "train.optimizer=sgd"],
        ["train.freeze=[backbone]", "train.unfreeze={backbone.layer4: 2}", "train.ema=0.99", "train.accumulate=2"],
        ["train.patience=1", "train.lr=1e-12", "train.epochs=6"],
        [
            "loss.classification=equalized_focal",
            "data.sampling=class_aware",
            "augment.paste={classes: [dark]}",
            "loss.alpha=[0.1, 0.6]",
            "loss.defer_alpha=0.3",
        ],
        [
            "model.attention.name=dyhead",
            "model.neck.name=pafpn",
            "train.freeze=attention",
            "train.unfreeze={attention: 2}",
        ],
        [
            "loss.classification=adaptive_focal",
            "augment.mosaic=0.5",
            "augment.mixup=0.5",
            "augment.close=0.3",  # of the three epochs the last is without
            "data.image_size={short: [32, 48], long: 64}",
        ],
        [
            "loss.assigner={name: atss, every_object: true}",
            "loss.classification=equalized_focal",
            "train.ema=0.9",
            "train.freeze=[backbone]",
            "train.unfreeze={backbone.layer4: 2}",
        ],
        ["loss.assigner.name=tal", "loss.classification=quality_focal", "loss.box=giou", "train.accumulate=2"],
    ],
    ids=[
        "ema",
        "unfreeze",
        "unfreeze, ema and accumulation",
        "patience",
        "equalized, resampled, pasted",
        "attention",
        "adaptive, mixed, multi-scale",
        "atss, equalized, ema, unfreeze",
        "tal, quality, accumulation",
    ],
)
def test_stops_change_nothing(train, monkeypatch, overrides):
    overrides = ["train.epochs=3", *overrides]
    whole = train("whole", *overrides)
    for resume, looks in ((False, 2), (True, 4)):  # in the first epoch and in the second
        stop = StopAfter(looks)
        with monkeypatch.context() as context:
            context.setattr("detector.training.trainer.StopRequest", lambda stop=stop: stop)
            parts = train("parts", *overrides, resume=resume)
        assert stop.looks == 0
    assert (parts / "log.txt").read_text().count("stopped by signal") == 2
    assert last(parts)["progress"]["step"] < last(whole)["progress"]["step"]
    train("parts", *overrides, resume=True)
    assert_equal(last(whole), last(parts))
    best = [checkpoint.load(run / "checkpoints" / "best.pt")["model"] for run in (whole, parts)]
    assert_equal(*best)
    assert_equal(records(whole, "classes"), records(parts, "classes"))


class Killed(RuntimeError):
    pass


@pytest.fixture
def killed_at(train, monkeypatch):
    """Trains, and stops dead before the record of a step is written."""

    def killed_at(step: int, *overrides: str) -> Path:
        def numbers(self, kind, at, *rest):
            if at == step:
                raise Killed
            real(self, kind, at, *rest)

        real = RunLog.numbers
        with monkeypatch.context() as context:
            context.setattr(RunLog, "numbers", numbers)
            with pytest.raises(Killed):
                train("parts", *overrides)
        return train("parts", *overrides, resume=True)

    return killed_at


def test_checkpoints_in_mid_epoch_are_gone_on_from(train, killed_at, monkeypatch):
    """Also by a network that draws at random."""

    def build(*args, **kwargs):
        model = build_model(*args, **kwargs)
        fpn = model.backbone["fpn"]
        fpn.register_forward_hook(lambda _, __, maps: {k: dropout(x, 0.1, fpn.training) for k, x in maps.items()})
        return model

    monkeypatch.setattr("detector.training.setup.build_model", build)
    options = ["train.epochs=1", "train.batch_size=1"]
    whole, parts = train("whole", *options), killed_at(6, *options, "train.save_every=2")
    assert "resumed after 0 epochs and 4 batches, at step 4" in (parts / "log.txt").read_text()
    assert differences(whole, parts) == []


def test_a_signal_during_an_evaluation(train, tiny_config, tmp_path, monkeypatch):
    """It is cut short, and done again."""

    def detect(*args):
        signal.raise_signal(signal.SIGTERM)
        batches.append(real(*args))
        return batches[-1]

    real, batches = evaluate.detect, []
    with monkeypatch.context() as context:
        context.setattr(evaluate, "detect", detect)
        assert fit(load_config(tiny_config, [f"output_dir={tmp_path / 'parts'}", "eval.batch_size=1"])) == 143
    assert len(batches) == 1 and not records(tmp_path / "parts", "eval")
    assert "stopped by signal 15 at step 3; saved, continue" in (tmp_path / "parts/log.txt").read_text()
    assert differences(train("whole"), train("parts", resume=True)) == []


def test_the_checkpoint_before_is_gone_on_from_where_the_last_is_damaged(train, killed_at, monkeypatch, capsys):
    options = ["train.epochs=1", "train.batch_size=1"]
    whole = train("whole", *options)
    with monkeypatch.context() as context:
        context.setattr(checkpoint, "load_newest", damage_and(checkpoint.load_newest))
        parts = killed_at(6, *options, "train.save_every=2")
    said = capsys.readouterr().out
    assert "last.pt: damaged: it was cut short" in said
    assert re.search(r"resuming from the newest checkpoint that is not damaged, \S+/last\.1\.pt", said)
    assert "at step 2" in (parts / "log.txt").read_text()
    assert sorted(path.name for path in (parts / "checkpoints").iterdir()) == [
        "best.pt", "last.1.pt", "last.damaged", "last.pt",
    ]  # fmt: skip
    assert differences(whole, parts) == []


def damage_and(read):
    def damaged(path: Path):
        os.truncate(path, 1000)
        return read(path)

    return damaged


@pytest.fixture
def full_disk(monkeypatch):
    """A list of functions of a checkpoint's contents; where one is true, there is no room for the best."""

    def write(path: Path, contents: dict) -> None:
        if path.name == "best.partial" and any(is_full(contents) for is_full in full):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, contents)

    full, real = [], checkpoint.save_with_digest
    monkeypatch.setattr(checkpoint, "save_with_digest", write)
    return full


def test_a_disk_that_is_full_for_a_while(train, full_disk):
    """The first best checkpoint is saved later."""

    def is_full(contents: dict) -> bool:
        full_disk.clear()
        return True

    whole = train("whole")
    full_disk.append(is_full)
    run = train("run")
    text = (run / "log.txt").read_text()
    assert "a checkpoint could not be saved (No space left on device); the one before is kept" in text  # the last one
    assert differences(whole, run) == []


def test_a_disk_that_stays_full_for_the_second_best(train, full_disk, monkeypatch):
    """The training is not done; with room again, the weights are at hand."""
    values = []
    monkeypatch.setattr("detector.training.validation.value_of", lambda metrics, name: values.pop(0))
    values[:] = 0.25, 0.5
    whole = train("whole")
    full_disk.append(lambda contents: contents["evaluated"]["epoch"] == 2)
    values[:] = 0.25, 0.5
    with pytest.raises(RunError, match="the best checkpoint or its figures could not be saved, .* go on with --resume"):
        train("run")
    full_disk.clear()
    values[:] = [0.5]
    run = train("run", resume=True)
    assert "done; these figures are of the best checkpoint, epoch 2, on val: AP 0.500" in (run / "log.txt").read_text()
    assert differences(whole, run) == []


def test_an_error_after_a_full_disk_does_not_lose_the_best(train, full_disk, tmp_path):
    """The image that goes missing is noticed in epoch 2, when there is room again."""

    def is_full(contents: dict) -> bool:
        (tmp_path / "train/3.png").unlink(missing_ok=True)
        full_disk.clear()
        return True

    full_disk.append(is_full)
    with pytest.raises(InputError, match=r"3\.png.*saved at step"):
        train("run")
    assert checkpoint.load(tmp_path / "run/checkpoints/best.pt")["evaluated"]["epoch"] == 1


def test_a_lost_best_is_no_reason_to_stop_early(train, monkeypatch):
    """That AP rose in epoch 3 is still so when the checkpoint of that time is gone."""
    values = [0.5, 0.4, 0.6, 0.3]
    monkeypatch.setattr("detector.training.validation.value_of", lambda metrics, name: values.pop(0))
    run = train("run", "train.epochs=3", "train.patience=2")
    best = run / "checkpoints/best.pt"
    checkpoint.save(best, {**checkpoint.load(best), "evaluated": {"epoch": 1, "value": 0.5}})
    state = last(run)
    checkpoint.save(run / "checkpoints/last.pt", {**state, "progress": {**state["progress"], "batch": 1}})
    train("run", "train.epochs=4", "train.patience=2", resume=True)
    assert last(run)["progress"]["evaluated"] == 4
    assert "done; these figures are of the best checkpoint, epoch 1, on val: AP 0.500" in (run / "log.txt").read_text()
    best.unlink()
    train("run", "train.epochs=4", "train.patience=2", resume=True)
    assert "done, but the best checkpoint is lost: " in (run / "log.txt").read_text()


def test_a_best_checkpoint_that_is_newer_or_lost(train):
    run = train("run", "train.epochs=1")
    best = run / "checkpoints" / "best.pt"
    checkpoint.save(best, {**checkpoint.load(best), "evaluated": {"epoch": 3, "value": 0.9}})
    newer = best.read_bytes()

    train("run", "train.epochs=2", resume=True)
    assert best.read_bytes() == newer
    assert (last(run)["progress"]["best"], last(run)["progress"]["best_epoch"]) == (0.9, 3)

    train("run", "train.epochs=3", resume=True)
    value = records(run, "eval")[2]["AP"]
    assert checkpoint.load(best)["evaluated"] == {"epoch": 3, "value": value}
    assert last(run)["progress"]["best"] == value < 0.9

    os.truncate(best, 1000)
    train("run", "train.epochs=4", "train.max_hours=1e-9", resume=True)  # ends before epoch 4 can be better
    assert "best.pt: damaged: it was cut short; the next best checkpoint replaces it" in (run / "log.txt").read_text()
    assert checkpoint.load(best)["evaluated"] == {"epoch": 3, "value": value}  # its weights were at hand
    assert [line["epoch"] for line in records(run, "eval")] == [1, 2, 3]


def test_another_number_of_epochs_is_told_with_its_learning_rates(train, run):
    state = last(run)
    del state["fingerprints"]  # an earlier version's: it resumes, and gets them
    checkpoint.save(run / "checkpoints/last.pt", state)
    train("run", "train.epochs=2", resume=True)
    assert last(run)["fingerprints"].keys() == {"train", "val"}
    (line,) = [line for line in (run / "log.txt").read_text().splitlines() if "train.epochs was" in line]
    assert line == (
        "warning: train.epochs was 1 and is 2, which stretches the schedule: from here on this is neither the training "
        "that began nor one of 2 epochs; at step 3 the learning rate was 3.54e-06 and is 0.000354"
    )
    # 6 steps with milestones at 4 and at 5.5, rounded to 6; step 3 itself has the new rate, too
    lr = 1e-3 * (2 / 16) ** 0.5
    assert [record["lr"] for record in records(run, "train")][3:] == pytest.approx([lr, lr / 10, lr / 10])


def test_a_longer_training_that_began_alike_is_the_same():
    def said(step: int, **settings) -> str:
        begun, now = (config(n, **settings) for n in (2, 4))
        return " ".join(changed_length(begun, now, 10, Progress(epoch=step // 10, batch=step % 10, step=step)))

    def config(epochs: int, loss: dict | None = None, augment: dict | None = None, **settings) -> Config:
        train = {"batch_size": 16, "warmup_steps": 0, "epochs": epochs, **settings}
        sections = {"train": train, "loss": loss or {}, "augment": augment or {}}
        return Config.model_validate({"data": {"dataset": "d.yaml"}, **sections})

    assert said(20, schedule="constant") == (
        "train.epochs was 2 and is 4: the steps so far are those of a training of 4 epochs; "
        "at step 20 the learning rate was 0.01 and is 0.01"
    )
    assert said(13, schedule="step").startswith("train.epochs was 2 and is 4: the steps so far")
    assert said(15, schedule="step").endswith("at step 15 the learning rate was 0.001 and is 0.01")
    assert said(20, schedule="cosine").endswith("at step 20 the learning rate was 0 and is 0.005")
    assert all(said(15, schedule=name).startswith("warning: ") for name in ("step", "cosine"))
    assert changed_length(config(2), config(2, lr=1), 10, Progress(step=5)) == []
    weighted = {"schedule": "constant", "loss": {"alpha": "effective_number", "defer_alpha": 0.5}}
    assert said(9, **weighted).endswith("; weights by class apply after epoch 2 instead of 1")
    assert not said(10, **weighted).startswith("warning") and said(11, **weighted).startswith("warning")
    mixed = {"schedule": "constant", "augment": {"mosaic": 0.5, "close": 0.5}}
    assert said(9, **mixed).endswith("; mosaic and mixup end after epoch 2 instead of 1")
    assert not said(10, **mixed).startswith("warning") and said(11, **mixed).startswith("warning")


def test_rates_that_nobody_gave_are_the_optimizers_own_and_stay(train, tiny_config):
    tiny_config.write_text(tiny_config.read_text().replace("lr: 1e-3, ", ""))
    run = train("run", "train.epochs=1")
    settings = load_config(run).train
    assert (settings.lr, settings.weight_decay) == (1e-4, 0.05)
    said = "lr 3.54e-05 (0.0001 for 16, adamw's own, scaled to 2 by the square root), weight decay 0.05 (adamw's own)"
    assert said in (run / "log.txt").read_text()
    train("run", "train.epochs=2", resume=True)  # what is left out is the run's


def test_only_the_same_annotations_are_resumed(train, run, tmp_path):
    def exchange_names(coco: dict) -> None:
        first, second = coco["images"][1:3]
        first["file_name"], second["file_name"] = second["file_name"], first["file_name"]

    for file, change in (
        ("train.json", lambda coco: coco["annotations"][0].update(bbox=[1, 1, 20, 20])),
        ("train.json", exchange_names),
        ("val.json", lambda coco: coco["annotations"].pop()),
    ):
        path = tmp_path / file
        before = path.read_text()
        coco = json.loads(before)
        change(coco)
        path.write_text(json.dumps(coco))
        with pytest.raises(InputError, match=f"the annotations of {path.stem} .* have changed; put them back"):
            train("run", "train.epochs=2", resume=True)
        path.write_text(before)


def test_a_run_directory_in_use_is_refused(train, tmp_path, monkeypatch):
    run = train("run", "train.epochs=1")
    (run / ".lock").write_text("123 elsewhere\n")
    with monkeypatch.context() as context:
        context.setattr(fcntl, "lockf", busy)
        for options in ({"resume": True}, {}):
            with pytest.raises(InputError, match="run: process 123 on elsewhere is working in it"):
                train("run", **options)
    train("run", "train.epochs=1", resume=True)  # a lock that nobody holds is none


def busy(*args):
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_patience_stops_and_a_greater_one_goes_on(train):
    # nothing moves, not even the norms' statistics
    options = ["train.lr=1e-12", "train.freeze=[backbone]", "train.epochs=9", "train.eval_every=2"]
    run = train("run", *options, "train.patience=4")
    # evaluated after 2, 4, 6 epochs; the first is the best
    assert [r["epoch"] for r in records(run, "eval")] == [2, 4, 6]
    assert "stopped early: AP did not rise for 4 epochs" in (run / "log.txt").read_text()
    train("run", *options, "train.patience=4", resume=True)
    assert len(records(run, "eval")) == 3
    train("run", *options, "train.patience=5", resume=True)
    assert [r["epoch"] for r in records(run, "eval")] == [2, 4, 6, 8]


def test_patience_waits_for_the_weights_by_class(train):
    """They apply from epoch 5 on, counted from 1: after 4 epochs."""
    options = ["train.lr=1e-12", "train.epochs=8", "train.patience=2", "loss.defer_alpha=0.5"]
    weighted = train("weighted", *options, "loss.alpha=[0.2, 0.6]")
    assert [r["epoch"] for r in records(weighted, "eval")] == [1, 2, 3, 4, 5, 6]
    alike = train("alike", *options)
    assert [r["epoch"] for r in records(alike, "eval")] == [1, 2, 3]


def test_the_average_is_what_is_evaluated_and_saved(train):
    run = train("run", "train.ema=0.9", "train.epochs=1")
    state = last(run)
    weight = "head.regression_head.bbox_reg.weight"
    assert not torch.equal(state["model"][weight], state["unaveraged"][weight])
    assert_equal(state["model"], checkpoint.load(run / "checkpoints" / "best.pt")["model"])


@pytest.mark.parametrize("metric", ["AP50", "AR100", "dark"])
def test_the_best_checkpoint_is_the_best_by_its_metric(train, metric):
    run = train("run", f"train.metric={metric}", "train.epochs=3")
    values = [r[metric] if metric in SUMMARY else r["per_class"][metric]["AP"] for r in records(run, "eval")]
    metrics = json.loads((run / "eval" / "val" / "metrics.json").read_text())
    kept = metrics[metric] if metric in SUMMARY else metrics["per_class"][metric]["AP"]
    assert kept == max(values) and len(values) == 3
    assert last(run)["progress"]["best_epoch"] == values.index(max(values)) + 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.metric=mAP", "train.metric: no figure 'mAP'; did you mean 'AP'"),
        ("train.metric=lihgt", "did you mean 'light'"),
        ("train.metric=APl", "val has no object to measure APl on"),
        ("train.unfreeze={backbone.layer3: 2}", "backbone.layer3 is never frozen"),
        ("train.freeze=[backbone.layer7]", "did you mean 'backbone.layer"),
        ("loss.alpha=[0.1, 0.2, 0.3]", "loss.alpha has 3 values, but the data has 2 classes"),
    ],
)
def test_errors_come_before_anything_is_written(train, tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        train("run", override)
    assert not (tmp_path / "run").exists()


def test_starting_from_a_run_of_the_same_classes_evaluates_to_its_figures(train):
    old = train("old", "train.epochs=2", "train.lr=1e-2")
    new = train("new", f"model.weights={old}", "train.epochs=1")
    first, *_ = records(new, "eval")
    assert (first["epoch"], first["step"]) == (0, 0)
    best = json.loads((old / "eval" / "val" / "metrics.json").read_text())
    assert {key: first[key] for key in SUMMARY} == {key: best[key] for key in SUMMARY} and best["AR100"] > 0
    for name, row in first["per_class"].items():
        assert {key: best["per_class"][name][key] for key in row} == row
    assert "before the first step: val AP" in (new / "log.txt").read_text()


def test_a_whole_detector_is_a_start_that_training_may_not_beat(train):
    old = train("old", "train.epochs=2", "train.lr=3e-3")
    new = train("new", f"model.weights={old}", "train.epochs=1", "train.lr=3e2", "train.warmup_steps=0")
    assert last(new)["progress"]["best_epoch"] == 0
    assert_equal(*(checkpoint.load(run / "checkpoints" / "best.pt")["model"] for run in (old, new)))


def test_a_run_killed_while_evaluating_says_each_evaluation_once(train, monkeypatch):
    def die(*args):
        raise RuntimeError("killed")

    with monkeypatch.context() as context:
        context.setattr("detector.training.validation.plot_curves", die)  # its line is written, the checkpoint is not
        with pytest.raises(RuntimeError, match="killed"):
            train("run")
    run = train("run", resume=True)
    assert [r["step"] for r in records(run, "start")] == [0, 3]
    assert [r["epoch"] for r in records(run, "eval")] == [1, 2]
    assert [r["step"] for r in records(run, "train")] == [1, 2, 3, 4, 5, 6]


def test_what_is_frozen_for_good_should_have_been_loaded(train, tmp_path):
    text = (train("scratch", "train.freeze=backbone.stem", "train.epochs=1") / "log.txt").read_text()
    assert "warning: randomly initialised and never trained: backbone.body.net.bn1.bias, " in text
    weights = f"model.weights={tmp_path / 'scratch'}"
    text = (train("tuned", weights, "train.freeze=[backbone, head]", "train.epochs=1") / "log.txt").read_text()
    assert "frozen: backbone, head" in text and "never trained" not in text
    train_json = tmp_path / "train.json"
    train_json.write_text(train_json.read_text().replace('"light"', '"grey"'))
    (tmp_path / "val.json").write_text((tmp_path / "val.json").read_text().replace('"light"', '"grey"'))
    with pytest.raises(InputError, match="with the classification head frozen, grey can never be learnt"):
        train("other", weights, "train.freeze=[head]")


def test_an_unfreezing_that_is_never_reached_is_said(train):
    options = ["train.freeze=[backbone]", "train.unfreeze={backbone.layer4: 9}", "train.epochs=1"]
    text = (train("run", *options) / "log.txt").read_text()
    assert "backbone.layer4 until epoch 9, which this training does not reach" in text


def test_nothing_to_resume(train):
    with pytest.raises(InputError, match="no run to resume"):
        train("run", resume=True)


def test_what_each_class_is_shown_and_how_it_fares(train):
    run = train("run", "data.sampling=repeat_factor", "augment.paste={classes: [dark]}", "loss.alpha=inverse_frequency")
    text = (run / "log.txt").read_text()
    assert "weight of positives by class" in text and "expected" in text and "past" in text
    classes = records(run, "classes")
    assert [(line["epoch"], line["batches"], line["sampled_batches"]) for line in classes] == [(1, 3, 3), (2, 3, 3)]
    figures = classes[0]["per_class"]["dark"]
    assert figures["positives"] >= 5 and 0 < figures["loss_share"] < 1 and 0 < figures["score_positive"] < 1
    assert (run / "eval" / "classes.png").is_file()


def test_imbalance_auto_is_the_training_of_its_choices(train, tiny_dataset):
    """Which are in config.yaml, and with which the run goes on. (Sampling can raise a class alone in its image.)"""
    file = tiny_dataset.parent / "train.json"
    coco = json.loads(file.read_text())
    dark = next(a for a in coco["annotations"] if a["category_id"] == 3)
    light = [a for a in coco["annotations"] if a["category_id"] == 7 and a["image_id"] != dark["image_id"]]
    more_light = [{**a, "id": 1000 + 10 * a["id"] + k} for a in light for k in range(4)]
    file.write_text(json.dumps({**coco, "annotations": [dark, *light, *more_light]}))

    auto = train("auto", "imbalance=auto")
    assert "imbalance auto: 1 of 2 classes has less" in (auto / "log.txt").read_text()
    chosen = load_config(auto / "config.yaml")
    assert (chosen.imbalance, chosen.data.sampling, chosen.loss.alpha) == ("none", "repeat_factor", "effective_number")
    threshold = f"data.repeat_threshold={chosen.data.repeat_threshold}"
    pasted = "augment.paste={classes: [dark], blend: clone}"
    by_hand = train(
        "by_hand",
        "data.sampling=repeat_factor",
        threshold,
        pasted,
        "loss.alpha=effective_number",
        "loss.defer_alpha=0.5",
    )
    assert_equal(last(auto), last(by_hand))
    resumed = train("auto", "imbalance=auto", "train.epochs=3", resume=True)
    assert last(resumed)["progress"]["epoch"] == 3
    with pytest.raises(InputError, match="data.sampling was repeat_factor and is uniform"):
        train("auto", "train.epochs=4", resume=True)


@pytest.mark.parametrize("assigner", ["max_iou", "atss", "tal"])
def test_each_assigner_trains_from_weights_of_another_dataset(train, run, tiny_dataset, assigner):
    """Of a run whose classes carry over by name, one of them renamed and one new."""
    for split in ("train", "val"):
        file = tiny_dataset.parent / f"{split}.json"
        coco = json.loads(file.read_text())
        coco["categories"] = [{"id": 7, "name": "bright"}, {"id": 3, "name": "dark"}, {"id": 9, "name": "new"}]
        coco["annotations"][0]["category_id"] = 9
        file.write_text(json.dumps(coco))
    run = train("other", f"loss.assigner.name={assigner}", f"model.weights={run}", "model.class_map={bright: light}",
                "loss.box_weighting=iou", "train.epochs=1")  # fmt: skip
    assert "classes: 2 kept" in (run / "log.txt").read_text()
    (line,) = records(run, "classes")
    assert sum(row["positives"] for row in line["per_class"].values()) > 5
    assert all(0 < record["loss"] < 100 and record["loss_box"] > 0 for record in records(run, "train"))


def test_the_log_names_a_class_that_is_left_behind(train, monkeypatch):
    """Where one class is learnt and the other not, as no training of seconds would have it."""
    row = {"positives": 9, "gradient_ratio": 0.1, "loss_share": 0.5, "score_background": 0.01}
    summary = {name: {**row, "score_positive": score} for name, score in (("light", 0.6), ("dark", 0.02))}
    monkeypatch.setattr(
        "detector.losses.class_statistics.ClassStatistics.summary", lambda self, names: {"per_class": summary}
    )
    text = (train("run", "train.epochs=1") / "log.txt").read_text()
    assert (
        "`dark` is hardly learnt: it scores 0.02 on its own objects, because the other classes and the background "
        in text
    )
    assert "loss.alpha=effective_number" in text


def test_the_gamma_of_an_adaptive_loss_is_in_the_records(train):
    run = train("run", "loss.classification=adaptive_focal", "train.log_every=1")
    assert all(0.5 <= line["gamma"] <= 2 for line in records(run, "train"))


def test_a_run_of_a_version_without_criterion_is_refused_in_a_sentence(train):
    run = train("run", "train.epochs=1")
    state = checkpoint.load(run / "checkpoints" / "last.pt")
    del state["criterion"]
    checkpoint.save(run / "checkpoints" / "last.pt", state)
    with pytest.raises(InputError, match="this version cannot continue its training"):
        train("run", "train.epochs=2", resume=True)


def test_the_rule_of_the_anchors_goes_from_run_to_run(train, tmp_path):
    """From a file in torchvision's layout to a run, which is resumed without it, and to a run that starts from that."""
    torch.save(build_model(load_config(tmp_path / "config.yaml").model, 2).state_dict(), tmp_path / "torchvisions.pth")
    first = train("first", "model.weights=torchvisions.pth", "train.epochs=1")
    (tmp_path / "torchvisions.pth").unlink()
    train("first", "model.weights=torchvisions.pth", "train.epochs=2", resume=True)
    second = train("second", "model.weights=first", "train.epochs=1")
    for run in (first, second):
        assert load_config(run).model.anchors.rule == "torchvision"
        assert last(run)["config"]["model"]["anchors"]["rule"] == "torchvision"
        assert load(run, device="cpu").model.anchors.rule == "torchvision"
    with pytest.raises(InputError, match="model.anchors.rule was torchvision and is exact"):
        train("first", "model.weights=torchvisions.pth", "model.anchors.rule=exact", resume=True)


def test_what_p2_costs_is_said(train, tmp_path):
    run = train("p2", "train.epochs=1", "model.neck.finest=p2")
    p2, *others = load(run, device="cpu").model(torch.zeros(1, 3, 64, 64))["anchors_per_level"]
    count = p2 + sum(others)
    said = f"model.neck.finest p2: {count} anchors for an image of 64x64 px instead of {sum(others)}: "
    assert f"{said}{count / sum(others):.1f} times the work" in (run / "log.txt").read_text()


def test_what_p2_costs_at_another_size(tiny_config):
    config = load_config(tiny_config, ["model.neck.finest=p2", "data.image_size={short: 800, long: 1333}"])
    model = build_without_memory(config.model, 1)
    p2, *others = model(torch.zeros(1, 3, 800, 1344, device="meta"))["anchors_per_level"]
    assert f"{p2 + sum(others)} anchors for an image of 1344x800 px instead of {sum(others)}" in cost_of_p2(config)
