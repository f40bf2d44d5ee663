"""Weights into a model: what is loaded, remapped, initialised and left unused, tensor by tensor and row by row."""

import re
from collections import Counter

import pytest
import torch
import torchvision
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from detector.config.model import ModelConfig
from detector.models.build import build_model
from detector.models.head import prior_bias
from detector.models.weights.layouts import CLS_LOGITS, Weights, recognised
from detector.models.weights.torchvision import COCO_IDS
from detector.models.weights.transfer import load_whole, transfer
from detector.utils.errors import InputError

ANCHORS = 9
CLS, REG = "head.classification_head", "head.regression_head"
BLOOD = ["RBC", "WBC", "Platelets"]
RESNET50 = {
    "backbone.stem": 5,
    "backbone.layer1": 50,
    "backbone.layer2": 65,
    "backbone.layer3": 95,
    "backbone.layer4": 50,
}
RULE = {"anchors": {"rule": "torchvision"}}  # as checkpoint.read_detector finds it for torchvision's layout
V1 = {"weights": "w.pth", "backbone": {"weights": None}, **RULE}
V2 = {
    "weights": "w.pth",
    "backbone": {"weights": None, "norm": "batch"},
    "neck": {"extra_levels": "c5"},
    "head": {"norm": "group"},
    **RULE,
}


def ours(model, names):
    """Its weights, as from a checkpoint."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Weights(
        "old.pt", "a checkpoint of this project", state, len(names), names, {n: i for i, n in enumerate(names)}
    )


def logits(state):
    """Weight and bias together, (A, K, numbers of a row)."""
    weight, bias = (state[f"{CLS_LOGITS}.{kind}"] for kind in ("weight", "bias"))
    rows = torch.cat([weight.flatten(1), bias[:, None]], dim=1)
    return rows.view(ANCHORS, -1, rows.shape[1])


def fates(found):
    return {part: dict(+counts) for part, counts in found.tensors.items()}


def test_rows_by_name_for_every_anchor(small_model):
    torch.manual_seed(0)
    old_names, names = ["dog", "Red Cell", "cat", "bird"], ["gnome", "CAT", "RBC", "dog"]
    weights = ours(small_model(4), old_names)
    weights.state[f"{CLS_LOGITS}.bias"].normal_()
    model = small_model(4, head={"width": 16, "depth": 1, "prior": 0.02})
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    found = transfer(model, weights, names, {"RBC": "Red Cell"})
    assert list(found.kept.items()) == [("CAT", "cat"), ("RBC", "Red Cell"), ("dog", "dog")]
    assert (found.new, found.dropped, found.warnings) == (["gnome"], ["bird"], [])

    state = model.state_dict()
    old, new = logits(weights.state), logits(state)
    assert torch.equal(new[:, 1], old[:, 2]) and torch.equal(new[:, 2], old[:, 1]) and torch.equal(new[:, 3], old[:, 0])
    assert torch.equal(new[:, 0], logits(initial)[:, 0])
    torch.testing.assert_close(new[:, 0, -1], torch.full((ANCHORS,), prior_bias(0.02)))
    others = [name for name in state if not name.startswith(CLS_LOGITS)]
    assert {"head.classification_head.conv.0.0.weight", "head.regression_head.bbox_reg.bias"} <= set(others)
    assert all(torch.equal(state[name], weights.state[name]) for name in others)


def test_equal_classes_give_equal_outputs(small_model):
    old = small_model(3).eval()
    old.body.bn1.num_batches_tracked += 7
    model = small_model(3).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert not torch.equal(model(image)["logits"], old(image)["logits"])
    found = transfer(model, ours(old, BLOOD), BLOOD)
    for key in ("logits", "deltas", "anchors"):
        assert torch.equal(model(image)[key], old(image)[key])
    assert all(set(counts) == {"loaded"} for counts in fates(found).values())
    assert all(torch.equal(tensor, old.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_fewer_and_more_classes(small_model):
    weights = ours(small_model(3), ["a", "b", "c"])
    assert transfer(small_model(1), weights, ["b"]).dropped == ["a", "c"]
    model = small_model(5)
    assert transfer(model, weights, ["x", "c", "a", "y", "b"]).new == ["x", "y"]
    assert torch.equal(logits(model.state_dict())[:, [2, 4, 1]], logits(weights.state))


@pytest.fixture(scope="module")
def published_states(with_old_names):
    """What torchvision publishes but for the numbers: v1 in its old names and in today's, v2."""
    v1 = retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    v2 = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
    return {"v1": v1, "v1 old": with_old_names(v1), "v2": v2}


