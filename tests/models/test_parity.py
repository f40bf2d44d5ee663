"""Given torchvision's weights, the same detections as torchvision's RetinaNet, whatever layout they are in; given
detectron2's, as one with detectron2's anchors."""

from collections import Counter

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.checkpoint import read_detector
from detector.config.model import ModelConfig
from detector.models.build import build_model, build_postprocess
from detector.models.weights.torchvision import COCO_IDS, COCO_ROWS, NOT_CLASSES
from detector.models.weights.transfer import load_whole, transfer

RULE = {"anchors": {"rule": "torchvision"}}
V1 = {"backbone": {"weights": None}, **RULE}
V2 = {"backbone": {"weights": None, "norm": "batch"}, "neck": {"extra_levels": "c5"}, "head": {"norm": "group"}, **RULE}
SIZES = [(250, 333), (320, 256), (97, 400)]


def image(size, seed=0):
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def with_lively_weights(reference):
    """Random, but with norms that fit the activations, scores spread over 0..1 and boxes that differ from anchors."""
    norms = [m for m in reference.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # one pass sets the statistics to those of the activations
        nn.init.uniform_(norm.weight, 0.2, 1.0)
        nn.init.normal_(norm.bias, std=0.2)
    reference.transform.resize = lambda image, target: (image, target)  # the images come resized
    images = reference.transform([image(SIZES[0]) / 255])[0].tensors
    reference.backbone.train()(images)
    for norm in norms:
        norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2.0)
    reference.eval()
    for tower in (reference.head.classification_head, reference.head.regression_head):
        for conv in (m for m in tower.conv.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    body, fpn = reference.backbone.body(images), reference.backbone.fpn
    last_convs = [block[0] for block in fpn.layer_blocks] + [fpn.extra_blocks.p6, fpn.extra_blocks.p7]
    for level, conv in enumerate(last_convs):  # so that every level has detections
        conv.weight *= 2 / list(fpn(body).values())[level].std()
    features = list(fpn(body).values())
    classification, regression = reference.head.classification_head, reference.head.regression_head
    regression.bbox_reg.weight *= 0.3 / regression(features).std()
    classification.cls_logits.weight *= 3 / classification(features).std()
    nn.init.normal_(classification.cls_logits.bias)
    classification.cls_logits.bias -= classification(features).flatten().topk(300).values[-1]
    reference.detections_per_img = 100
    return reference


def resnet18_fpn(extra_blocks):
    return resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=extra_blocks,
    )


def assert_same(found, expected, labels=lambda label: label):
    assert len(expected["scores"]) == 100
    assert expected["scores"].max() - expected["scores"].min() > 0.2
    assert found["labels"].tolist() == [labels(label) for label in expected["labels"].tolist()]
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def detect(model, config, batch):
    """Images of any sizes, padded with rubbish to the largest."""
    sizes = [tuple(one.shape[1:]) for one in batch]
    height, width = map(max, zip(*sizes, strict=True))
    padded = image((height, width), seed=9).repeat(len(batch), 1, 1, 1)
    for i, (h, w) in enumerate(sizes):
        padded[i, :, :h, :w] = batch[i]
    return build_postprocess(config.postprocess)(model(padded, sizes), sizes)


@torch.no_grad()
def expected_of(reference, batch):
    return reference([one / 255 for one in batch])


def test_v1_with_coco_slots_narrowed_to_the_classes(tmp_path):
    torch.manual_seed(0)
    reference = with_lively_weights(retinanet_resnet50_fpn(weights=None, weights_backbone=None))
    bias = reference.head.classification_head.cls_logits.bias.view(9, 91)
    with torch.no_grad():
        bias[:, [slot for slot, name in enumerate(COCO_ROWS) if name in NOT_CLASSES]] = -30.0
    torch.save(reference.state_dict(), tmp_path / "v1.pth")

    classes = list(COCO_IDS)
    # frozen norms: as the file names weights, it is what the published v1 runs with
    config = ModelConfig.model_validate({**V1, "weights": "v1.pth"})
    model = build_model(config, num_classes=80).eval()
    load_whole(model, read_detector(str(tmp_path / "v1.pth")), classes)

    for size in SIZES[::2]:
        (expected,) = expected_of(reference, [image(size)])
        (found,) = detect(model, config, [image(size)])
        assert_same(found, expected, labels=lambda slot: classes.index(COCO_ROWS[slot]))


