"""The light attention: against the same in numpy, and that it starts as the identity."""

import numpy as np
import pytest
import torch
from torch import nn

from detector.models.attention.light import LightBlock

SIZES = [(5, 6), (3, 3), (2, 2)]


def levels(sizes=SIZES, channels=4, images=2, dtype=torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images, channels, *size, generator=generator, dtype=dtype) for size in sizes]


def lively(block: nn.Module, scale: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))  # gates at their limits, too
    return block


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def refined(block: LightBlock, maps: list[np.ndarray], i: int) -> np.ndarray:
    """Level i of an image. maps: (C, h, w) of each level."""
    weights = {name: parameter.detach().numpy() for name, parameter in block.named_parameters()}
    x = maps[i]
    gates = hard_sigmoid(weights["context.weight"] @ x.mean((1, 2)) + weights["context.bias"])
    y = x.copy()
    for row, column in np.ndindex(*x.shape[1:]):
        if i > 0:
            window = maps[i - 1][:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]  # fewer cells at an odd edge
            y[:, row, column] += (2 * gates[0] - 1) * window.mean((1, 2))
        if i + 1 < len(maps):
            h, w = maps[i + 1].shape[1:]
            nearest = maps[i + 1][:, row * h // x.shape[1], column * w // x.shape[2]]
            y[:, row, column] += (2 * gates[1] - 1) * nearest
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(y, ((0, 0), (2, 2), (2, 2))), (5, 5), axis=(1, 2))
    around = np.einsum("chwij,cij->chw", windows, weights["around.weight"][:, 0])
    around += weights["around.bias"][:, None, None]
    space = np.einsum("chw,oc->ohw", around, weights["space.weight"][:, :, 0, 0])
    space += weights["space.bias"][:, None, None]
    return y * 2 * hard_sigmoid(space) * 2 * gates[2:, None, None]


@torch.no_grad()
def test_the_block_is_that_of_numpy():
    block, inputs = lively(LightBlock(4)).double(), levels(dtype=torch.float64)
    for i, output in enumerate(block(inputs)):
        for image in range(2):
            expected = refined(block, [level[image].numpy() for level in inputs], i)
            np.testing.assert_allclose(output[image].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_it_starts_as_the_identity_to_the_last_bit(dtype):
    blocks = nn.Sequential(LightBlock(16), LightBlock(16))
    inputs = [level.to(dtype) for level in levels(channels=16)]
    inputs[-1] = inputs[-1].float()  # on a CPU an FPN's last levels are
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = blocks(inputs)
    for output, given in zip(outputs, inputs, strict=True):
        assert output.dtype == given.dtype and torch.equal(output, given)


SHAPES = {"one level": [(6, 5)], "one cell": [(1, 1)], "down to one cell": [(3, 2), (2, 1), (1, 1), (1, 1)]}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_any_number_of_levels_of_any_size(sizes):
    for images in (1, 2):
        outputs = lively(LightBlock(4))(levels(sizes, images=images))
        assert [output.shape for output in outputs] == [(images, 4, *size) for size in sizes]


def gradients(module: nn.Module, inputs: list[torch.Tensor], autocast: bool = False) -> dict[str, torch.Tensor]:
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        sum((level.float() ** 2).mean() for level in module(inputs)).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_every_parameter_has_a_gradient():
    """Of the depthwise convolution from the second step on: the layer after it starts at 0."""
    torch.manual_seed(0)
    blocks, inputs = nn.Sequential(LightBlock(16), LightBlock(16)), levels([(4, 4), (2, 2), (1, 1)], channels=16)
    first = gradients(blocks, inputs)
    assert {name.split(".")[1] for name, gradient in first.items() if not gradient.any()} == {"around"}
    torch.optim.SGD(blocks.parameters(), lr=0.1).step()
    assert [name for name, gradient in gradients(blocks, inputs).items() if not gradient.any()] == []


@pytest.mark.parametrize("sizes", [[(8, 8), (4, 4), (2, 2), (1, 1)], [(4, 1), (2, 1), (1, 1)]])
def test_gradients_under_bfloat16_on_tiny_grids(sizes):
    """Where torch's bfloat16 convolutions are known to be wrong on some CPUs, see tests/models/necks/test_fpn.py."""
    block, inputs = lively(LightBlock(32), 0.1), levels(sizes, channels=32)
    exact, rounded = (gradients(block, inputs, autocast) for autocast in (False, True))
    for name, gradient in exact.items():
        assert (rounded[name] - gradient).norm() < 0.1 * gradient.norm(), name
