"""What an evaluation does: classes matched by name, files written, thresholds chosen, kept or left as they are."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector import checkpoint
from detector.inference.detector import Detector, load
from detector.inference.evaluate import evaluate_detector
from detector.utils.errors import InputError

SCORES = {"dark": 0.6, "light": 0.9}  # in the order of the run's classes
VALUES = {"dark": 0, "light": 255}


class FindsSquares(nn.Module):
    """Finds every square of the tiny dataset exactly, by its colour."""

    def forward(self, images: torch.Tensor, sizes: list[tuple[int, int]]) -> dict:
        return {"images": images}

    def postprocess(self, outputs: dict, sizes: list, orig_sizes: list) -> list[dict[str, torch.Tensor]]:
        found = []
        for image, (height, width) in zip(outputs["images"], sizes, strict=True):
            labels, boxes = [], []
            for label, value in enumerate(VALUES.values()):
                y, x = torch.nonzero((image[:, :height, :width] == value).all(dim=0), as_tuple=True)
                if len(x):
                    labels.append(label)
                    boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
            scores = [list(SCORES.values())[label] for label in labels]
            found.append({
                "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
                "scores": torch.tensor(scores), "labels": torch.tensor(labels, dtype=torch.int64),
            })  # fmt: skip
        return found


def detector_of(source: Path, *overrides: str) -> Detector:
    """The classes, settings and thresholds of a run, and a model that finds everything."""
    squares = FindsSquares()
    return replace(load(source, device="cpu", overrides=overrides), model=squares, postprocess=squares.postprocess)


def evaluate(source: Path, *overrides: str, split: str = "val", dataset: Path | None = None) -> dict:
    return evaluate_detector(detector_of(source, *overrides), str(source), split, dataset and str(dataset))


@pytest.fixture(autouse=True)
def _blank(blank_figures):
    pass


@pytest.fixture
def other_dataset(tiny_dataset):
    """other_dataset(names) writes other.yaml, whose test split is the tiny val split with its classes light and dark
    renamed: None leaves the objects of a class out."""

    def write(light: str | None, dark: str | None) -> Path:
        folder = tiny_dataset.parent
        coco = json.loads((folder / "val.json").read_text())
        new = {7: (2, light), 3: (11, dark)}  # other ids too, in another order
        kept = [a | {"category_id": new[a["category_id"]][0]} for a in coco["annotations"] if new[a["category_id"]][1]]
        categories = [{"id": id_, "name": name} for id_, name in new.values() if name]
        (folder / "other.json").write_text(json.dumps(coco | {"annotations": kept, "categories": categories}))
        (folder / "other.yaml").write_text("test: {images: val, annotations: other.json}\n")
        return folder / "other.yaml"

    return write


def test_figures_are_returned_and_written_beside_detections_and_pictures(run, capsys):
    metrics = evaluate(run)
    assert metrics["AP"] == metrics["AR100"] == 1
    assert {name: (row["AP"], row["num_gt"], row["num_train"]) for name, row in metrics["per_class"].items()} == {
        "dark": (1, 3, 5),
        "light": (1, 3, 5),
    }
    directory = run / "eval" / "val"
    assert json.loads((directory / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert {"samples.jpg", "report.html"} <= {path.name for path in directory.iterdir()}
    out = capsys.readouterr().out
    assert "Average Precision" in out and "light" in out and f"written to {directory}" in out


def test_detections_are_in_the_datasets_ids_and_pixels(run, tmp_path):
    evaluate(run)
    found = json.loads((run / "eval/val/detections.json").read_text())
    truth = json.loads((tmp_path / "val.json").read_text())["annotations"]
    assert {(d["image_id"], d["category_id"], *d["bbox"]) for d in found} == {
        (a["image_id"], a["category_id"], *a["bbox"]) for a in truth
    }
    assert {d["category_id"]: d["score"] for d in found} == pytest.approx({3: 0.6, 7: 0.9})


def test_classes_are_matched_by_name_whatever_their_ids_and_case(run, other_dataset, capsys):
    metrics = evaluate(run, split="test", dataset=other_dataset(light="LIGHT", dark="Dark"))
    assert {name: row["AP"] for name, row in metrics["per_class"].items()} == {"LIGHT": 1, "Dark": 1}
    found = json.loads((run / "eval/test-other/detections.json").read_text())
    assert {d["category_id"]: d["score"] for d in found} == pytest.approx({11: 0.6, 2: 0.9})
    assert "does not know" not in capsys.readouterr().out


def test_classes_that_only_one_side_has(run, other_dataset, capsys):
    """The dataset's own class counts as never found; detections of the detector's own class are not counted."""
    metrics = evaluate(run, split="test", dataset=other_dataset(light="light", dark="blue"))
    rows = metrics["per_class"]
    assert {name: (row["AP"], row["num_gt"], row["num_train"]) for name, row in rows.items()} == {
        "light": (1, 3, 5),
        "blue": (0, 3, 0),
    }
    assert metrics["AP"] == 0.5
    found = json.loads((run / "eval/test-other/detections.json").read_text())
    assert {d["category_id"] for d in found} == {2}
    out = capsys.readouterr().out
    assert "classes the detector does not know, counted as never found: blue" in out
    assert "not in this dataset: 1 class of the detector" in out


def test_a_dataset_without_some_classes(run, other_dataset, capsys):
    metrics = evaluate(run, split="test", dataset=other_dataset(light="light", dark=None))
    assert metrics["AP"] == 1 and list(metrics["per_class"]) == ["light"]
    assert "not in this dataset: 1 class of the detector" in capsys.readouterr().out


def test_no_shared_class(run, other_dataset):
    with pytest.raises(InputError, match="share no class; the detector knows dark, light"):
        evaluate(run, split="test", dataset=other_dataset(light="sun", dark="moon"))
    assert not (run / "eval" / "test-other").exists()


def test_of_two_names_that_differ_in_case_the_exact_one_is_taken(run, other_dataset):
    dataset = other_dataset(light="light", dark=None)
    detector = replace(detector_of(run), class_names=["Light", "light"])
    assert evaluate_detector(detector, str(run), "test", str(dataset))["per_class"]["light"]["AP"] == 1
    detector = replace(detector, class_names=["light", "LIGHT"])  # the one that stands for dark squares
    assert evaluate_detector(detector, str(run), "test", str(dataset))["per_class"]["light"]["AP"] == 0


def test_a_split_that_the_dataset_does_not_have(run):
    with pytest.raises(InputError, match="test"):
        evaluate(run, split="test")


def test_annotations_left_out_are_counted(run, tmp_path, capsys):
    coco = json.loads((tmp_path / "val.json").read_text())
    coco["annotations"][0]["bbox"] = [5, 5, 0, 10]
    (tmp_path / "val.json").write_text(json.dumps(coco))
    with pytest.raises(InputError, match="val.json"):
        evaluate(run)
    assert evaluate(run, "data.bad_annotations=drop")["AR100"] == 1
    assert "1 annotation left out" in capsys.readouterr().out


def test_thresholds_for_the_same_goal_stay(run, capsys):
    before = (run / "checkpoints/best.pt").read_bytes()
    kept = checkpoint.load(run / "checkpoints/best.pt")["deployment"]["thresholds"]
    metrics = evaluate(run)
    assert [row["threshold"] for row in metrics["per_class"].values()] == kept
    assert (run / "checkpoints/best.pt").read_bytes() == before and "kept in" not in capsys.readouterr().out


RECALL = "eval.threshold.figure=recall"


@pytest.fixture
def larger_val(tmp_path) -> None:
    """Four times as many images on val: of each class enough objects to choose a threshold from."""
    coco = json.loads((tmp_path / "val.json").read_text())
    images, annotations = coco["images"], coco["annotations"]
    for k in (1000, 2000, 3000):
        coco["images"] = coco["images"] + [i | {"id": i["id"] + k, "file_name": f"{k}{i['file_name']}"} for i in images]
        copies = [a | {"id": a["id"] + k, "image_id": a["image_id"] + k} for a in annotations]
        coco["annotations"] = coco["annotations"] + copies
        for image in images:
            shutil.copy(tmp_path / "val" / image["file_name"], tmp_path / "val" / f"{k}{image['file_name']}")
    (tmp_path / "val.json").write_text(json.dumps(coco))


def test_thresholds_for_another_goal_are_chosen_on_val_and_kept(run, larger_val, capsys):
    best = run / "checkpoints" / "best.pt"
    before = checkpoint.load(best)
    metrics = evaluate(run, RECALL)
    assert "for a recall of 0.9, kept in" in capsys.readouterr().out
    after = checkpoint.load(best)
    thresholds = [row["threshold"] for row in metrics["per_class"].values()]
    assert after["deployment"]["thresholds"] == thresholds == pytest.approx([0.3, 0.45])  # half-way from nothing
    assert after["deployment"]["goal"]["figure"] == after["config"]["eval"]["threshold"]["figure"] == "recall"
    assert all(torch.equal(after["model"][name], tensor) for name, tensor in before["model"].items())
    np.testing.assert_array_equal(load(run, device="cpu").thresholds, thresholds)  # and used from now on
    evaluate(run)
    assert "kept in" not in capsys.readouterr().out


def test_calibrated_scores_are_written_and_measured(run, larger_val, capsys):
    """Of five detections of each class four are right: each score becomes 0.8 of that class."""
    evaluate(run, RECALL)
    raw = json.loads((run / "eval/val/detections.json").read_text())
    best = run / "checkpoints" / "best.pt"
    state = checkpoint.load(best)
    state["deployment"]["calibration"] = [{"scores": [0.1, 1.0], "precision": [0.2, 0.5]}] * 2
    checkpoint.save(best, state)
    capsys.readouterr()
    metrics = evaluate(run, RECALL, "eval.calibrate=true")
    assert "eval.calibrate: figures, thresholds and detections.json are of calibrated scores" in capsys.readouterr().out
    calibrated = json.loads((run / "eval/val/detections.json").read_text())
    expected = {7: np.interp(0.9, [0.1, 1], [0.2, 0.5]), 3: np.interp(0.6, [0.1, 1], [0.2, 0.5])}
    assert len(calibrated) == len(raw)
    assert all(row["score"] == pytest.approx(expected[row["category_id"]]) for row in calibrated)
    assert metrics["per_class"]["light"]["threshold"] == pytest.approx(np.interp(0.45, [0.1, 1], [0.2, 0.5]))
    assert metrics["per_class"]["light"]["recall"] == metrics["AP"] == 1  # of the same detections as before
    assert checkpoint.load(best)["deployment"]["thresholds"] == state["deployment"]["thresholds"]  # as they were


def test_a_target_that_is_not_reached_is_told_every_time(run, larger_val, capsys):
    best = run / "checkpoints" / "best.pt"
    evaluate(run, RECALL)
    state = checkpoint.load(best)
    state["deployment"]["unreached"] = ["dark"]
    checkpoint.save(best, state)
    capsys.readouterr()
    metrics = evaluate(run, RECALL)
    assert "no threshold gives a recall of 0.9 for dark on val" in capsys.readouterr().out
    assert [row["reached"] for row in metrics["per_class"].values()] == [False, True]


def test_settings_without_effect_are_named(run, capsys):
    load(run, device="cpu", overrides=["train.lr=3", "seed=1", "eval.batch_size=2", "output_dir=other"])
    said = "without effect on a detector that is not trained: train.lr=3, seed=1, output_dir=other"
    assert said in capsys.readouterr().out


def test_thresholds_chosen_with_other_settings_are_not_kept(run, capsys):
    before = (run / "checkpoints/best.pt").read_bytes()
    evaluate(run, RECALL, "model.postprocess.nms_iou=0.6")
    assert "for this evaluation only: data or model settings differ" in capsys.readouterr().out
    assert (run / "checkpoints/best.pt").read_bytes() == before


def test_a_setting_that_is_newer_than_the_checkpoint_is_no_other_setting(run, larger_val, capsys):
    best = run / "checkpoints" / "best.pt"
    state = checkpoint.load(best)
    del state["config"]["model"]["postprocess"]["nms"]
    checkpoint.save(best, state)
    evaluate(run, RECALL)
    assert "for a recall of 0.9, kept in" in capsys.readouterr().out


def test_thresholds_are_not_chosen_on_another_dataset(run, other_dataset, capsys):
    best = run / "checkpoints" / "best.pt"
    before = best.read_bytes()
    _, light = checkpoint.load(best)["deployment"]["thresholds"]
    dataset = other_dataset(light="light", dark="blue")
    metrics = evaluate(run, RECALL, split="test", dataset=dataset)
    assert {name: row["threshold"] for name, row in metrics["per_class"].items()} == {"light": light, "blue": 1}
    assert {name: row["chosen"] for name, row in metrics["per_class"].items()} == {"light": True, "blue": False}
    assert "thresholds stay those for" in capsys.readouterr().out
    dataset.write_text("val: {images: val, annotations: other.json}\n")
    evaluate(run, RECALL, split="val", dataset=dataset)
    assert best.read_bytes() == before


def test_a_detector_without_thresholds(run, other_dataset, capsys):
    detector = replace(detector_of(run), deployment=None, class_counts=None)
    dataset = other_dataset(light="light", dark=None)
    row = evaluate_detector(detector, str(run), "test", str(dataset))["per_class"]["light"]
    assert (row["threshold"], row["num_train"]) == (0.3, None)
    out = capsys.readouterr().out
    assert "no thresholds were chosen for this detector: 0.3 is used" in out and "not chosen on objects" not in out
    assert not row["chosen"]


def test_where_the_files_of_a_lone_checkpoint_and_of_a_config_go(run, tmp_path):
    (tmp_path / "lone").mkdir()
    lone = shutil.copy(run / "checkpoints/best.pt", tmp_path / "lone/best.pt")
    shutil.rmtree(run / "eval")
    for source, directory in (
        (lone, tmp_path / "lone"),
        (run / "checkpoints/best.pt", run),
        (tmp_path / "some.yaml", tmp_path / "chosen"),  # the detector of a CONFIG has no checkpoint
    ):
        detector = detector_of(run, f"output_dir={tmp_path / 'chosen'}")
        evaluate_detector(detector, str(source), "val", None)
        assert (directory / "eval/val/metrics.json").is_file(), source
