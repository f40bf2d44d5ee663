"""Trainings in which something goes wrong: it is named, skipped or replaced, and what is left goes on exactly."""

import errno
import json
from functools import partial
from pathlib import Path

import pytest
import torch

from detector import checkpoint
from detector.config.file import load_config
from detector.data.dataset import DetectionDataset
from detector.training import epoch, setup
from detector.training.trainer import fit
from detector.utils.errors import InputError, RunError

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def train(tiny_config, tmp_path):
    """Trains into tmp_path / name; returns the directory."""

    def train(name: str, *overrides: str, resume: bool = False) -> Path:
        assert fit(load_config(tiny_config, [*overrides, f"output_dir={tmp_path / name}"]), resume=resume) == 0
        return tmp_path / name

    return train


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """It takes longer than these trainings."""
    monkeypatch.setattr("detector.training.trainer.conclude", lambda *args: None)


@pytest.fixture
def bad_box(monkeypatch):
    """From now on a box of these images is NaN as fed. (`read_coco` lets none in, and cropping would drop it.)"""
    sample = DetectionDataset._sample

    def bad_box(*image_ids: int) -> None:
        def spoilt(self, *position):
            image, target = sample(self, *position)
            if target["image_id"] in image_ids:
                target["boxes"][0, 0] = torch.nan
            return image, target

        monkeypatch.setattr(DetectionDataset, "_sample", spoilt)

    return bad_box


def records(run: Path, kind: str) -> list[dict]:
    forget = {"images_per_second", "time"}
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in forget} for line in lines if line["kind"] == kind]


def last(run: Path) -> dict:
    return checkpoint.load(run / "checkpoints" / "last.pt")


def assert_same_weights(a: dict, b: dict) -> None:
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_a_bad_box_is_named_skipped_and_replayed(train, bad_box, succeeds):
    bad_box(35)
    run = train("run", "train.ema=0.9")
    bad = records(run, "bad_step")
    assert [(line["parts"], line["image_ids"], line["in_a_row"], line["in_all"]) for line in bad] == [
        (["loss_box"], [35], 1, 1),
        (["loss_box"], [35], 1, 2),
    ]
    assert [line["epoch"] for line in bad] == [1, 2] and len(records(run, "train")) == 4
    state = last(run)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert (state["progress"]["bad_steps"], state["progress"]["bad_in_a_row"]) == (2, 0)
    assert (
        f"step {bad[0]['step']}: loss_box not finite on image 35: skipped (1 in a row, 1 in all)"
        in (run / "log.txt").read_text()
    )

    out = succeeds("train", "--replay", run / "bad_batch.pt")
    assert f"step {bad[1]['step']}, in epoch 2, of {run}: loss_box not finite on image 35" in out
    assert "image 35: a box without area or not finite, as fed: [nan," in out
    assert "loss_box nan; 2 boxes" in out and "first not finite: loss_box; all outputs of the model are finite" in out


def test_weights_that_are_not_finite_stop_the_run_before_them(train, monkeypatch, succeeds, tmp_path):
    """As a broken memory would have it: from the third step on, one weight is infinite."""
    steps = epoch._steps

    def broken(run):
        for record in steps(run):
            yield record
            if run.progress.step == 2:
                run.training.model.get_parameter("backbone.body.net.layer1.0.conv2.weight").data[0, 0, 0, 0] = torch.inf

    monkeypatch.setattr("detector.training.epoch._steps", broken)
    options = ["train.batch_size=1", "train.epochs=2", "train.max_bad_steps=3"]
    with pytest.raises(RunError, match=r"3 steps in a row not finite \(train.max_bad_steps\).*saved at step 2"):
        train("run", *options)
    run = tmp_path / "run"
    assert [line["in_a_row"] for line in records(run, "bad_step")] == [1, 2, 3]
    progress = last(run)["progress"]
    assert (progress["step"], progress["batch"], progress["bad_steps"]) == (2, 2, 0)
    assert last(run)["schedule"]["last_epoch"] == 2

    out = succeeds("train", "--replay", run / "bad_batch.pt")
    assert "backbone.body.net.layer1.0.conv2.weight: not finite: 1 of its 9216 values" in out
    assert "first not finite: output of backbone.body.net.layer1.0.conv2 (Conv2d); its input is finite, its" in out
    assert "its weights are not finite" in out


def test_nan_under_half_precision_stops_the_run_once_the_scale_is_down(train, monkeypatch, tmp_path):
    """What the scaler takes for an overflow, and would skip for ever, counts when there is nothing left to scale."""
    build = setup.build_model

    def broken(*args, **options):
        model = build(*args, **options)
        model.head.regression_head.bbox_reg.weight.register_hook(lambda gradient: gradient * torch.nan)
        return model

    monkeypatch.setattr("detector.training.setup.build_model", broken)
    # as on a GPU; a CPU's fp16 is refused for being slow
    monkeypatch.setattr("detector.training.setup.resolve_precision", lambda *args: ("fp16", torch.float16))
    monkeypatch.setattr("detector.training.setup.GradScaler", partial(torch.amp.GradScaler, init_scale=4.0))
    with pytest.raises(RunError, match=r"3 steps in a row not finite \(train.max_bad_steps\), the last one: g"):
        train("run", "train.batch_size=1", "train.max_bad_steps=3")
    run = tmp_path / "run"
    steps = [(line["step"], line["in_a_row"]) for line in records(run, "bad_step")]
    assert steps == [(3, 1), (4, 2), (5, 3)]  # from 4 to 2 and from 2 to 1 as overflows
    state = last(run)
    assert state["progress"]["step"] == 2 and state["scaler"]["scale"] == 1.0