def test_v2_of_any_classes_alone_and_in_a_batch(tmp_path):
    torch.manual_seed(1)
    reference = with_lively_weights(retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=4))
    safetensors.torch.save_file(reference.state_dict(), tmp_path / "v2.safetensors")

    config = ModelConfig.model_validate(V2)
    model = build_model(config, num_classes=4).eval()
    load_whole(model, read_detector(str(tmp_path / "v2.safetensors")), ["a", "b", "c", "d"])

    batch = [image(size, seed) for seed, size in enumerate(SIZES)]
    for found, expected in zip(detect(model, config, batch), expected_of(reference, batch), strict=True):
        assert_same(found, expected)
    # alone, too: there the image's own padding, to a multiple of 32, is the only one
    (expected,), (found,) = expected_of(reference, batch[:1]), detect(model, config, batch[:1])
    assert_same(found, expected)


def test_old_names_and_norms_without_eps(tmp_path, with_old_names):
    """The published v1 has them; in some channels of it the variance is far below the usual eps."""
    torch.manual_seed(2)
    body = resnet18_fpn(LastLevelP6P7(256, 256))
    reference = with_lively_weights(TorchvisionRetinaNet(body, num_classes=4))
    with torch.no_grad():
        for norm in (m for m in body.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.eps = 1e-30  # torch 2.11 refuses 0; to a float32 variance it is the same
            norm.running_var[::7] *= 1e-7
            norm.weight[::7] *= 1e-7**0.5
    old = with_old_names(reference.state_dict())
    assert "head.regression_head.conv.6.bias" in old and "backbone.fpn.inner_blocks.2.weight" in old
    torch.save(old, tmp_path / "old.pth")

    config = ModelConfig.model_validate({"backbone": {"name": "resnet18"}, "weights": "old.pth", **RULE})
    model = build_model(config, num_classes=4, pretrained=False).eval()
    load_whole(model, read_detector(str(tmp_path / "old.pth")), ["a", "b", "c", "d"])
    (expected,) = expected_of(reference, [image(SIZES[0])])
    (found,) = detect(model, config, [image(SIZES[0])])
    assert_same(found, expected)


class Detectron2Anchors(nn.Module):
    """In place of torchvision's AnchorGenerator: detectron2's strides and sides, not rounded, by ratio, then size."""

    def forward(self, images, features):
        levels = []
        for level, feature in enumerate(features):
            stride = 8 * 2**level
            sizes = 4 * stride * 2 ** (torch.arange(3) / 3)
            root = torch.tensor([0.5, 1.0, 2.0]).sqrt()[:, None]
            half = torch.stack([sizes / root, sizes * root], dim=-1).view(9, 2) / 2
            rows, columns = (torch.arange(side) * stride for side in feature.shape[-2:])
            centres = torch.cartesian_prod(rows, columns).flip(1)[:, None]
            levels.append(torch.cat([centres - half, centres + half], dim=-1).view(-1, 4))
        return [torch.cat(levels)] * len(images.image_sizes)


@pytest.fixture(scope="module")
def reference_of_detectron2s_kind():
    """torchvision's RetinaNet with what detectron2's has: P6 from C5, its anchors, no norms in the head; ResNet-18."""
    torch.manual_seed(3)
    reference = TorchvisionRetinaNet(resnet18_fpn(LastLevelP6P7(512, 256)), num_classes=4)
    reference.anchor_generator = Detectron2Anchors()
    return with_lively_weights(reference)


@pytest.mark.parametrize(
    ("bgr", "said"), [(False, "for RGB input with std 58.395"), (True, "for BGR input with std 1, ")]
)
def test_detectron2s_layout(bgr, said, reference_of_detectron2s_kind, as_detectron2, tmp_path):
    state = as_detectron2(reference_of_detectron2s_kind.state_dict(), bgr)
    torch.save({"model": state, "iteration": 90000}, tmp_path / "d2.pth")
    weights = read_detector(str(tmp_path / "d2.pth"))
    assert said in weights.description and "MSRA" not in weights.description
    assert weights.anchor_rule == "exact"
    names = ["a", "b", "c", "d"]
    settings = {"backbone": {"name": "resnet18"}, "neck": {"extra_levels": "c5"}, "weights": "d2.pth"}
    config = ModelConfig.model_validate(settings)
    (expected,) = expected_of(reference_of_detectron2s_kind, [image(SIZES[0])])

    model = build_model(config, num_classes=4, pretrained=False).eval()
    load_whole(model, weights, names)
    (found,) = detect(model, config, [image(SIZES[0])])
    assert_same(found, expected)

    model = build_model(config, num_classes=4).eval()
    fates = transfer(model, weights, names).tensors
    assert fates["head.classification_head.cls_logits"] == Counter({"remapped": 2})
    assert fates["head.regression_head.bbox_reg"] == Counter({"remapped": 2})
    (found,) = detect(model, config, [image(SIZES[0])])
    assert_same(found, expected)
