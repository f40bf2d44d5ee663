import copy

import pytest
import torch

from detector.config.model import ModelConfig
from detector.models.build import build_model, build_postprocess, to_device
from detector.models.norm import FrozenBatchNorm2d
from detector.models.retinanet import outputs_of_image
from detector.utils.errors import InputError


def config(**changes):
    small = {"backbone": {"name": "resnet18", "weights": None}, "neck": {"channels": 32}, "head": {"width": 32}}
    return ModelConfig.model_validate({**small, **changes})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(config(), num_classes=3).eval()


def images(n, height, width):
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_outputs(model):
    outputs = model(images(2, 96, 64))
    levels = [12 * 8 * 9, 6 * 4 * 9, 3 * 2 * 9, 2 * 1 * 9, 1 * 1 * 9]
    assert outputs["anchors_per_level"] == levels and outputs["anchors_per_cell"] == 9
    assert outputs["logits"].shape == (2, sum(levels), 3)
    assert outputs["deltas"].shape == (2, sum(levels), 4)
    assert outputs["anchors"].shape == (sum(levels), 4)


@torch.no_grad()
def test_no_train_or_eval_branch(model):
    training = copy.deepcopy(model).train()
    outputs = training(images(2, 64, 64))
    assert set(outputs) == {"logits", "deltas", "anchors", "anchors_per_level", "anchors_per_cell"}


@torch.no_grad()
def test_an_output_of_the_heads_own_passes_through(model):
    own = copy.deepcopy(model)
    head = own.head.forward
    own.head.forward = lambda features: {**head(features), "quality": torch.zeros(len(features[0]), 7)}
    assert own(images(2, 64, 64))["quality"].shape == (2, 7)


@torch.no_grad()
def test_outputs_of_one_image(model):
    outputs = model(images(3, 64, 96)) | {"quality": torch.arange(3.0)}
    alone = outputs_of_image(outputs, 1)
    assert alone.keys() == outputs.keys()
    assert all(torch.equal(alone[name], outputs[name][1:2]) for name in ("logits", "deltas"))
    assert alone["anchors"] is outputs["anchors"]
    assert all(alone[name] == outputs[name] for name in ("anchors_per_level", "anchors_per_cell"))
    assert alone["quality"].tolist() == [1.0]


@torch.no_grad()
def test_uint8_and_float_images_are_the_same_and_untouched(model):
    given = images(1, 64, 64).float()
    before = given.clone()
    outputs = model(given, [(50, 40)])
    assert torch.equal(given, before)
    torch.testing.assert_close(outputs["logits"], model(images(1, 64, 64), [(50, 40)])["logits"])


@torch.no_grad()
def test_normalised_as_imagenet_with_zero_padding(model):
    given = torch.full((1, 3, 40, 33), 255, dtype=torch.uint8)
    seen = model._normalise(given, [(30, 20)])
    assert seen.shape == (1, 3, 64, 64)
    white = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(seen[0, :, :30, :20], white[:, None, None].expand(3, 30, 20))
    assert not seen[0, :, 30:].any() and not seen[0, :, :, 20:].any()


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_matter(model):
    given, sizes = images(2, 64, 96), [(64, 96), (50, 33)]
    other = given.clone()
    other[1, :, 50:] = 7
    other[1, :, :, 33:] = 200
    assert torch.equal(model(given, sizes)["logits"], model(other, sizes)["logits"])


@torch.no_grad()
def test_channels_last_is_the_same(model):
    fast = to_device(copy.deepcopy(model), "cpu", channels_last=True)
    first = fast.body.conv1.weight
    assert first.is_contiguous(memory_format=torch.channels_last) and not first.is_contiguous()
    given = images(2, 64, 96)
    expected = model(given)
    outputs = fast(given.to(memory_format=torch.channels_last))
    for key in ("logits", "deltas"):
        torch.testing.assert_close(outputs[key], expected[key], rtol=1e-4, atol=1e-5)
    assert to_device(fast, torch.device("cpu"), channels_last=False) is fast and first.is_contiguous()


@torch.no_grad()
def test_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images(1, 64, 64))
    assert outputs["logits"].dtype == torch.bfloat16 and outputs["anchors"].dtype == torch.float32
    assert (outputs["logits"].float() - model(images(1, 64, 64))["logits"]).abs().max() < 0.05


