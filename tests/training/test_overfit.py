"""A detector that is right can learn 8 real images by heart."""

import json

import pytest

from detector.config.file import validate
from detector.training.trainer import fit

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_eight_real_images_are_learnt_by_heart(real_data, tmp_path):
    pytest.importorskip("timm")
    bccd = real_data("bccd")
    coco = json.loads((bccd / "annotations/train.json").read_text())
    coco["images"] = coco["images"][:8]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    assert {a["category_id"] for a in coco["annotations"]} == {1, 2, 3}
    (tmp_path / "eight.json").write_text(json.dumps(coco))
    split = f"{{images: {bccd / 'images/train'}, annotations: eight.json}}"
    (tmp_path / "eight.yaml").write_text(f"train: {split}\nval: {split}\n")

    settings = {
        "output_dir": str(tmp_path / "run"),
        "data": {
            "dataset": str(tmp_path / "eight.yaml"),
            "image_size": {"short": 120, "long": 160},  # platelets are 10 px
            "workers": 0,
            "bad_annotations": "drop",
        },
        "augment": {"transforms": "none"},
        "model": {
            "backbone": {"name": "timm/test_resnet", "weights": None, "norm": "batch"},
            "neck": {"channels": 64},
            "head": {"depth": 1, "width": 64, "norm": "group"},
            "anchors": {"base_size": 8},
        },
        "loss": {"box": "giou"},
        "train": {
            "epochs": 70,
            "batch_size": 4,
            "optimizer": "adamw",
            "lr": 8e-3,
            "schedule": "cosine",
            "warmup_steps": 20,
            "clip_norm": 10.0,
            "eval_every": 70,
        },
    }
    assert fit(validate(settings, "test")) == 0
    metrics = json.loads((tmp_path / "run/eval/val/metrics.json").read_text())
    assert metrics["AP50"] >= 0.95, metrics