@pytest.mark.parametrize("version", ["v1", "v1 old", "v2"])
def test_published_weights_for_coco_and_for_other_classes(version, published_states):
    state = published_states[version]
    weights = recognised(state, "w.pth")
    coco = list(COCO_IDS)
    config, tower = (V2, 12) if version == "v2" else (V1, 8)
    loaded = RESNET50 | {"neck": 16, f"{CLS}.conv": tower, f"{REG}.conv": tower, f"{REG}.bbox_reg": 2}
    expected = {part: {"loaded": count} for part, count in loaded.items()}

    model = build_model(ModelConfig.model_validate(config), 80)
    found = transfer(model, weights, coco)
    assert fates(found) == expected | {f"{CLS}.cls_logits": {"remapped": 2}}
    assert list(found.kept) == coco and found.new == found.dropped == found.warnings == []
    assert torch.equal(logits(model.state_dict()), logits(state)[:, list(COCO_IDS.values())])

    model = build_model(ModelConfig.model_validate(config), 3)
    first = logits(model.state_dict()).clone()
    found = transfer(model, weights, BLOOD)
    assert fates(found) == expected | {f"{CLS}.cls_logits": {"initialised": 2, "left unused": 2}}
    assert (found.kept, found.new, found.dropped) == ({}, BLOOD, coco)
    assert torch.equal(logits(model.state_dict()), first)


def test_the_lines(small_model):
    weights = ours(small_model(14), ["red cell", *(f"class {i}" for i in range(12)), "wbc"])
    model = small_model(3, neck={"channels": 24})
    found = transfer(model, weights, BLOOD, {"RBC": "red cell"})
    assert found.lines() == [
        "model.weights old.pt: a checkpoint of this project, 14 classes",
        "                                              loaded     remapped  initialised  left unused",
        "  backbone.stem                                    5            -            -            -",
        "  backbone.layer1                                 20            -            -            -",
        "  backbone.layer2                                 25            -            -            -",
        "  backbone.layer3                                 25            -            -            -",
        "  backbone.layer4                                 25            -            -            -",
        "  neck                                             -            -           16           16",
        "  head.classification_head.conv                    1            -            1            1",
        "  head.classification_head.cls_logits              -            2            -            -",
        "  head.regression_head.conv                        1            -            1            1",
        "  head.regression_head.bbox_reg                    2            -            -            -",
        "  classes: 2 kept (RBC ← red cell, WBC ← wbc); 1 new, from the prior (Platelets); "
        "12 dropped (class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, class 8, class 9 and 2 "
        "more)",
        "warning: parts beyond the backbone do not fit and have to be learnt anew: "
        "backbone.fpn.inner_blocks.0.0.weight (the model's: (24, 128, 1, 1), the file's: (16, 128, 1, 1)); "
        "backbone.fpn.inner_blocks.0.0.bias (the model's: "
        "(24,), the file's: (16,)); backbone.fpn.inner_blocks.1.0.weight (the model's: (24, 256, 1, 1), the file's: "
        "(16, 256, 1, 1)); ...",
    ]


