"""What a report says of where its detector comes from."""

from detector.config.file import load_config
from detector.data.split import read_split
from detector.evaluation.report.provenance import provenance


def test_what_was_trained_on_what(tiny_config, tiny_dataset):
    config = load_config(
        tiny_config, ["train.accumulate=3", "loss.alpha=effective_number", "data.sampling=repeat_factor"]
    )
    data = read_split(config, "val")
    start = {"kind": "start", "time": "2025-01-31T12:00:00+00:00", "device": "cpu", "findings": ["val: a doubt"]}
    said = provenance(config, "runs/my", [7, 3], data, "val", [start])
    rows = dict(said["rows"])
    assert said["title"] == "my"
    assert rows["Trained on"] == f"{tiny_dataset.name}: 10 boxes of 2 classes"
    assert rows["Evaluated on"].startswith("val: 4 images with 6 objects, 20") and rows["Evaluated on"].endswith(" UTC")
    assert rows["Trained"] == "2025-01-31 12:00 UTC, 0 s on cpu, seed 0" and said["findings"] == ["val: a doubt"]
    assert rows["Network"] == "timm/test_resnet, FPN 16, head 1 x 16"
    assert rows["Started from"] == "backbone from scratch"
    assert rows["Images"] == "64 px, augmentation none"
    assert rows["Training"].startswith("2 epochs, batches of 2 x 3, adamw, lr 0.001")
    assert rows["For the rare classes"] == "sampling repeat_factor, alpha effective_number"
    attending = config.changed({"model.attention": {"name": "dyhead", "blocks": 2}, "model.neck.name": "pafpn"})
    rows = dict(provenance(attending, "a.pt", None, data, "val")["rows"])
    assert rows["Network"] == "timm/test_resnet, PAFPN 16, attention dyhead x 2, head 1 x 16"
    assert rows["Loss"] == "focal, gamma 2.0, box smooth_l1, assigner max_iou"
    aligned = config.changed({"loss.assigner.name": "tal", "loss.box_weighting": "iou"})
    loss = dict(provenance(aligned, "a.pt", None, data, "val")["rows"])["Loss"]
    assert loss.endswith("weighted by iou, assigner tal")
    for short, said in (("48", "48 px, at most 64"), ("[32, 48]", "32 to 48 px, at most 64")):
        resized = load_config(tiny_config, [f"data.image_size={{short: {short}, long: 64}}"])
        images = dict(provenance(resized, "a.pt", None, data, "val")["rows"])["Images"]
        assert images == f"{said}, augmentation none"
    plain = provenance(load_config(tiny_config), "a.pt", None, data, "val")
    assert dict(plain["rows"])["For the rare classes"] == "sampling uniform"  # alpha auto is not for these
    unknown = provenance(config, "a.pt", None, data, "test")
    assert dict(unknown["rows"])["Trained on"] == tiny_dataset.name
    assert dict(unknown["rows"])["Trained"] == "seed 0" and unknown["findings"] == []


def test_a_config_that_was_never_trained_needs_no_learning_rate(tiny_config):
    tiny_config.write_text(tiny_config.read_text().replace("lr: 1e-3, ", ""))
    config = load_config(tiny_config, ["loss.alpha=[0.2, 0.4]"])
    rows = dict(provenance(config, "a.pt", None, read_split(config, "val"), "val")["rows"])
    assert rows["Training"] == "2 epochs, batches of 2, adamw, step"
    assert rows["For the rare classes"] == "sampling uniform, alpha by class"
