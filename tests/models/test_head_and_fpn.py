import pytest
import torch
from torch import nn
from torchvision.models.detection.retinanet import RetinaNetHead

from detector.models.head import Head, permute_to_N_HWA_K
from detector.models.necks.fpn import build_fpn
from detector.utils.errors import InputError


def build_head(in_channels=8, **changes):
    settings = {"anchors_per_cell": 9, "num_classes": 5, "depth": 4, "width": 8, "norm": "none", "prior": 0.01}
    return Head(in_channels, **{**settings, **changes})


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
    logits, deltas = head(features)
    expected = reference(features)
    assert logits.shape == (2, 9 * (30 + 9), 5)
    torch.testing.assert_close(logits, expected["cls_logits"])
    torch.testing.assert_close(deltas, expected["bbox_regression"])


def test_every_anchor_starts_with_the_prior():
    head = build_head(prior=0.03).eval()
    logits, deltas = head([torch.zeros(1, 8, 2, 2)])
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.03))
    assert not deltas.any()
    weights = torch.cat([p.flatten() for n, p in head.named_parameters() if n.endswith("weight")])
    assert 0.009 < weights.std() < 0.011


@pytest.mark.parametrize(("depth", "width"), [(0, 16), (1, 16), (2, 4)])
def test_depth_and_width(depth, width):
    head = build_head(depth=depth, width=width)
    logits, deltas = head([torch.zeros(1, 8, 2, 2)])
    assert logits.shape == (1, 36, 5) and deltas.shape == (1, 36, 4)
    assert len(head.classification_head.conv) == depth


def test_unknown_norm():
    with pytest.raises(InputError, match="unknown head norm 'batch'; valid: none, group"):
        build_head(norm="batch")


def features():
    sizes = {"0": (4, 16), "1": (8, 8), "2": (16, 4)}
    return {name: torch.randn(1, channels, size, size) for name, (channels, size) in sizes.items()}


@pytest.mark.parametrize("channels", [16, 6])  # 16: as many as C5, where torchvision would always take P5
@pytest.mark.parametrize("extra_levels", ["p5", "c5"])
@torch.no_grad()
def test_p6_and_p7(extra_levels, channels):
    fpn = build_fpn([4, 8, 16], channels=channels, extra_levels=extra_levels)
    inputs = features()
    p3, p4, p5, p6, p7 = fpn(inputs).values()
    assert [p.shape for p in (p3, p4, p5, p6, p7)] == [(1, channels, s, s) for s in (16, 8, 4, 2, 1)]
    torch.testing.assert_close(p6, fpn.extra_blocks.p6(p5 if extra_levels == "p5" else inputs["2"]))
    torch.testing.assert_close(p7, fpn.extra_blocks.p7(p6.relu()))


def test_unknown_extra_levels():
    with pytest.raises(InputError, match="unknown extra_levels 'p6'; valid: p5, c5"):
        build_fpn([4, 8, 16], channels=8, extra_levels="p6")


@pytest.mark.parametrize("side", [1, 2])
def test_gradients_of_p6_and_p7_under_bfloat16_on_tiny_grids(side):
    """torch's bfloat16 gradient of a stride 2 convolution of an input 1 px wide is inf or nan on some CPUs."""
    torch.manual_seed(0)
    fpn = build_fpn([8, 8, 8], channels=32, extra_levels="p5")
    features = {str(i): torch.randn(2, 8, 4 * side // 2**i, 4 * side // 2**i) for i in range(3)}
    gradients = {}
    for enabled in (False, True):
        fpn.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            sum(level.float().square().mean() for level in fpn(features).values()).backward()
        gradients[enabled] = torch.cat([p.grad.flatten() for p in fpn.extra_blocks.parameters()])
    torch.testing.assert_close(gradients[True], gradients[False], rtol=0.1, atol=0.02)