@pytest.mark.parametrize(
    ("changes", "initialised"),
    [
        ({"anchors": {"scales": 2}}, {f"{CLS}.cls_logits": 2, f"{REG}.bbox_reg": 2}),
        ({"head": {"width": 24, "depth": 1}}, {f"{CLS}.cls_logits": 2, f"{REG}.bbox_reg": 1, f"{CLS}.conv": 2}),
        ({"head": {"width": 16, "depth": 1, "norm": "group"}}, {f"{CLS}.conv": 2, f"{REG}.conv": 2}),
        ({"head": {"width": 16, "depth": 3}}, {f"{CLS}.conv": 4, f"{REG}.conv": 4}),
    ],
)
def test_what_has_another_shape_stays_as_initialised(changes, initialised, small_model):
    weights = ours(small_model(2), ["a", "b"])
    model = small_model(2, **changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = transfer(model, weights, ["a", "b"])
    for part, count in initialised.items():
        assert found.tensors[part]["initialised"] == count
    assert (f"{CLS}.cls_logits" in initialised) == (found.kept == {}) == ("NO class is kept" in "".join(found.lines()))
    assert found.new == ([] if found.kept else ["a", "b"]) and found.dropped == found.new
    for name, tensor in model.state_dict().items():
        fits = name in weights.state and tensor.shape == weights.state[name].shape
        fits &= bool(found.kept) or not name.startswith(CLS_LOGITS)
        assert torch.equal(tensor, weights.state[name] if fits else before[name])


def test_other_anchors_are_warned_of(small_model):
    anchors = {"base_size": 16, "scales": 3, "ratios": [0.5, 1.0, 2.0]}
    weights = ours(small_model(2), ["a", "b"])._replace(settings={"anchors": anchors})
    assert transfer(small_model(2, anchors=anchors), weights, ["a", "b"]).warnings == []
    (warning,) = transfer(small_model(2), weights, ["a", "b"]).warnings
    assert "it was trained with anchors {'base_size': 16" in warning


def test_the_rule_of_the_anchors_is_compared(small_model, caplog):
    for rule, other in (("torchvision", "exact"), ("exact", "torchvision")):
        weights = ours(small_model(2), ["a", "b"])._replace(anchor_rule=rule)
        assert transfer(small_model(2, anchors={"rule": rule}), weights, ["a", "b"]).warnings == []
        (said,) = transfer(small_model(2, anchors={"rule": other}), weights, ["a", "b"]).warnings
        assert said.startswith(f"it was trained with model.anchors.rule {rule}, not {other}: boxes are shifted, ")
        assert "learnt" not in said
        caplog.clear()
        load_whole(small_model(2, anchors={"rule": rule}), weights, ["a", "b"])
        assert "model.anchors.rule" not in caplog.text
        load_whole(small_model(2, anchors={"rule": other}), weights, ["a", "b"])
        assert said in caplog.text
    backbone = recognised(torchvision.models.resnet18(weights=None).state_dict(), "r18.pth")
    assert transfer(small_model(2, **RULE), backbone, ["a", "b"]).warnings == []


def test_from_p3_to_p2_and_back(small_model):
    weights = ours(small_model(2), ["a", "b"])
    finer = small_model(2, neck={"channels": 16, "finest": "p2"})
    found = transfer(finer, weights, ["a", "b"])
    p2 = {
        f"backbone.fpn.{blocks}.3.0.{kind}"
        for blocks in ("inner_blocks", "layer_blocks")
        for kind in ("weight", "bias")
    }
    assert found.fresh == p2 and fates(found)["neck"] == {"loaded": 16, "initialised": 4}
    (warning,) = found.warnings
    names = ("inner_blocks.3.0.weight", "inner_blocks.3.0.bias", "layer_blocks.3.0.weight")
    new = ", ".join(f"backbone.fpn.{name}" for name in names)
    assert warning == f"the weights have none of {new} and 1 more: these start as initialised"
    found = transfer(small_model(2), ours(finer, ["a", "b"]), ["a", "b"])
    assert found.warnings == [f"the model has none of {new} and 1 more: these are left unused"]
    assert found.fresh == set() and fates(found)["neck"] == {"loaded": 16, "left unused": 4}


def test_class_names_that_are_unknown(small_model):
    weights = recognised(small_model(2).state_dict(), "own.pth")
    model = small_model(2, **RULE)
    found = transfer(model, weights, ["a", "b"])
    assert found.kept == {"a": "row 0", "b": "row 1"} and fates(found)[f"{CLS}.cls_logits"] == {"loaded": 2}
    assert torch.equal(logits(model.state_dict()), logits(weights.state))
    assert found.warnings == ["its class names are unknown, taken for the dataset's 2 in order"]

    found = transfer(small_model(3, **RULE), weights, BLOOD)
    assert found.kept == {} and found.new == BLOOD
    assert fates(found)[f"{CLS}.cls_logits"] == {"initialised": 2, "left unused": 2}
    assert fates(found)[f"{REG}.conv"] == {"loaded": 2}
    assert found.lines()[-1] == (
        "warning: its class names are unknown, and it has 2 classes where the dataset has 3; "
        "NO class is kept, all start from the prior"
    )
    with pytest.raises(InputError, match=r"own\.pth has no class names"):
        transfer(small_model(2), weights, ["a", "b"], {"a": "x"})


def test_an_imagenet_backbone(small_model):
    network = torchvision.models.resnet18(weights=None)
    weights = recognised(network.state_dict(), "r18.pth")
    model = small_model(3)
    found = transfer(model, weights, BLOOD)
    assert fates(found) == {
        "backbone.stem": {"loaded": 5},
        "backbone.layer1": {"loaded": 20},
        "backbone.layer2": {"loaded": 25},
        "backbone.layer3": {"loaded": 25},
        "backbone.layer4": {"loaded": 25},
        "neck": {"initialised": 16},
        f"{CLS}.conv": {"initialised": 2},
        f"{CLS}.cls_logits": {"initialised": 2},
        f"{REG}.conv": {"initialised": 2},
        f"{REG}.bbox_reg": {"initialised": 2},
        "classifier": {"left unused": 2},
    }
    assert (found.kept, found.new, found.dropped, found.warnings) == ({}, BLOOD, [], [])
    body = model.body.state_dict()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in body.items())


