from typing import get_args

import pytest
import torch
from torch import nn
from torchvision.models.detection.retinanet import RetinaNetHead

from detector.config.model import HeadConfig
from detector.models.head import Head, permute_to_N_HWA_K


def build_head(in_channels=8, **changes):
    settings = {"anchors_per_cell": 9, "num_classes": 5, "depth": 4, "width": 8, "norm": "none", "prior": 0.01}
    return Head(in_channels, **{**settings, **changes})


def test_one_image_with_a_channel_a_group_is_as_in_a_batch():
    """torch's GroupNorm refuses a single value in a group: width 32 on a level of 1x1."""
    head = build_head(width=32, norm="group", depth=1).eval()
    level = torch.randn(2, 8, 1, 1)
    alone, together = head([level[:1]])["logits"], head([level])["logits"][:1]
    assert torch.allclose(alone, together) and alone.isfinite().all()


def test_permute_by_hand():
    # 2 anchors x 3 classes at a grid of 1 x 2; the value says anchor, class and column
    level = torch.tensor([[100 * a + 10 * k + x for x in range(2)] for a in range(2) for k in range(3)])
    rows = permute_to_N_HWA_K(level.view(1, 6, 1, 2), 3)
    assert rows.tolist() == [[[0, 10, 20], [100, 110, 120], [1, 11, 21], [101, 111, 121]]]


def test_permute_of_channels_last_is_a_view():
    level = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)
    assert permute_to_N_HWA_K(level, 3).data_ptr() == level.data_ptr()


@pytest.mark.parametrize("norm", ["none", "group"])
@torch.no_grad()
def test_same_as_torchvision(norm):
    norm_layer = None if norm == "none" else lambda channels: nn.GroupNorm(8, channels)
    reference = RetinaNetHead(8, 9, 5, norm_layer=norm_layer)
    head = build_head(norm=norm)
    head.load_state_dict(reference.state_dict())
    features = [torch.randn(2, 8, 6, 5), torch.randn(2, 8, 3, 3)]
    outputs = head(features)
    expected = reference(features)
    assert outputs["logits"].shape == (2, 9 * (30 + 9), 5)
    torch.testing.assert_close(outputs["logits"], expected["cls_logits"])
    torch.testing.assert_close(outputs["deltas"], expected["bbox_regression"])


def test_every_anchor_starts_with_the_prior():
    head = build_head(prior=0.03).eval()
    logits, deltas = head([torch.zeros(1, 8, 2, 2)]).values()
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.03))
    assert not deltas.any()
    weights = torch.cat([p.flatten() for n, p in head.named_parameters() if n.endswith("weight")])
    assert 0.009 < weights.std() < 0.011


@pytest.mark.parametrize(("depth", "width"), [(0, 16), (1, 16), (2, 4)])
def test_depth_and_width(depth, width):
    head = build_head(depth=depth, width=width)
    logits, deltas = head([torch.zeros(1, 8, 2, 2)]).values()
    assert logits.shape == (1, 36, 5) and deltas.shape == (1, 36, 4)
    assert len(head.classification_head.conv) == depth


@pytest.mark.parametrize("norm", get_args(HeadConfig.model_fields["norm"].annotation))
def test_every_norm_of_the_settings(norm):
    layers = build_head(norm=norm).regression_head.conv.modules()
    assert sum(isinstance(layer, nn.GroupNorm) for layer in layers) == {"none": 0, "group": 4}[norm]
