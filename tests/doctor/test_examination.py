"""tools/doctor.py from the command line: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest

from detector.config.file import load_config
from detector.doctor.examination import examine_dataset
from detector.doctor.reach.reach import measure_reach

BCCD = Path(__file__).parents[2] / "configs" / "bccd.yaml"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of one's own, outside of which nothing is written."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def spoil(path, count=1, **changes):
    """Change the first annotations of a file."""
    tree = json.loads(path.read_text())
    for annotation in tree["annotations"][:count]:
        annotation |= changes
    path.write_text(json.dumps(tree))


def test_it_tells_all_and_the_config_that_it_writes_trains(succeeds, tiny_dataset, here):
    said = succeeds("doctor", tiny_dataset, "--write-config", "my.yaml")
    for part in ("sound?", "imbalanced how?", "reachable?", "so use this", "verdict: ", "my.yaml: the config"):
        assert part in said
    assert "light" in said and "dark" in said
    config = load_config("my.yaml")
    assert config.data.dataset == str(tiny_dataset)
    assert config.data.image_size.model_dump() == {"short": 48, "long": 64}
    succeeds("train", "my.yaml", "train.epochs=1", "data.workers=0", "device=cpu")
    assert (here / "runs" / "my" / "checkpoints" / "best.pt").is_file()


def test_bad_boxes_are_found_by_id_and_dropped_in_the_config(succeeds, tiny_dataset, tmp_path, here):
    spoil(tmp_path / "train.json", bbox=[3, 3, 0, 5])
    said = succeeds("doctor", tiny_dataset, "--write-config", "my.yaml")
    assert "annotation 102" in said and "boxes of zero width or height: 1 of 10" in said
    assert "verdict: 1 kind of error" in said and "; only bad boxes" in said
    assert load_config("my.yaml").data.bad_annotations == "drop"
    spoil(tmp_path / "train.json", count=2, bbox=[3, 3, 0, 5])
    assert "boxes of zero width or height: 2 of 10" in succeeds("doctor", tiny_dataset)


def test_a_bare_annotation_file_is_examined_but_no_config_comes_of_it(succeeds, fails, tiny_dataset, tmp_path, here):
    alone = tmp_path / "elsewhere" / "annotations.json"
    alone.parent.mkdir()
    alone.write_bytes((tmp_path / "train.json").read_bytes())
    assert "imbalance: the commonest class" in succeeds("doctor", alone)
    assert "needs a descriptor" in fails("doctor", alone, "--write-config", "my.yaml")
    assert not (here / "my.yaml").exists()


def test_what_no_training_survives_is_told_and_no_config_is_written(succeeds, fails, tiny_dataset, tmp_path, here):
    spoil(tmp_path / "train.json", category_id=99)
    said = succeeds("doctor", tiny_dataset)
    assert "unknown, since the annotations cannot be used" in said and "verdict: not sound" in said
    assert "category_id 99" in fails("doctor", tiny_dataset, "--write-config", "my.yaml")
    (tmp_path / "train.json").write_text("{")
    assert "verdict: not sound" in succeeds("doctor", tiny_dataset)


def test_missing_images_forbid_the_config(fails, tiny_dataset, tmp_path, here):
    (tmp_path / "val" / "2.png").unlink()
    assert "1 of the 4 images" in fails("doctor", tiny_dataset, "--write-config", "my.yaml")
    assert not (here / "my.yaml").exists()


def test_a_repaired_copy_passes(succeeds, tiny_dataset, tmp_path, here):
    spoil(tmp_path / "val.json", bbox=[3, 3, 0, 5])
    said = succeeds("doctor", tiny_dataset, "--fix", tmp_path / "fixed.json", "--split", "val")
    assert "annotation 102" in said.partition("the repaired copy")[2]
    tiny_dataset.write_text(tiny_dataset.read_text().replace("val.json", "fixed.json"))
    assert "error:" not in succeeds("doctor", tiny_dataset)


def test_it_looks_through_the_users_own_config(succeeds, tiny_dataset, tiny_config):
    said = succeeds("doctor", tiny_dataset, "--config", tiny_config, "model.anchors.base_size=20", "data.image_size=96")
    assert "base_size 20, 3 scales" in said and "at image_size 96" in said
    size = "data.image_size={short: [32, 48], long: 64}"
    said = succeeds("doctor", tiny_dataset, "--config", tiny_config, size)
    assert "at image_size {'short': 48, 'long': 64}" in said


def test_it_speaks_of_the_configured_assigner(succeeds, tiny_dataset, tiny_config, here):
    config = tiny_dataset.parent / "config.yaml"
    options = "--config", config, f"data.dataset={tiny_dataset}", "--html"
    for name in ("atss", "tal"):
        said = succeeds("doctor", tiny_dataset, *options, f"{name}.html", f"loss.assigner.name={name}")
        page = (here / f"{name}.html").read_text()
        assert f"{name} trains anchors whose centre lies in the object" in said and "IoU >=" not in said
        assert f"{name} trains anchors whose centre lies in the object" in page
        assert "best IoU below" not in page and ("before the first step" in page) == (name == "tal")
    succeeds("doctor", tiny_dataset, *options, "max_iou.html")
    page = (here / "max_iou.html").read_text()
    assert "best IoU below 0.4" in page and "anchors with an IoU of 0.5 or more reach" in page


def test_existing_files_stay_as_they_are(fails, tiny_dataset, tmp_path, here):
    (here / "there").write_text("mine")
    for option in ("--write-config", "--html", "--fix"):
        assert "there: exists already" in fails("doctor", tiny_dataset, option, "there")
    assert (here / "there").read_text() == "mine"


def test_wrong_arguments(fails, tiny_dataset, tmp_path):
    assert "no such dataset descriptor" in fails("doctor", tmp_path / "no.yaml")
    assert "overrides a setting of --config" in fails("doctor", tiny_dataset, "data.image_size=96")
    assert "--split says what --fix repairs" in fails("doctor", tiny_dataset, "--split", "val")
    fixed = tmp_path / "fixed.json"
    assert "no split `test`" in fails("doctor", tiny_dataset, "--fix", fixed, "--split", "test")


def test_bccd_has_two_boxes_of_zero_size_and_gets_the_recipe_of_its_own_config(succeeds, real_data, here):
    said = succeeds("doctor", real_data("bccd") / "bccd.yaml", "--write-config", "my.yaml")
    assert said.count("error: ") == 2
    assert "annotation 2288" in said and "annotation 887" in said
    mine, own = load_config("my.yaml").model_dump(), load_config(BCCD).model_dump()
    differing = {
        f"{section}.{key}"
        for section in ("data", "augment", "model", "loss", "train")
        for key in own[section]
        if mine[section][key] != own[section][key]
    }
    assert differing == {"data.dataset", "loss.alpha", "loss.defer_alpha"}
    assert mine["loss"]["alpha"] == "effective_number"


def test_a_descriptor_without_val_is_not_sound(tiny_dataset, tiny_config, tmp_path, succeeds, fails):
    only = tmp_path / "only.yaml"
    only.write_text(tiny_dataset.read_text().splitlines()[0] + "\n")
    out = succeeds("doctor", only)
    assert "error: val:" in out and "(no-split)" in out and "verdict: not sound" in out
    assert out.count(f"python datasets/split.py {only}") == 1
    for command in (
        ("doctor", only, "--write-config", tmp_path / "c.yaml"),
        ("train", tiny_config, f"data.dataset={only}"),
    ):
        said = fails(*command)
        assert "no split `val`" in said and f"`python datasets/split.py {only}` makes one" in said


def test_one_image_in_each_split_is_not_sound(succeeds, tiny_dataset, tmp_path):
    for split in ("train", "val"):
        tree = json.loads((tmp_path / f"{split}.json").read_text())
        tree["images"] = tree["images"][1:2]
        tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] == tree["images"][0]["id"]]
        (tmp_path / f"{split}.json").write_text(json.dumps(tree))
    said = succeeds("doctor", tiny_dataset).splitlines()[-1]
    assert said.startswith("verdict: no error, but too small") and "train has 1 image, fewer than 10" in said


def test_the_verdict_says_which_errors_fix_repairs(succeeds, tiny_dataset, tmp_path):
    spoil(tmp_path / "train.json", image_id=99)
    assert "before training, repair unknown-image with --fix" in succeeds("doctor", tiny_dataset).splitlines()[-1]
    descriptor = tiny_dataset.read_text()
    tiny_dataset.write_text(f"{descriptor}classes: [light, drak]\n")
    said = succeeds("doctor", tiny_dataset).splitlines()[-1]
    assert said.endswith("repair unknown-image with --fix, and repair no-such-class as said above")
    tiny_dataset.write_text(descriptor.splitlines()[1])
    assert "--fix" not in succeeds("doctor", tiny_dataset).splitlines()[-1]


def test_a_category_that_val_lacks_is_added_as_training_says(
    succeeds, fails, tiny_dataset, tiny_config, tmp_path, here
):
    tree = json.loads((tmp_path / "val.json").read_text())
    tree["categories"] = [c for c in tree["categories"] if c["id"] == 7]
    tree["annotations"] = [a for a in tree["annotations"] if a["category_id"] == 7]
    (tmp_path / "val.json").write_text(json.dumps(tree))
    said = fails("train", tiny_config, f"data.dataset={tiny_dataset}")
    assert "has no category 'dark'" in said and f"doctor.py {tiny_dataset} --fix OUT.json --split val" in said
    succeeds("doctor", tiny_dataset, "--fix", tmp_path / "fixed.json", "--split", "val")
    tiny_dataset.write_text(tiny_dataset.read_text().replace("val.json", "fixed.json"))
    assert "error:" not in succeeds("doctor", tiny_dataset)


def test_many_changes_are_in_the_file_and_some_on_the_console(succeeds, tiny_dataset, tmp_path):
    tree = json.loads((tmp_path / "train.json").read_text())
    for record in tree["annotations"]:
        record |= {"image_id": float(record["image_id"]), "category_id": float(record["category_id"]), "area": "400"}
    (tmp_path / "train.json").write_text(json.dumps(tree))
    said = succeeds("doctor", tiny_dataset, "--fix", tmp_path / "fixed.json")
    assert said.count("read as") == 20 and "... and 10 more, all in" in said
    assert len((tmp_path / "fixed.json.changes.txt").read_text().splitlines()) == 30


def test_the_anchors_are_those_that_the_weights_were_trained_with(tiny_dataset, tiny_config, fails):
    """As a training would find them; published weights are not downloaded for that."""
    for weights, rule in (("null", "exact"), ("RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1", "torchvision")):
        report = examine_dataset(str(tiny_dataset), load_config(tiny_config, [f"model.weights={weights}"])).report
        assert report.reach.anchors.rule == rule
    said = fails("doctor", tiny_dataset, "--config", tiny_config, "model.weights=nowhere/best.pt")
    assert "nowhere/best.pt: no such weights file" in said


def test_a_gpus_recipe_is_measured_with_the_anchors_of_its_weights(tiny_dataset, monkeypatch):
    rules = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "detector.doctor.examination.measure_reach",
        lambda data, config: (rules.append(config.model.anchors.rule), measure_reach(data, config))[1],
    )
    examine_dataset(str(tiny_dataset))
    assert set(rules) == {"torchvision"}
