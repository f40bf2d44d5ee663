"""The experiment file: base, overrides, what is written is what is read, and errors that name the right thing."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from detector.config.augment import PasteConfig
from detector.config.data import ShortLong
from detector.config.file import dump, is_override, load_config
from detector.config.help import json_schema, reference
from detector.config.schema import Config
from detector.utils.errors import InputError
from detector.utils.untrusted.yaml import read_yaml


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "my.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_base_overrides_and_default_output_dir(write):
    write("data: {dataset: a.yaml, image_size: 320}\ntrain: {epochs: 3, lr: 0.1}", "base.yaml")
    config = load_config(write("base: base.yaml\ntrain: {epochs: 5}"), ["train.lr=1e-3", "loss.alpha=null"])
    assert (config.data.image_size, config.train.epochs, config.train.lr, config.loss.alpha) == (320, 5, 1e-3, None)
    assert config.output_dir == "runs/my"


def test_a_run_directory_stands_for_its_config(write, tmp_path):
    run = tmp_path / "runs: moved"
    run.mkdir()
    with pytest.raises(InputError, match="runs: moved: a folder without config.yaml"):
        load_config(run)
    (run / "config.yaml").write_text("data: {dataset: a.yaml}\noutput_dir: runs/where/it/was\n")
    config = load_config(run, ["train.epochs=3"])
    assert (config.run_directory, config.train.epochs) == (run, 3)
    assert load_config(run, ["output_dir=other"]).output_dir == "other"


def test_a_class_map_without_weights(write):
    with pytest.raises(InputError, match="class_map names classes of model.weights, and model.weights is null"):
        load_config(write("data: {dataset: a.yaml}\nmodel: {class_map: {a: b}}"))


def test_a_colon_without_its_space(write):
    with pytest.raises(InputError, match="a space follows the colon"):
        load_config(write("data: {dataset: a.yaml}"), ["train.unfreeze={backbone.layer3:2}"])


def test_one_frozen_part_needs_no_list(write):
    path = write("data: {dataset: a.yaml}")
    assert load_config(path, ["train.freeze=backbone"]).train.freeze == ["backbone"]
    assert load_config(path).train.freeze == "auto"


def test_image_size_replaces_a_number_by_sides_and_back(write):
    path = write("data: {dataset: a.yaml, image_size: 320}")
    assert load_config(path, ["data.image_size={short: 240, long: 320}"]).data.image_size.long == 320
    path = write("data: {dataset: a.yaml, image_size: {short: 240, long: 320}}")
    assert load_config(path, ["data.image_size=64"]).data.image_size == 64
    size = load_config(path, ["data.image_size.short=[160, 240]"]).data.image_size
    assert size == ShortLong(short=[160, 240], long=320)


def test_many_bases_and_a_base_that_is_none(write):
    write("data: {dataset: a.yaml}", "0.yaml")
    for number in range(1, 1100):  # more than Python calls within calls
        write(f"base: {number - 1}.yaml\nseed: {number}", f"{number}.yaml")
    assert load_config(write("base: 1099.yaml")).seed == 1099
    with pytest.raises(InputError, match=r"none\.yaml: no such base of .*my\.yaml"):
        load_config(write("base: none.yaml"))
    with pytest.raises(InputError, match="base: must be the name of one file, got ''"):
        load_config(write("base: ''"))


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("nets/quikstart.yaml", "no such config file; did you mean 'configs/quickstart.yaml'?"),
        ("quickstart.yaml", "did you mean 'configs/quickstart.yaml'?"),
        ("mien.yaml", "did you mean 'mine.yaml'?"),
        ("my nets/x.yaml", "there is: configs/quickstart.yaml; python tools/doctor.py DATASET --write-config 'my nets"),
    ],
)
def test_a_missing_config_is_told_where_there_are_some(tmp_path, monkeypatch, missing, said):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    for name in ("mine.yaml", "configs/quickstart.yaml"):
        Path(name).touch()
    with pytest.raises(InputError) as caught:
        load_config(missing)
    assert said in str(caught.value)
    Path("configs/quickstart.yaml").unlink()
    with pytest.raises(InputError, match=r"no such config file; python tools/doctor.py .* writes one for your data$"):
        load_config("nets/x.yaml")


def test_dump_is_read_back_to_the_same(write, tmp_path):
    path = write(
        "data: {dataset: a.yaml}\naugment: {transforms: [{name: HorizontalFlip, p: 0.5}]}\ntrain: {milestones: [0.5]}"
    )
    config = load_config(path)
    assert load_config(write(dump(config), "resolved.yaml")) == config


def test_reference_is_a_valid_config_with_every_default(write):
    assert load_config(write(reference({})), ["output_dir=null"]) == load_config(
        write("data: {dataset: datasets/shapes.yaml}")
    )
    assert all(
        line.isspace() or not line or ":" in line or line.lstrip()[0] == "#" for line in reference({}).split("\n")
    )


def test_every_field_of_the_schema_is_described():
    def fields(node):
        for definition in [node, *node.get("$defs", {}).values()]:
            yield from definition.get("properties", {}).items()

    schema = json.loads(json.dumps(Config.model_json_schema()))
    sections = {
        "data",
        "augment",
        "model",
        "loss",
        "train",
        "eval",
        "backbone",
        "neck",
        "attention",
        "head",
        "anchors",
        "postprocess",
        "assigner",
    }
    undescribed = [name for name, field in fields(schema) if "description" not in field and name not in sections]
    assert not undescribed


@pytest.mark.parametrize(
    "text, override, expected",
    [
        ("{}", [], "`data` is required"),
        ("data: {}", [], "`data.dataset` is required"),
        ("data: {dataset: a}\ntrian: {}", [], "unknown key `trian`; did you mean `train`?"),
        ("data: {dataset: a}", ["train.epohs=1"], "unknown key `train.epohs`; did you mean `epochs`?"),
        ("data: {dataset: a}", ["model.backbone.nam=x"], "unknown key `model.backbone.nam`; did you mean `name`?"),
        ("data: {dataset: a}", ["loss.zzz=1"], "unknown key `loss.zzz`; valid here: alpha, defer_alpha"),
        ("data: {dataset: a}", ["train.epochs=three"], "`train.epochs`: input should be a valid integer, got 'three'"),
        ("data: {dataset: a}", ["train.epochs=0"], "`train.epochs`: input should be greater than or equal to 1, got 0"),
        ("data: {dataset: a, augment: light}", [], "unknown key `data.augment`; did you mean `augment` (transforms, "),
        ("data: {dataset: a}", ["data.image_size=big"], "`data.image_size`"),
        ("data: {dataset: a}", ["data.image_size={short: 9, long: 5}"], "long (5) is smaller than short (9)"),
        ("data: {dataset: a}", ["data.image_size={short: [5, 9], long: 8}"], "long (8) is smaller than short (9)"),
        (
            "data: {dataset: a}",
            ["data.image_size={short: [9, 5], long: 9}"],
            "short ([9, 5]) must be [least, greatest]",
        ),
        (
            "data: {dataset: a}",
            ["data.image_size={short: [9], long: 9}"],
            "`data.image_size.short`: a list is [least, greatest], any side between is drawn; got [9]",
        ),
        (
            "data: {dataset: a}",
            ["data.image_size={short: [640, 672, 704], long: 1333}"],
            "`data.image_size.short`: a list is [least, greatest], any side between is drawn; got [640, 672, 704]",
        ),
        (
            "data: {dataset: a}",
            ["data.image_size=[640, 800]"],
            "`data.image_size`: a number, or a range of short sides as {short: [640, 800], long: ...}; got [640, 800]",
        ),
        (
            "data: {dataset: a}",
            ["loss.assigner=atss"],
            "`loss.assigner` is a section; write `loss.assigner.name=atss`, in a file `assigner: {name: atss}`",
        ),
        ("data: {dataset: a}\nmodel: {neck: pafpn}", [], "write `model.neck.name=pafpn`, in a file `neck: {name: "),
        ("data: {dataset: a}", ["model.attention=light"], "write `model.attention.name=light`, in a file `attention: "),
        (
            "data: {dataset: a}",
            ["loss=focal"],
            "`loss`: input should be a valid dictionary or instance of LossConfig, got 'focal'",
        ),
        ("data: {dataset: a}", ["loss.assigner.negative_iou=0.9"], "negative_iou (0.9) is above positive_iou (0.5)"),
        ("data: {dataset: a}", ["train.epochs"], "an override reads dotted.path=value"),
        ("data: {dataset: a}", ["train.lr=[1"], "not a YAML value"),
        ("data: [unclosed", [], "not valid YAML"),
        ("data: {dataset: a}\nseed: 1\nseed: 2", [], "key `seed` stands twice, again in line 3"),
        ("data: {dataset: a}", ["output_dir=2024-13-45"], "not a YAML value"),
        ("data: {dataset: a}", ["train.lr=.inf"], "`train.lr`: input should be a finite number"),
        ("data: {dataset: a}", ["data.image_size={short: 5, lnog: 9}"], "unknown key `data.image_size.lnog`"),
        (
            "data: {dataset: a}",
            ["augment.transforms=[HorizontalFlip]"],
            "`augment.transforms.0`: input should be a valid dict",
        ),
        ("just text", [], "a config file has `key: value` lines, this is str"),
        ("base: nowhere.yaml", [], "nowhere.yaml: no such base of"),
    ],
)
def test_errors_name_the_file_the_path_and_the_right_thing(write, text, override, expected):
    with pytest.raises(InputError) as problem:
        load_config(write(text), override)
    assert expected in str(problem.value)
    assert "\n" not in str(problem.value)
    assert ".yaml" in str(problem.value) or override


def test_a_base_may_have_a_base(write):
    write("data: {dataset: a}\ntrain: {epochs: 3, lr: 0.1}", "first.yaml")
    write("base: first.yaml\ntrain: {epochs: 4, patience: 2}", "second.yaml")
    settings = load_config(write("base: second.yaml\ntrain: {patience: 1}")).train
    assert (settings.lr, settings.epochs, settings.patience) == (0.1, 4, 1)


def test_bases_in_a_circle(write):
    write("base: my.yaml", "first.yaml")
    with pytest.raises(
        InputError, match=r"my.yaml: `base:` leads in a circle: \S*my.yaml → \S*first.yaml → \S*my.yaml$"
    ):
        load_config(write("base: first.yaml"))


def test_a_config_never_changes_but_copies_do(write):
    config = load_config(write("data: {dataset: a}\nloss: {gamma: 1.5}"))
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 0.1
    other = config.changed({"train.lr": 0.1, "augment.paste": PasteConfig(flip=False)})
    assert (other.train.lr, other.loss.gamma, config.train.lr) == (0.1, 1.5, None)
    assert other.augment.paste == PasteConfig(flip=False)
    assert other.loss.model_fields_set == {"gamma"} and "lr" in other.train.model_fields_set
    with pytest.raises(ValidationError):
        config.changed({"train.lr": -1})


@pytest.mark.parametrize(
    "argument, expected",
    [("train.lr=1", True), ("seed=3", True), ("cam.1=a.jpg", False), ("a=b.jpg", False), ("a.jpg", False)],
)
def test_what_is_an_override_among_file_names(argument, expected):
    assert is_override(argument) == expected


def test_the_reference_and_the_schema_have_the_names_of_choices():
    choices = {"loss.box": ["giou", "ciou"], "augment.transforms": ["light"]}
    assert "One of: giou, ciou." in reference(choices)
    schema = json_schema(choices)
    assert "base" in schema["properties"] and "required" not in schema  # a file with a base leaves out what that has
    properties = {name: section["properties"] for name, section in schema["$defs"].items()}
    assert properties["LossConfig"]["box"]["enum"] == ["giou", "ciou"]
    assert properties["AugmentConfig"]["transforms"]["anyOf"][0]["enum"] == ["light"]


def test_missing_config_names_the_nearest_file(write, tmp_path):
    write("data: {dataset: a}", "quickstart.yaml")
    with pytest.raises(InputError, match=r"did you mean .*quickstart\.yaml"):
        load_config(tmp_path / "quikstart.yaml")


def test_numbers_in_scientific_notation_are_numbers():
    assert read_yaml("[1e-3, -2E5, 1.5e+2, .5e1]") == [0.001, -200000.0, 150.0, 5.0]
    assert read_yaml("[1e, e3, 12ab]") == ["1e", "e3", "12ab"]


def test_dump_is_plain_yaml(write):
    assert isinstance(yaml.safe_load(dump(load_config(write("data: {dataset: a}")))), dict)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["train.epochs=16"], 14),
        (["train.epochs=12"], 10),
        (["train.epochs=10"], 9),
        (["train.epochs=5"], 4),  # the closed part is rounded up
        (["train.epochs=1"], 1),  # but leaves one epoch
        (["train.epochs=2", "augment.close=0.9"], 1),
        (["train.epochs=1", "augment.close=1"], 0),
        (["train.epochs=300", "augment.close=0.05"], 285),  # YOLOX closes them for the last 15 of 300
        (["train.epochs=12", "augment.close=0"], 12),
        (["train.epochs=12", "augment.close=1"], 0),
        (["train.epochs=12", "augment.mosaic=0"], 0),
        (["train.epochs=12", "augment.mosaic=0", "augment.mixup=0.1"], 10),
    ],
)
def test_epochs_with_mosaic_and_mixup(write, settings, expected):
    config = load_config(write("data: {dataset: a}\naugment: {mosaic: 0.5}"), settings)
    assert config.mixed_epochs == expected