def test_a_stopped_run_does_the_bad_steps_again(train, bad_box, tmp_path):
    """Where the annotations were mended, from the checkpoint on as if they had never been wrong."""
    whole = train("whole")
    bad_box(15, 25, 35, 45, 55)
    with pytest.raises(RunError, match="--replay"):
        train("parts", "train.max_bad_steps=3")
    bad_box()
    parts = train("parts", resume=True)
    assert_same_weights(last(whole), last(parts))
    assert records(parts, "bad_step") == [] and records(parts, "train") == records(whole, "train")


def test_resuming_between_bad_steps_changes_nothing(train, bad_box):
    bad_box(15, 45)
    options = ["train.batch_size=1", "train.max_bad_steps=4", "train.ema=0.9"]
    whole = train("whole", *options)
    parts = train("parts", *options, "train.max_hours=1e-9")  # at once, but every start does a step
    for _ in range(2):
        train("parts", *options, "train.max_hours=1e-9", resume=True)
    assert (parts / "log.txt").read_text().count("are over at step") == 3
    train("parts", *options, resume=True)
    assert last(parts)["progress"] == last(whole)["progress"]
    assert_same_weights(last(whole), last(parts))
    for kind in ("bad_step", "train", "eval"):
        assert records(parts, kind) == records(whole, kind)


def test_a_jump_of_the_loss_is_logged_with_its_images(train, monkeypatch):
    monkeypatch.setattr("detector.training.anomalies.FEWEST", 3)
    steps = epoch._steps

    def jumping(run):
        for record in steps(run):
            yield record | {"loss": 9.0 if run.progress.step == 4 else 1 + run.progress.step % 2 / 10}

    monkeypatch.setattr("detector.training.epoch._steps", jumping)
    run = train("run")
    (spike,) = records(run, "spike")
    assert (spike["step"], spike["loss"], len(spike["image_ids"])) == (5, 9.0, 2)
    assert spike["median"] == pytest.approx(1.05, abs=0.06)
    text = (run / "log.txt").read_text()
    assert "  step 5: loss 9, where 1" in text and "  1 step with a jump of the loss" in text


@pytest.mark.parametrize("how", ["vanished", "broken"])
def test_an_image_that_goes_bad_is_an_error_after_saving(train, tmp_path, how):
    def damage():
        path = tmp_path / "train" / "2.png"
        path.unlink() if how == "vanished" else path.write_bytes(b"no image")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detector.training.epoch._summary", lambda *args: damage() or "")
        with pytest.raises(InputError, match=r"2\.png.*saved at step \d+; go on with --resume"):
            train("run", "train.batch_size=1", "train.epochs=3")
    state = last(tmp_path / "run")["progress"]
    assert state["epoch"] == 1 and state["step"] == 6 + state["batch"]


def test_an_image_that_goes_bad_is_replaced_and_listed(train, tmp_path):
    (tmp_path / "train" / "2.png").write_bytes(b"no image")
    (tmp_path / "train" / "4.png").unlink()
    options = ["data.bad_images=replace", "train.batch_size=1"]
    whole = train("whole", *options)
    lines = records(whole, "bad_images")
    assert sorted((line["epoch"], *line["image_ids"]) for line in lines) == [(1, 25), (1, 45), (2, 25), (2, 45)]
    assert all({*line["replaced_by"]} <= {5, 15, 35, 55} for line in lines)
    reasons = {line["image_ids"][0]: line["reasons"][0] for line in lines}
    assert "2.png: cannot be read as an image" in reasons[25] and "4.png: no such image" in reasons[45]
    assert last(whole)["progress"]["replaced"] == 4 and len(records(whole, "train")) == 12
    assert "  2 images replaced" in (whole / "log.txt").read_text()

    parts = train("parts", *options, "train.max_hours=1e-9")
    train("parts", *options, resume=True)
    assert_same_weights(last(whole), last(parts))
    assert records(parts, "bad_images") == lines


def test_a_folder_that_is_gone_is_not_replaced(train, tmp_path):
    for file in (tmp_path / "train").iterdir():
        file.unlink()
    with pytest.raises(
        InputError, match="the 10 images drawn to replace it cannot be used either: does the folder exist"
    ):
        train("run", "data.bad_images=replace")


def test_a_bad_batch_that_a_full_disk_does_not_take(train, bad_box, monkeypatch):
    def write(path: Path, contents: dict) -> None:
        real(path, contents)
        if path.name == "bad_batch.partial":
            raise OSError(errno.ENOSPC, "No space left on device")

    real = checkpoint.save_with_digest
    monkeypatch.setattr(checkpoint, "save_with_digest", write)
    bad_box(35)
    run = train("run", "train.epochs=1")
    assert "bad_batch.pt could not be written (No space left on device)" in (run / "log.txt").read_text()
    assert not list(run.glob("bad_batch*"))


def test_replaying_another_file(fails, train, tmp_path):
    run = train("run", "train.epochs=1")
    assert "not a bad batch that a training has left" in fails("train", "--replay", run / "checkpoints" / "last.pt")
    assert "no such file" in fails("train", "--replay", tmp_path / "none.pt")
