"""PANet's second path, against one written by hand, and that it starts as the FPN."""

import copy

import pytest
import torch
import torch.nn.functional as F

from detector.config.model import NeckConfig
from detector.models.necks import build_neck

IN_CHANNELS = [4, 8, 16]


def features(side: int = 4, images: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        str(i): torch.randn(images, channels, 4 * side // 2**i, 4 * side // 2**i, generator=generator)
        for i, channels in enumerate(IN_CHANNELS)
    }


def necks(extra_levels: str = "p5", channels: int = 6) -> tuple[torch.nn.Module, torch.nn.Module]:
    """An FPN, and a path aggregation network whose FPN has the same weights."""
    torch.manual_seed(0)
    fpn = build_neck(IN_CHANNELS, NeckConfig(channels=channels, extra_levels=extra_levels))
    pafpn = build_neck(IN_CHANNELS, NeckConfig(name="pafpn", channels=channels, extra_levels=extra_levels))
    missing, unexpected = pafpn.load_state_dict(fpn.state_dict(), strict=False)
    assert unexpected == [] and {name.split(".")[1] for name in missing} == {"downsample", "fuse"}
    return fpn, pafpn


@pytest.mark.parametrize("extra_levels", ["p5", "c5"])
@torch.no_grad()
def test_the_bottom_up_path_by_hand(extra_levels):
    fpn, pafpn = necks(extra_levels)
    path = pafpn.extra_blocks
    for parameter in (*path.downsample.parameters(), *path.fuse.parameters()):
        parameter.normal_(std=0.3)
    p3, p4, p5, *_ = fpn(features()).values()
    w = dict(path.named_parameters())
    m4 = p4 + F.conv2d(p3, w["downsample.0.weight"], w["downsample.0.bias"], stride=2, padding=1)
    m5 = p5 + F.conv2d(m4, w["downsample.1.weight"], w["downsample.1.bias"], stride=2, padding=1)
    n4 = F.conv2d(m4, w["fuse.0.weight"], w["fuse.0.bias"], padding=1)
    n5 = F.conv2d(m5, w["fuse.1.weight"], w["fuse.1.bias"], padding=1)
    source = n5 if extra_levels == "p5" else features()["2"]
    p6 = F.conv2d(source, w["p6.weight"], w["p6.bias"], stride=2, padding=1)
    p7 = F.conv2d(p6.relu(), w["p7.weight"], w["p7.bias"], stride=2, padding=1)
    found = pafpn(features())
    assert list(found) == list(fpn(features()))
    for level, expected in zip(found.values(), (p3, n4, n5, p6, p7), strict=True):
        torch.testing.assert_close(level, expected)


@torch.no_grad()
def test_it_starts_as_the_fpn():
    fpn, pafpn = necks(channels=24)
    for level, expected in zip(pafpn(features()).values(), fpn(features()).values(), strict=True):
        assert torch.equal(level, expected)


@torch.no_grad()
def test_from_p2_there_is_one_step_more_and_weights_of_a_path_from_p3_fit():
    fpn, pafpn = (
        build_neck([2, *IN_CHANNELS], NeckConfig(name=name, channels=6, finest="p2")) for name in ("fpn", "pafpn")
    )
    own = {name: 0.3 * torch.randn_like(weight) for name, weight in necks()[1].state_dict().items()}
    for parameter in pafpn.parameters():
        parameter.normal_(std=0.3)
    assert pafpn.load_state_dict(own, strict=False).unexpected_keys == []
    fpn.load_state_dict({name: w for name, w in pafpn.state_dict().items() if name in fpn.state_dict()})
    inputs = {"0": torch.randn(1, 2, 32, 32), **{str(int(i) + 1): feature for i, feature in features().items()}}
    p2, p3, p4, p5, *_ = fpn(inputs).values()
    path = pafpn.extra_blocks
    m3 = p3 + path.downsample[2](p2)
    m4 = p4 + path.downsample[0](m3)
    expected = [p2, path.fuse[2](m3), path.fuse[0](m4), path.fuse[1](p5 + path.downsample[1](m4))]
    for level, by_hand in zip(list(pafpn(inputs).values())[:4], expected, strict=True):
        torch.testing.assert_close(level, by_hand)


@pytest.mark.parametrize("side", [1, 2])
def test_gradients_under_bfloat16_on_tiny_grids(side):
    """Every new parameter has one from the start, as in float32; see test_fpn.py for why tiny grids."""
    pafpn = necks(channels=32)[1]
    gradients = []
    for enabled in (False, True):
        model = copy.deepcopy(pafpn)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            sum(level.float().square().mean() for level in model(features(side, images=2)).values()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.extra_blocks.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.any() and (gradients[1][name] - gradient).norm() < 0.1 * gradient.norm(), name
