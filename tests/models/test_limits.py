"""Settings that are each allowed and together are not, and that honest ones are far from it."""

import re

import pytest
import torch

from detector.config.file import validate
from detector.models import limits
from detector.models.build import build_model, build_without_memory
from detector.models.limits import check_buildable, check_holds, check_size
from detector.utils.errors import InputError


def config(**sections) -> dict:
    return {"data": {"dataset": "d.yaml"}, **sections}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (config(model={"head": {"depth": 64, "width": 8192}}), "model.anchors together ask for 7.6e+10 parameters; 5e"),
        (
            config(model={"neck": {"channels": 8192}}),
            "model.neck, model.attention, model.head and model.anchors together ask for 3.1e+09",
        ),
        (config(train={"batch_size": 10**9}), "data.image_size and train.batch_size together ask for 4.1e+14 pixels"),
        (config(eval={"batch_size": 10**6}), "data.image_size and eval.batch_size together ask for 4.1e+11 pixels"),
        (config(train={"batch_size": "auto", "accumulate": 10**9}), "train.accumulate together ask for 4.1e+14 pixels"),
        (
            config(data={"dataset": "d", "image_size": {"short": 1, "long": 10_000}}),
            "eval.batch_size together ask for 8e+08 pixels",
        ),
        (
            config(data={"dataset": "d", "image_size": {"short": [1, 10_000], "long": 10_000}}),
            "train.batch_size together ask for 1.6e+09 pixels",
        ),
    ],
)
def test_refused(settings, said):
    with pytest.raises(InputError, match=re.escape(said)):
        check_size(validate(settings, "here"), num_classes=1)


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


def test_p2_asks_for_four_times_the_outputs(monkeypatch):
    """As many as the model of 128 x 128 px gives, but for P6 and P7, which are rounded up here."""
    monkeypatch.setattr(limits, "MAX_OUTPUTS", 1.1 * 128**2 / 48 * 9 * 5)
    small = {"data": {"dataset": "d", "image_size": 128}, "train": {"batch_size": 1}, "eval": {"batch_size": 1}}
    check_size(validate(config(**small), "here"), 1)
    with pytest.raises(InputError, match="train.batch_size and model.anchors together ask for 6.1e.04 outputs"):
        check_size(validate(config(**small, model={"neck": {"finest": "p2"}}), "here"), 1)


def test_large_and_honest():
    """ResNet-101, 256 channels, depth 4, 10,000 classes; and the largest images of the published recipes."""
    large = {"backbone": {"name": "resnet101"}, "anchors": {"scales": 3}}
    check_size(
        validate(config(model=large, data={"dataset": "d", "image_size": {"short": 800, "long": 1333}}), ""), 10_000
    )
    check_size(validate(config(data={"dataset": "d", "image_size": 10_000}, train={"batch_size": 2},
                               eval={"batch_size": 1}), ""), 80)  # fmt: skip
    check_size(validate(config(train={"batch_size": 1024, "accumulate": 16}), ""), 80)


@pytest.mark.parametrize("attention", ["none", "light", "dyhead"])
def test_the_count_is_that_of_the_model(attention, monkeypatch):
    """Neck, attention and head, exactly: one parameter more than the limit is refused."""
    small = {"backbone": {"name": "resnet18", "weights": None, "norm": "batch"}, "neck": {"channels": 16},
             "attention": {"name": attention, "blocks": 3},
             "head": {"depth": 1, "width": 24, "norm": "group"}}  # fmt: skip
    settings = validate(config(model=small), "here")
    model = build_model(settings.model, 3, pretrained=False)
    count = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("backbone.body."))
    monkeypatch.setattr(limits, "MAX_PARAMETERS", count)
    check_size(settings, 3)
    monkeypatch.setattr(limits, "MAX_PARAMETERS", count - 1)
    with pytest.raises(InputError, match="model.neck, model.attention, model.head and model.anchors together"):
        check_size(settings, 3)


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_resnet"])
def test_checking_takes_no_memory_and_draws_no_random_numbers(backbone, monkeypatch):
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    model = {"backbone": {"name": backbone}, "neck": {"channels": 8192}, "head": {"depth": 64, "width": 8192}}
    settings = validate(config(model=model, data={"dataset": "d", "image_size": 32}, train={"batch_size": 1}), "here")
    outline = build_without_memory(settings.model, 10_000)
    assert {tensor.device.type for tensor in (*outline.parameters(), *outline.buffers())} == {"meta"}
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=r"for 10000 classes, ask for 8\.\de\+10 parameters"):
        check_size(settings, 10_000)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_that_is_too_small_for_its_settings():
    small = torch.zeros(10)
    with pytest.raises(InputError, match="x: another architecture .* has 11 numbers; its tensors have 10 b"):
        check_holds({"a": torch.zeros(10, dtype=torch.int8)}, 11, source="x")
    check_holds({"a": small, "b": torch.zeros(5)}, 60, source="x")
    with pytest.raises(InputError):  # ten views of the same 40 bytes
        check_holds({str(i): small.view(2, 5) for i in range(10)}, 41, source="x")

    large = validate(config(model={"head": {"depth": 60, "width": 600}, "backbone": {"weights": None}}), "here")
    with pytest.raises(InputError, match="its tensors have 40 bytes"):
        check_buildable(large, 1, {"a": small}, source="x")
    modest = validate(config(model={"backbone": {"name": "resnet18", "weights": None}}), "here")
    check_buildable(modest, 1, build_model(modest.model, 1).state_dict(), source="x")
    with pytest.raises(InputError, match="model.neck, model.attention, model.head and model.anchors together"):
        check_buildable(validate(config(model={"neck": {"channels": 8192}}), "here"), 1, {"a": small}, source="x")
