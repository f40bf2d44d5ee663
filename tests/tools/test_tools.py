"""The command line as a user meets it: train, resume, evaluate, predict; exit codes and one-line errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detector
from detector.config.file import load_config
from detector.evaluation.metrics.average_precision import SUMMARY

ROOT = Path(__file__).parents[2]


def lines(run: Path, kind: str) -> list[dict]:
    return [d for d in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if d["kind"] == kind]


def report(run: Path) -> str:
    return (run / "report.html").read_text()


def test_from_training_to_pictures(succeeds, tiny_config, tiny_dataset, tmp_path):
    run = tmp_path / "run"
    out = succeeds("train", tiny_config)
    assert "lr 0.000354 (0.001 for 16, scaled to 2 by the square root), weight decay 0.05 (adamw's own)" in out
    assert "Average Precision" in out
    for name in ("config.yaml", "log.txt", "checkpoints/last.pt", "checkpoints/best.pt", "eval/curves.png"):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").iterdir())
    train = lines(run, "train")
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "loss_cls", "loss_box", "lr", "grad_norm", "images_per_second", "epoch"} <= train[0].keys()
    assert [line["epoch"] for line in lines(run, "eval")] == [1, 2]
    assert [line["device"] for line in lines(run, "start")] == ["cpu"] and " on cpu, seed 0" in report(run)

    # evaluation needs no training data; the other backend gives the same figures
    (tmp_path / "train.json").unlink()
    (tmp_path / "train").rename(tmp_path / "gone")
    out = succeeds("eval", run)
    assert "Average Recall" in out and "light" in out
    first = json.loads((run / "eval/val/metrics.json").read_text())
    assert first["AP"] == pytest.approx(max(line["AP"] for line in lines(run, "eval")), abs=1e-6)
    succeeds("eval", run / "checkpoints/best.pt", "eval.backend=pycocotools")
    second = json.loads((run / "eval/val/metrics.json").read_text())
    for name, row in first["per_class"].items():
        assert [second["per_class"][name][k] for k in ("AP", "AP50")] == pytest.approx([row["AP"], row["AP50"]])
    assert [second[k] for k in SUMMARY] == pytest.approx([first[k] for k in SUMMARY])
    assert {d["category_id"] for d in json.loads((run / "eval/val/detections.json").read_text())} <= {3, 7}

    succeeds("predict", run, tmp_path / "val", "--output", tmp_path / "out", "--threshold", "0")
    found = json.loads((tmp_path / "out/detections.json").read_text())
    assert {"image_id", "category_id", "bbox", "score", "file_name", "category_name"} == found[0].keys()
    assert Image.open(tmp_path / "out/1.png").size == (64, 48)


def test_python_interface(run, tmp_path):
    detect = detector.load(str(run), device="cpu")
    path = tmp_path / "val" / "1.png"
    image = Image.open(path)
    one = detect(path)
    many = detect([str(path), image, np.asarray(image)])
    assert len(many) == 3 and list(one) == ["boxes", "scores", "labels", "names"]
    assert one["boxes"].shape == (len(one["scores"]), 4) and one["boxes"].dtype == np.float32
    assert one["labels"].dtype == np.int64 and one["names"] == [["dark", "light"][k] for k in one["labels"]]
    for other in many:
        np.testing.assert_allclose(other["boxes"], one["boxes"], atol=1e-3)
    assert detect([]) == []
    with pytest.raises(ValueError, match="uint8"):
        detect(np.zeros((4, 4)))


def test_a_run_is_never_overwritten_unless_told(succeeds, fails, run, tiny_config):
    assert "--resume, --overwrite" in fails("train", tiny_config)
    before = (run / "checkpoints/last.pt").stat().st_mtime_ns
    succeeds("train", tiny_config, "--overwrite", "train.epochs=1")
    assert (run / "checkpoints/last.pt").stat().st_mtime_ns > before


def test_stopped_by_a_signal_and_resumed_is_the_uninterrupted_run(succeeds, tiny_config, tmp_path):
    options = ["train.epochs=3", "train.batch_size=1", "train.accumulate=2"]
    succeeds("train", tiny_config, *options, f"output_dir={tmp_path / 'whole'}")
    command = [sys.executable, ROOT / "tools/train.py", tiny_config, *options, f"output_dir={tmp_path / 'parts'}"]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "parts" / "metrics.jsonl"
    while not (metrics.exists() and '"step": 4' in metrics.read_text()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 143 and "--resume" in out
    out = succeeds("train", tiny_config, *options, f"output_dir={tmp_path / 'parts'}", "--resume", "eval.batch_size=3")
    assert "resumed after" in out

    whole, parts = (torch.load(tmp_path / d / "checkpoints/last.pt", weights_only=True) for d in ("whole", "parts"))
    assert whole["progress"] == parts["progress"]
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name
    forget = {"images_per_second", "time"}
    for kind in ("train", "eval"):
        a, b = ([{k: v for k, v in line.items() if k not in forget} for line in lines(tmp_path / d, kind)]
                for d in ("whole", "parts"))  # fmt: skip
        assert a == b


@pytest.fixture
def start_endless(tiny_config):
    """start_endless(*options) → a training in a process group of its own that only a signal ends, after its third
    step; and its directory."""
    started: list[subprocess.Popen] = []

    def start(*options: str) -> tuple[subprocess.Popen, Path]:
        run = load_config(tiny_config).run_directory.resolve()
        command = [sys.executable, ROOT / "tools/train.py", tiny_config, "train.epochs=1000000", *options]
        pipe = subprocess.PIPE
        process = subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        started.append(process)
        while not ((run / "metrics.jsonl").exists() and len(lines(run, "train")) >= 3):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return process, run

    yield start
    for process in started:
        if process.poll() is None:  # the test failed before
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_a_notice_to_save_then_a_worker_that_is_killed(start_endless):
    process, run = start_endless("data.workers=2", "train.eval_every=1000000")
    while "saved at step" not in (run / "log.txt").read_text():  # between two epochs, all is saved anyway
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGUSR1)  # schedulers signal the whole group
        time.sleep(0.2)
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[-1]
    os.kill(int(worker), signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1 and "stopped" not in out
    assert err.startswith(f"error: a loader process (pid {worker}) was killed by SIGKILL, which the system does when")
    assert err.count("\n") == 1 and "go on with --resume" in err
    step = torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["step"]
    assert step == lines(run, "train")[-1]["step"]


def test_ctrl_c_twice_whatever_is_being_done(start_endless):
    process, run = start_endless("data.workers=1")
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (130, "")
    assert torch.load(run / "checkpoints/last.pt", weights_only=True)["progress"]["step"] >= 0


def test_show_config(succeeds):
    assert "train:" in succeeds("train", "--show-config")
    assert json.loads(succeeds("train", "--show-config", "schema"))["properties"]["seed"]["description"]


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def first_box(bbox):
    return lambda coco: coco["annotations"][0].update(bbox=bbox)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda c: c.pop("categories"), "categories"),
        (lambda c: c["annotations"][0].update(category_id=99), "annotation 102: category_id 99"),
        (first_box([5, 5, 0, 10]), "annotation 102"),
        (lambda c: c.update(images=[], annotations=[]), "the list of images is empty"),
        (first_box([5, float("nan"), 3, 10]), "annotation 102"),
        (lambda c: c.update(annotations=[]), "no object in the whole train split; nothing can be learnt"),
        (lambda c: c["images"][1].update(file_name="l.png"), "'l.png'"),
    ],
)
def test_wrong_annotations(fails, tiny_config, tmp_path, change, expected):
    edit(tmp_path / "train.json", change)
    assert expected in fails("train", tiny_config)
    assert not (tmp_path / "run").exists()


def test_bad_boxes_can_be_dropped(succeeds, tiny_config, tmp_path):
    edit(tmp_path / "train.json", first_box([5, 5, 0, 10]))
    out = succeeds("train", tiny_config, "data.bad_annotations=drop", "train.epochs=1")
    assert "1 annotation left out" in out


def test_wrong_files(fails, tiny_config, tiny_dataset, tmp_path):
    assert "unknown key `train.epohs`; did you mean `epochs`?" in fails("train", tiny_config, "train.epohs=3")
    assert "`train.epochs`" in fails("train", tiny_config, "train.epochs=many")
    assert "tiny.yaml" in fails("train", tiny_config, f"data.dataset={tmp_path / 'tyni.yaml'}")
    image = tmp_path / "train" / "2.png"
    image.write_bytes(image.read_bytes()[:300])
    assert "2.png" in fails("train", tiny_config, "data.workers=2")
    (tmp_path / "train.json").write_text("not json")
    assert "train.json" in fails("train", tiny_config, "--overwrite")
    (tmp_path / "train.json").unlink()
    assert "train.json" in fails("train", tiny_config, "--overwrite")


def test_boxes_of_another_format_stop_every_tool(fails, run, tiny_config, tmp_path):
    def corners(coco):
        boxes, coco["annotations"] = coco["annotations"], []
        for x_offset in (0, 1):  # ten boxes or more tell a format
            for k, box in enumerate(boxes):
                x, y, w, h = box["bbox"]
                corner = [x + x_offset, y, x + x_offset + w, y + h]
                coco["annotations"].append(box | {"id": 100 * x_offset + k, "bbox": corner})

    for name in ("train", "val"):
        edit(tmp_path / f"{name}.json", corners)
    for tool, *arguments in (("train", tiny_config, "--overwrite"), ("eval", run)):
        assert "corners where COCO has width and height" in fails(tool, *arguments)
        assert "no object is left" in fails(tool, *arguments, "data.bad_annotations=drop")


def test_what_cannot_be_written_is_told_before_the_work(fails, run, tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    below, data = tmp_path / "file" / "below", load_config(tiny_config).data.dataset
    shutil.rmtree(run / "eval")
    (run / "eval").write_text("")
    for tool, *arguments in (
        ("train", tiny_config, f"output_dir={below}"),
        ("eval", run),
        ("predict", run, tmp_path / "val", "--output", below),
        ("doctor", data, "--html", below / "a.html"),
        ("doctor", data, "--fix", below / "a.json"),
        ("doctor", data, "--write-config", below / "a.yaml"),
        ("show_augment", tiny_config, "--output", below / "a.jpg"),
        ("compare", run, "other", "--html", below / "a.html"),
        ("loss_curves", run),
        ("loss_curves", run, "--output", below / "a.png"),
    ):
        assert "cannot be written to (Not a directory)" in fails(tool, *arguments), (tool, arguments)


def test_a_moved_run_directory_is_resumed_by_its_name(succeeds, fails, run, tmp_path):
    moved = run.rename(tmp_path / "moved")
    assert "holds a run already" in fails("train", moved)
    assert "--show-config and --replay take no CONFIG" in fails("train", moved, "--show-config")
    out = succeeds("train", moved, "--resume", "train.epochs=2", "data.workers=0")
    assert "resumed after 1 epoch " in out and len(lines(moved, "eval")) == 2
    assert not run.exists()


def test_wrong_arguments(fails, tmp_path):
    assert "CONFIG" in fails("train")
    assert "--resume" in fails("train", "a.yaml", "--resume", "--overwrite")
    assert "no/such.yaml" in fails("train", "no/such.yaml")
    assert "nowhere" in fails("eval", tmp_path / "nowhere")
    assert "is it a run directory?" in fails("eval", tmp_path)
    assert "nothing.jpg" in fails("predict", tmp_path, tmp_path / "nothing.jpg")


def test_checkpoint_of_another_model(fails, run, tiny_config, tmp_path):
    assert "another backbone" in fails(
        "train", tiny_config, f"model.weights={run}", "model.backbone.name=resnet50", f"output_dir={tmp_path / 'b'}"
    )
    assert "model.head.width was 16 and is 8" in fails("train", tiny_config, "--resume", "model.head.width=8")
    assert "not a checkpoint" in fails("eval", _other_file(tmp_path))
    torn = tmp_path / "torn.pt"
    torn.write_bytes((run / "checkpoints/last.pt").read_bytes()[:5000])
    assert "torn.pt" in fails("eval", torn)
    for file in (run / "checkpoints").glob("last*.pt"):
        os.truncate(file, 0)
    assert "last.pt" in fails("train", tiny_config, "--resume")


def test_every_tool_knows_the_names_in_the_tables(fails, run, tiny_config, tmp_path):
    data = load_config(tiny_config).data.dataset
    for arguments in (
        ["train", tiny_config, "--overwrite", "loss.box=giuo"],
        ["verify_resume", tiny_config, "loss.box=giuo"],
        ["show_augment", tiny_config, "--output", tmp_path / "a.jpg", "loss.box=giuo"],
        ["doctor", data, "--config", tiny_config, "loss.box=giuo"],
        ["eval", run, "loss.box=giuo"],
        ["predict", run, tmp_path / "val", "--output", tmp_path / "out", "loss.box=giuo"],
    ):
        assert "loss.box: no 'giuo'; did you mean 'giou'?" in fails(*arguments), arguments


@pytest.mark.parametrize("content", [b"hello world", b"", b"\x80\x02rubbish", bytes(range(256))])
def test_files_that_are_no_checkpoint(fails, tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    assert "x.pt" in fails("eval", tmp_path / "x.pt")


def test_pickled_code_is_not_run(fails, tmp_path):
    class Code:
        def __reduce__(self):
            return (Path(tmp_path / "was_here").touch, ())

    torch.save({"format": 1, "model": Code(), "config": {}, "class_names": [], "category_ids": []}, tmp_path / "x.pt")
    assert "refused" in fails("eval", tmp_path / "x.pt")
    assert not (tmp_path / "was_here").exists()


def test_predict_says_where_objects_have_several_classes(succeeds, run, tmp_path):
    everything = ["predict", run, tmp_path / "val" / "1.png", "--output", tmp_path / "out", "--threshold", "0"]
    everything.append("model.postprocess.max_detections=10000")
    assert "of another class; model.postprocess.nms=all keeps fewer of them" in succeeds(*everything)
    count = len(json.loads((tmp_path / "out/detections.json").read_text()))
    assert "of another class" not in succeeds(*everything, "model.postprocess.nms=all")
    found = json.loads((tmp_path / "out/detections.json").read_text())
    assert f"{len(found)} detections in 1 image:" in succeeds(*everything, "model.postprocess.nms=all")
    assert 0 < len(found) < count


def test_predict_never_writes_over_its_images(succeeds, fails, run, tmp_path):
    before = (tmp_path / "val/1.png").read_bytes()
    assert "write over the images" in fails("predict", run, tmp_path / "val", "--output", tmp_path / "val")
    assert (tmp_path / "val/1.png").read_bytes() == before
    for folder in ("f1", "f2"):
        (tmp_path / folder).mkdir()
        shutil.copy(tmp_path / "val/1.png", tmp_path / folder / "a.png")
    shutil.copy(tmp_path / "val/2.png", tmp_path / "f2" / "a_2.png")
    succeeds("predict", run, tmp_path / "f1", "--output", tmp_path / "out", tmp_path / "f2")
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_evaluation_on_another_dataset_matches_classes_by_name(succeeds, run, tmp_path):
    other = tmp_path / "other.json"
    shutil.copy(tmp_path / "val.json", other)

    def rename(coco):
        coco["categories"] = [{"id": 0, "name": "light"}, {"id": 12, "name": "blue"}]
        for annotation in coco["annotations"]:
            annotation["category_id"] = 0 if annotation["category_id"] == 7 else 12

    edit(other, rename)
    (tmp_path / "other.yaml").write_text("test: {images: val, annotations: other.json}\n")
    succeeds("eval", run)
    out = succeeds("eval", run, "--split", "test", "--dataset", tmp_path / "other.yaml")
    assert "counted as never found: blue" in out and "not in this dataset: 1 class of the detector" in out
    here, there = (json.loads((run / f"eval/{d}/metrics.json").read_text()) for d in ("val", "test-other"))
    assert there["per_class"]["light"] == here["per_class"]["light"] | {
        "interval": there["per_class"]["light"]["interval"]
    }
    blue = there["per_class"]["blue"]
    assert (blue["AP"], blue["AP50"], blue["num_gt"], blue["num_train"]) == (0, 0, 3, 0)


def test_resume_with_a_torn_log(succeeds, run, tiny_config):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    succeeds("train", tiny_config, "train.epochs=2", "--resume")
    assert [line["step"] for line in lines(run, "train")] == [1, 2, 3, 4, 5, 6]


def test_resume_is_the_same_training_or_none(fails, run, tiny_config, tmp_path):
    assert "train.lr was 0.001 and is 0.1" in fails("train", tiny_config, "train.epochs=1", "train.lr=0.1", "--resume")
    edit(tmp_path / "train.json", lambda coco: coco["images"].pop(0))
    assert "it had 6 images" in fails("train", tiny_config, "train.epochs=2", "--resume")


def _other_file(tmp_path: Path) -> Path:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    return tmp_path / "other.pt"


def test_thresholds_are_chosen_on_val_and_used(succeeds, run, tmp_path):
    best = run / "checkpoints" / "best.pt"
    state = torch.load(best, weights_only=True)
    assert state["class_counts"] == [5, 5] and state["deployment"]["borrowed"] == ["dark", "light"]  # 3 objects each
    metrics = json.loads((run / "eval/val/metrics.json").read_text())
    assert [row["threshold"] for row in metrics["per_class"].values()] == state["deployment"]["thresholds"]

    assert state["deployment"]["failing"] == []  # with 6 objects in all, nothing is to be concluded
    state["deployment"]["failing"] = ["dark", "light"]
    state["deployment"]["thresholds"] = [0.0, 1.0]  # all that is dark, nothing that is light
    torch.save(state, best)
    image = tmp_path / "val" / "1.png"
    assert set(detector.load(run, device="cpu")(image)["names"]) == {"dark"}
    assert set(detector.load(run, device="cpu", threshold=0)(image)["names"]) == {"dark", "light"}
    out = succeeds("predict", run, image, "--output", tmp_path / "out")
    assert (
        "each class is reported from its own threshold" in out and "val has fewer than 10 objects of dark, light" in out
    )
    assert "warning: on val, no class works; do not deploy the detector" in out
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["category_name"] for row in found} == {"dark"}


def test_another_goal_chooses_thresholds_anew_and_keeps_them(succeeds, run):
    best = run / "checkpoints" / "best.pt"
    before = torch.load(best, weights_only=True)
    assert "kept in" not in succeeds("eval", run)
    assert "for a recall of 0.9, kept in" in succeeds("eval", run, "eval.threshold.figure=recall")
    after = torch.load(best, weights_only=True)
    assert after["deployment"]["goal"] == {"figure": "recall", "beta": 1.0, "target": 0.9}
    assert all(torch.equal(after["model"][name], tensor) for name, tensor in before["model"].items())
    assert '<h1><span class="breakable">run</span></h1>' in (run / "eval" / "val" / "report.html").read_text()


def test_calibrated_scores_are_those_of_the_checkpoint(run, tmp_path):
    image = tmp_path / "val" / "1.png"
    detect = detector.load(run, device="cpu", threshold=0)
    calibrated = detector.load(run, device="cpu", threshold=0, overrides=["eval.calibrate=true"])(image)
    raw = detect(image)
    expected = detect.deployment.calibration(raw["scores"], raw["labels"])
    assert calibrated["scores"].tolist() == sorted(expected.tolist(), reverse=True)
    assert calibrated["scores"].max() <= 1 and not np.array_equal(calibrated["scores"], raw["scores"])


def test_a_checkpoint_without_thresholds_is_given_them_by_an_evaluation(succeeds, run, tmp_path):
    best = run / "checkpoints" / "best.pt"
    state = torch.load(best, weights_only=True)
    del state["deployment"], state["class_counts"]
    torch.save(state, best)
    assert "scores of 0.3 or more are reported" in succeeds(
        "predict", run, tmp_path / "val", "--output", tmp_path / "out"
    )
    out = succeeds("eval", run)
    assert "by objects here" in out and "thresholds chosen on val" in out
    assert torch.load(best, weights_only=True)["deployment"]["borrowed"] == ["dark", "light"]
