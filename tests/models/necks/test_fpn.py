from typing import get_args

import pytest
import torch

from detector.config.model import NeckConfig
from detector.models.necks import NECKS, build_neck
from detector.utils.errors import InputError


def features():
    sizes = {"0": (4, 16), "1": (8, 8), "2": (16, 4)}
    return {name: torch.randn(1, channels, size, size) for name, (channels, size) in sizes.items()}


@pytest.mark.parametrize("channels", [16, 6])  # 16: as many as C5, where torchvision would always take P5
@pytest.mark.parametrize("extra_levels", get_args(NeckConfig.model_fields["extra_levels"].annotation))
@torch.no_grad()
def test_p6_and_p7(extra_levels, channels):
    fpn = build_neck([4, 8, 16], NeckConfig(channels=channels, extra_levels=extra_levels))
    inputs = features()
    p3, p4, p5, p6, p7 = fpn(inputs).values()
    assert [p.shape for p in (p3, p4, p5, p6, p7)] == [(1, channels, s, s) for s in (16, 8, 4, 2, 1)]
    torch.testing.assert_close(p6, fpn.extra_blocks.p6(p5 if extra_levels == "p5" else inputs["2"]))
    torch.testing.assert_close(p7, fpn.extra_blocks.p7(p6.relu()))


@pytest.mark.parametrize("side", [1, 2])
def test_gradients_of_p6_and_p7_under_bfloat16_on_tiny_grids(side):
    """torch's bfloat16 gradient of a stride 2 convolution of an input 1 px wide is inf or nan on some CPUs."""
    torch.manual_seed(0)
    fpn = build_neck([8, 8, 8], NeckConfig(channels=32))
    features = {str(i): torch.randn(2, 8, 4 * side // 2**i, 4 * side // 2**i) for i in range(3)}
    gradients = {}
    for enabled in (False, True):
        fpn.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            sum(level.float().square().mean() for level in fpn(features).values()).backward()
        gradients[enabled] = torch.cat([p.grad.flatten() for p in fpn.extra_blocks.parameters()])
    torch.testing.assert_close(gradients[True], gradients[False], rtol=0.1, atol=0.02)


def test_a_neck_of_another_name(monkeypatch):
    """One line in the table makes a neck available."""
    with pytest.raises(InputError, match="model.neck.name: no 'fpm'; did you mean 'fpn'?"):
        build_neck([4, 8, 16], NeckConfig(name="fpm"))
    monkeypatch.setitem(NECKS, "own", lambda in_channels, config: torch.nn.Conv2d(in_channels[-1], config.channels, 1))
    assert build_neck([4, 8, 16], NeckConfig(name="own", channels=8)).weight.shape == (8, 16, 1, 1)


@torch.no_grad()
def test_p2_is_added_below_a_pyramid_that_stays_as_it_is():
    fpn = build_neck([4, 8, 16], NeckConfig(channels=6))
    finer = build_neck([2, 4, 8, 16], NeckConfig(channels=6, finest="p2"))
    own, state = fpn.state_dict(), finer.state_dict()
    new = {f"{blocks}.3.0.{kind}" for blocks in ("inner_blocks", "layer_blocks") for kind in ("weight", "bias")}
    assert state.keys() - own.keys() == new
    finer.load_state_dict(state | own)
    inputs, c2 = features(), torch.randn(1, 2, 32, 32)
    p2, *others = finer({"0": c2, **{str(i + 1): feature for i, feature in enumerate(inputs.values())}}).values()
    assert all(torch.equal(one, other) for one, other in zip(others, fpn(inputs).values(), strict=True))

    # P2 by hand: the merged maps below P5, P4 and P3, each before its 3x3 convolution
    merged = finer.inner_blocks[2](inputs["2"])
    for i, feature in ((1, inputs["1"]), (0, inputs["0"]), (3, c2)):
        merged = merged.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) + finer.inner_blocks[i](feature)
    torch.testing.assert_close(p2, finer.layer_blocks[3](merged))
