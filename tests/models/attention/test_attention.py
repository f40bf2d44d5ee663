"""Attention as a part of the detector: chosen, frozen, counted, and met or missed by weights from elsewhere."""

import copy
import re

import pytest
import torch

from detector.config.model import AttentionConfig, ModelConfig
from detector.models import freeze
from detector.models.attention import ATTENTIONS, build_attention
from detector.models.build import build_model
from detector.models.weights.layouts import Weights
from detector.models.weights.transfer import load_whole, transfer
from detector.utils.errors import InputError

CLASSES = ["a", "b"]


def model(**changes):
    """The same seed, whatever the attention."""
    settings = {
        "backbone": {"name": "resnet18", "weights": None, "norm": "batch"},
        "neck": {"channels": 16},
        "head": {"width": 16, "depth": 1},
    }
    torch.manual_seed(0)
    return build_model(ModelConfig.model_validate({**settings, **changes}), len(CLASSES)).eval()


def weights_of(detector, attention: dict) -> Weights:
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    ids = {name: i for i, name in enumerate(CLASSES)}
    anchors = {"base_size": 32, "scales": 3, "ratios": [0.5, 1.0, 2.0]}
    settings = {"neck": {}, "head": {}, "anchors": anchors, "attention": attention}
    return Weights("old.pt", "a checkpoint of this project", state, len(CLASSES), CLASSES, ids, settings)


@torch.no_grad()
def outputs(detector) -> torch.Tensor:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = detector(images)
    return torch.cat([found["logits"], found["deltas"]], dim=2)


def test_none_is_the_default_and_has_no_parameters():
    assert AttentionConfig().name == "none"
    assert not any(name.startswith("attention") for name in model().state_dict())


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name != "none"])
def test_the_rest_starts_as_without_it(name):
    """So that two trainings of a seed differ by the attention alone."""
    plain, attending = model().state_dict(), model(attention={"name": name, "blocks": 2}).state_dict()
    new = attending.keys() - plain.keys()
    assert {parameter.split(".")[0] for parameter in new} == {"attention"}
    assert {parameter.split(".")[1] for parameter in new} == {"0", "1"}  # the blocks
    assert all(torch.equal(attending[parameter], tensor) for parameter, tensor in plain.items())


@pytest.mark.parametrize("finest", ["p3", "p2"])
def test_only_dyhead_changes_the_outputs_at_the_start(finest):
    neck = {"channels": 16, "finest": finest}
    plain = outputs(model(neck=neck))
    assert torch.equal(outputs(model(neck=neck, attention={"name": "light", "blocks": 2})), plain)
    changed = outputs(model(neck=neck, attention={"name": "dyhead"}))
    assert changed.shape == plain.shape and not torch.allclose(changed, plain)


def test_another_name(monkeypatch):
    with pytest.raises(InputError, match="model.attention.name: no 'dyhed'; did you mean 'dyhead'"):
        build_attention(8, AttentionConfig(name="dyhed"))
    monkeypatch.setitem(ATTENTIONS, "own", lambda channels, config: torch.nn.Linear(channels, config.blocks))
    assert build_attention(8, AttentionConfig(name="own", blocks=3)).weight.shape == (3, 8)


def test_it_is_a_part_that_can_be_frozen():
    attending = model(attention={"name": "light"})
    freeze.set_frozen(attending, freeze.resolve(attending, ["attention"], {"attention": 2}), {"attention": 2}, epoch=1)
    still = {name.split(".")[0] for name, parameter in attending.named_parameters() if not parameter.requires_grad}
    assert still == {"attention"}
    freeze.set_frozen(attending, ["attention"], {"attention": 2}, epoch=2)
    assert all(parameter.requires_grad for parameter in attending.parameters())
    with pytest.raises(InputError, match="train.freeze: no part of this detector is 'attention'"):
        freeze.resolve(model(), ["attention"], {})


def test_weights_without_attention_fit_a_detector_with_it():
    old = model(head={"width": 16, "depth": 1, "prior": 0.3})
    attending = model(attention={"name": "light"})
    found = transfer(attending, weights_of(old, {"name": "none", "blocks": 1}), CLASSES)
    assert +found.tensors["attention"] == {"initialised": 6}
    assert found.fresh == {name for name in attending.state_dict() if name.startswith("attention.")}
    assert found.warnings == []  # it starts as the identity
    assert torch.equal(outputs(attending), outputs(old))
    found = transfer(model(attention={"name": "dyhead"}), weights_of(old, {"name": "none", "blocks": 1}), CLASSES)
    assert found.warnings == ["its head was trained without attention and has to adapt to it"]


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name != "none"])
def test_a_block_says_whether_it_starts_as_the_identity(name):
    attention = build_attention(16, AttentionConfig(name=name))
    levels = [torch.randn(1, 16, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 4, 2)]
    same = all(torch.equal(out, level) for out, level in zip(attention(levels), levels, strict=True))
    assert [block.starts_as_identity for block in attention] == [same]


def test_weights_with_attention_in_a_detector_without_it():
    attending, plain = model(attention={"name": "dyhead"}), model()
    found = transfer(plain, weights_of(attending, {"name": "dyhead", "blocks": 1}), CLASSES)
    assert +found.tensors["attention"] == {"left unused": len(attending.attention.state_dict())}
    assert found.fresh == set()
    assert found.warnings == [
        "its attention is left unused, and its head has to adapt to features without it; it was trained with "
        "model.attention {'name': 'dyhead', 'blocks': 1}"
    ]


def test_weights_with_another_attention_and_with_the_same():
    weights = weights_of(model(attention={"name": "light"}), {"name": "light", "blocks": 1})
    had = "; it was trained with model.attention {'name': 'light', 'blocks': 1}"
    (warning,) = transfer(model(attention={"name": "light", "blocks": 2}), weights, CLASSES).warnings
    second = "attention.1.context.weight, attention.1.context.bias, attention.1.around.weight and 3 more"
    assert warning == f"the weights have none of {second}: these start as initialised{had}"
    (warning,) = transfer(model(attention={"name": "dyhead"}), weights, CLASSES).warnings
    assert warning.startswith("its attention does not fit and has to be learnt anew: attention.0.")
    two = weights_of(model(attention={"name": "light", "blocks": 2}), {"name": "light", "blocks": 2})
    (warning,) = transfer(model(attention={"name": "light"}), two, CLASSES).warnings
    assert warning.startswith(f"the model has none of {second}: these are left unused; ")
    weights.state["attention.0.space.bias"].fill_(0.5)
    same = model(attention={"name": "light"})
    assert transfer(same, weights, CLASSES).warnings == []
    assert same.attention[0].space.bias.eq(0.5).all()


def test_a_whole_detector_brings_its_attention():
    attending = model(attention={"name": "dyhead"})
    copied = copy.deepcopy(attending)
    with torch.no_grad():
        for parameter in copied.attention.parameters():
            parameter.zero_()
    weights = weights_of(attending, {"name": "dyhead", "blocks": 1})
    load_whole(copied, weights, CLASSES)
    assert torch.equal(outputs(copied), outputs(attending))
    with pytest.raises(InputError, match=re.escape("old.pt: another architecture than the configured one")):
        load_whole(model(), weights, CLASSES)
