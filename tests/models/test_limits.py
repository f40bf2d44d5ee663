"""Settings that are each allowed and together are not, and that honest ones are far from it."""

import itertools
import re

import pytest
import torch

from detector.config.file import validate
from detector.config.schema import Config
from detector.inference.detector import load
from detector.models.build import build_model
from detector.models.limits import check_size, parameters
from detector.models.state_dict import check_holds
from detector.utils.errors import InputError


def config(**sections) -> dict:
    return {"data": {"dataset": "d.yaml"}, **sections}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (config(model={"head": {"depth": 64, "width": 8192}}), "model.anchors together ask for 7.6e+10 parameters; 5e"),
        (
            config(model={"neck": {"channels": 8192}}),
            "model.neck, model.head and model.anchors together ask for 2.5e+09",
        ),
        (config(train={"batch_size": 10**9}), "data.image_size and train.batch_size together ask for 4.1e+14 pixels"),
        (config(eval={"batch_size": 10**6}), "data.image_size and eval.batch_size together ask for 4.1e+11 pixels"),
        (config(train={"batch_size": "auto", "accumulate": 10**9}), "train.accumulate together ask for 4.1e+14 pixels"),
        (
            config(data={"dataset": "d", "image_size": {"short": 1, "long": 10_000}}),
            "eval.batch_size together ask for 8e+08 pixels",
        ),
    ],
)
def test_refused(settings, said):
    with pytest.raises(InputError, match=f"^here: .*{re.escape(said)}"):
        validate(settings, "here")


def test_refused_with_the_classes_of_the_data():
    many = validate(config(model={"anchors": {"scales": 8}, "head": {"width": 1024}}, train={"batch_size": 2}), "here")
    check_size(many, 1000)
    with pytest.raises(InputError, match=r"model.anchors together, for 10000 classes, ask for 2.3e\+09 parameters"):
        check_size(many, 10_000)
    many = validate(config(train={"batch_size": 256}), "here")
    check_size(many, 1000)
    with pytest.raises(
        InputError, match=r"batch_size and model.anchors together, for 10000 classes, ask for 2e\+11 out"
    ):
        check_size(many, 10_000)


def test_large_and_honest():
    """ResNet-101, 256 channels, depth 4, 10,000 classes; and the largest images of the published recipes."""
    large = {"backbone": {"name": "resnet101"}, "anchors": {"scales": 3}}
    check_size(
        validate(config(model=large, data={"dataset": "d", "image_size": {"short": 800, "long": 1333}}), ""), 10_000
    )
    check_size(validate(config(data={"dataset": "d", "image_size": 10_000}, train={"batch_size": 2},
                               eval={"batch_size": 1}), ""), 80)  # fmt: skip
    check_size(validate(config(train={"batch_size": 1024, "accumulate": 16}), ""), 80)


@pytest.mark.parametrize("extra_levels", ["p5", "c5"])
def test_parameters_are_those_of_the_model(extra_levels):
    """But for what depends on the backbone, and a few: never more than there are."""
    for channels, width, depth, classes in itertools.product((64, 256), (32, 256), (0, 1, 4), (1, 500)):
        settings = config(model={"backbone": {"name": "resnet18", "weights": None},
                                 "neck": {"channels": channels, "extra_levels": extra_levels},
                                 "head": {"depth": depth, "width": width}})  # fmt: skip
        settings = Config.model_validate(settings)
        model = build_model(settings.model, classes, pretrained=False)
        head = sum(p.numel() for p in model.head.parameters())
        backbone_side = sum(
            p.numel() for n, p in model.backbone["fpn"].named_parameters() if "inner" in n or "extra_blocks.p6" in n
        )
        pyramid = sum(p.numel() for p in model.backbone["fpn"].parameters()) - backbone_side
        count = parameters(settings.model, classes)
        assert 0.98 * (head + pyramid) < count <= head + pyramid


def test_a_file_that_is_too_small_for_its_settings(tmp_path):
    small = torch.zeros(10)
    with pytest.raises(InputError, match="x: another architecture .* has 11 numbers and more; its tensors have 10 b"):
        check_holds({"a": torch.zeros(10, dtype=torch.int8)}, 11, source="x")
    check_holds({"a": small, "b": torch.zeros(5)}, 60, source="x")
    with pytest.raises(InputError):  # ten views of the same 40 bytes
        check_holds({str(i): small.view(2, 5) for i in range(10)}, 41, source="x")

    large = config(model={"head": {"depth": 60, "width": 600}, "backbone": {"weights": None}})
    contents = {"format": 4, "model": {"a": small}, "config": large, "class_names": ["x"], "category_ids": [1]}
    torch.save(contents, tmp_path / "a.pt")
    with pytest.raises(InputError, match="its tensors have 40 bytes"):
        load(tmp_path / "a.pt", device="cpu")