@torch.no_grad()
def test_cached_anchors_are_not_those_of_another_padding(model):
    wide = model(images(1, 64, 96))["anchors"]
    tall = model(images(1, 96, 64))["anchors"]
    assert wide.shape == tall.shape and not torch.equal(wide, tall)
    assert model(images(1, 64, 96))["anchors"] is wide


def test_state_dict_has_torchvisions_names_only(model):
    names = set(model.state_dict())
    assert all(name.startswith(("backbone.body.", "backbone.fpn.", "head.")) for name in names)
    assert "backbone.body.layer4.1.bn2.running_var" in names
    assert "backbone.fpn.extra_blocks.p7.weight" in names
    assert "head.regression_head.conv.3.0.bias" in names


@torch.no_grad()
def test_a_pyramid_from_p2_adds_its_level_and_changes_no_other(model):
    finer = build_model(config(neck={"channels": 32, "finest": "p2"}), num_classes=3).eval()
    new = [
        f"backbone.fpn.{blocks}.3.0.{kind}"
        for blocks in ("inner_blocks", "layer_blocks")
        for kind in ("weight", "bias")
    ]
    assert finer.load_state_dict(model.state_dict(), strict=False).missing_keys == new
    expected, outputs = model(images(1, 96, 64)), finer(images(1, 96, 64))
    p2, *others = outputs["anchors_per_level"]
    assert p2 == 24 * 16 * 9 and others == expected["anchors_per_level"]
    for key in ("logits", "deltas"):
        assert torch.equal(outputs[key][:, p2:], expected[key])
    assert torch.equal(outputs["anchors"][p2:], expected["anchors"])
    sides = outputs["anchors"][:9, 2:] - outputs["anchors"][:9, :2]
    torch.testing.assert_close(sides, (expected["anchors"][:9, 2:] - expected["anchors"][:9, :2]) / 2)


VARIANTS = [
    {"neck": {"name": "pafpn", "channels": 32}, "attention": {"name": "dyhead", "blocks": 2}, "head": {"depth": 0}},
    {"attention": {"name": "light", "blocks": 2}},
    {"backbone": {"name": "mobilenet_v3_large", "weights": None, "norm": "group"}},
    {"backbone": {"name": "resnet18", "weights": None, "norm": "sync"}, "neck": {"extra_levels": "c5", "channels": 24}},
    {"head": {"depth": 1, "width": 48, "norm": "group"}, "anchors": {"base_size": 16, "scales": 2, "ratios": [1.0]}},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_variants_train_a_step(changes):
    model = build_model(config(**changes), num_classes=2)
    outputs = model(images(2, 64, 64))
    cells = 64 + 16 + 4 + 1 + 1
    assert outputs["logits"].shape == (2, cells * model.anchors.anchors_per_cell, 2)
    (outputs["logits"].mean() + outputs["deltas"].mean()).backward()
    assert all(p.grad is not None for p in model.parameters())


class TestBuild:
    def test_frozen_without_weights_becomes_batch(self, caplog):
        model = build_model(config(), num_classes=1)
        assert type(model.body.bn1) is torch.nn.BatchNorm2d
        assert all(p.requires_grad for p in model.parameters())
        assert "batch instead of frozen" in caplog.text

    def test_for_a_checkpoint_nothing_is_read_but_the_architecture_is_the_same(self):
        described = config(backbone={"name": "resnet18", "weights": "nowhere/weights.pth"})
        model = build_model(described, num_classes=1, pretrained=False)
        assert type(model.body.bn1) is FrozenBatchNorm2d
        with pytest.raises(InputError, match="no such weights file"):
            build_model(described, num_classes=1)

    def test_a_whole_detectors_weights_make_the_backbones_needless(self):
        described = config(backbone={"name": "resnet18", "weights": "nowhere.pth"}, weights="detector.pth")
        build_model(described, num_classes=1)

    def test_postprocess(self):
        described = config(postprocess={"score_threshold": 0.2, "nms": "all", "nms_iou": 0.6, "topk": 7})
        assert vars(build_postprocess(described.postprocess)) == {
            "score_threshold": 0.2,
            "nms": "all",
            "nms_iou": 0.6,
            "topk": 7,
            "max_detections": 100,
        }