def test_foreign_tensors_are_counted(small_model):
    weights = ours(small_model(2), ["a", "b"])
    weights.state.update({"rpn.weight": torch.zeros(1), "backbone.body.extra": torch.zeros(1)})
    found = transfer(small_model(2), weights, ["a", "b"])
    assert found.tensors["other"] == found.tensors["backbone, other"] == Counter({"left unused": 1})


def test_a_whole_detector_for_some_of_its_classes(small_model):
    weights = ours(small_model(3), ["a", "b", "c"])
    model = small_model(2)
    load_whole(model, weights, ["c", "a"])
    assert torch.equal(logits(model.state_dict()), logits(weights.state)[:, [2, 0]])
    with pytest.raises(InputError, match=r"old\.pt: it does not know all of the classes"):
        load_whole(model, weights, ["c", "d"])


def test_a_whole_detector_of_unknown_names(small_model, caplog):
    weights = recognised(small_model(2).state_dict(), "own.pth")
    model = small_model(2)
    load_whole(model, weights, ["a", "b"])
    assert all(torch.equal(tensor, weights.state[name]) for name, tensor in model.state_dict().items())
    assert "own.pth: its class names are unknown, taken for the dataset's 2 in order" in caplog.text
    with pytest.raises(InputError, match=r"own\.pth: its class names are unknown, and it has 2 classes where.* 3$"):
        load_whole(small_model(3), weights, BLOOD)


@pytest.mark.parametrize(
    "changes", [{"neck": {"channels": 24}}, {"anchors": {"scales": 1}}, {"head": {"norm": "group"}}]
)
def test_a_whole_detector_has_no_initialised_part(changes, small_model):
    model = small_model(2, **changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=r"old\.pt: another architecture.*\(the model's: "):
        load_whole(model, ours(small_model(2), ["a", "b"]), ["a", "b"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_pyramid_of_other_channels_is_warned_of_with_what_the_checkpoint_had(small_model):
    anchors = {"base_size": 32, "scales": 3, "ratios": [0.5, 1.0, 2.0]}
    settings = {"neck": {"channels": 16}, "head": {"width": 16}, "anchors": anchors}
    weights = ours(small_model(2), ["a", "b"])._replace(settings=settings)
    (warning,) = transfer(small_model(2, neck={"channels": 24}), weights, ["a", "b"]).warnings
    assert warning.endswith("; it was trained with model.neck {'channels': 16}, model.head {'width': 16}")


def test_what_nothing_was_loaded_into(small_model):
    weights = ours(small_model(2), ["a", "b"])
    assert transfer(small_model(2), weights, ["b", "a"]).fresh == set()
    assert transfer(small_model(2), weights, ["b", "c"]).fresh == {f"{CLS_LOGITS}.weight", f"{CLS_LOGITS}.bias"}
    fresh = transfer(small_model(2, neck={"channels": 24}), weights, ["a", "b"]).fresh
    assert "backbone.fpn.inner_blocks.0.0.weight" in fresh and not any("body" in name for name in fresh)


def test_numbers_that_are_not_finite_are_refused(small_model):
    weights = ours(small_model(2), ["a", "b"])
    weights.state["backbone.body.layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(
        InputError, match=r"old\.pt: backbone\.body\.layer2\.0\.conv1\.weight holds infinite numbers or NaN"
    ):
        transfer(small_model(2), weights, ["a", "b"])


@torch.no_grad()
def test_the_weights_of_an_fpn_fit_a_path_aggregation_network(small_model):
    old, model = small_model(2).eval(), small_model(2, neck={"name": "pafpn", "channels": 16}).eval()
    found = transfer(model, ours(old, ["a", "b"]), ["a", "b"])
    assert +found.tensors["neck"] == {"loaded": 16, "initialised": 8}
    assert all(re.search(r"fpn\.extra_blocks\.(downsample|fuse)\.[01]\.", name) for name in found.fresh)
    (warning,) = found.warnings
    assert warning.startswith("the weights have none of backbone.fpn.extra_blocks.downsample.0.weight, ")
    assert warning.endswith(" and 5 more: these start as initialised")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(model(images)["logits"], old(images)["logits"])
