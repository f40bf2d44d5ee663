"""The Dynamic Head's block against the same in numpy, cell by cell."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detector.models.attention.dyhead import DyHeadBlock, SampledConv
from detector.models.attention.dynamic_relu import DynamicReLU
from detector.models.build import to_device

CHANNELS = 4
SIZES = [(5, 6), (3, 3), (2, 2)]  # of levels, each half of the one before, rounded up


def lively(module: nn.Module) -> nn.Module:
    """In float64, with every parameter at random: offsets of about a pixel."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def levels(sizes=SIZES, channels=CHANNELS, images=2, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images, channels, *size, generator=generator, dtype=dtype) for size in sizes]


def sampled(x: np.ndarray, row: float, column: float) -> np.ndarray:
    """(C, h, w) → (C,), bilinear between the four pixels around; 0 outside of the map."""
    found = np.zeros(len(x))
    for i in (int(np.floor(row)), int(np.floor(row)) + 1):
        for j in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                found += (1 - abs(row - i)) * (1 - abs(column - j)) * x[:, i, j]
    return found


def deformed(x: np.ndarray, sampling: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """x: (C, h, w). sampling: (27, h', w'). weight: (C', C, 3, 3). → (C', h', w')."""
    found = np.zeros((len(weight), *sampling.shape[1:]))
    for i, j in np.ndindex(*sampling.shape[1:]):
        for tap in range(9):
            row = stride * i - 1 + tap // 3 + sampling[2 * tap, i, j]
            column = stride * j - 1 + tap % 3 + sampling[2 * tap + 1, i, j]
            mask = 1 / (1 + np.exp(-sampling[18 + tap, i, j]))
            found[:, i, j] += mask * weight[:, :, tap // 3, tap % 3] @ sampled(x, row, column)
    return found


def normed(x: np.ndarray, layer: nn.GroupNorm) -> np.ndarray:
    groups = x.reshape(layer.num_groups, -1)
    groups = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + layer.eps)
    weight, bias = (parameter.detach().numpy()[:, None, None] for parameter in (layer.weight, layer.bias))
    return groups.reshape(x.shape) * weight + bias


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear; the corners stay where they are, as torch has it with align_corners."""
    at = [np.arange(n) * ((old - 1) / (n - 1) if n > 1 else 0) for n, old in zip(size, x.shape[1:], strict=True)]
    return np.stack([[sampled(x, row, column) for column in at[1]] for row in at[0]]).transpose(2, 0, 1)


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def rectified(layer: DynamicReLU, x: np.ndarray) -> np.ndarray:
    """The Dynamic Head's code: coefficients of the channels' means, minus 0.5, of the slopes twice, plus 1 and 0."""
    hidden = np.maximum(linear(layer.squeeze, x.mean((1, 2))), 0)
    a1, b1, a2, b2 = (hard_sigmoid(linear(layer.expand, hidden)) - 0.5).reshape(4, -1, 1, 1)
    return np.maximum((1 + 2 * a1) * x + b1, 2 * a2 * x + b2)


def refined(block: DyHeadBlock, maps: list[np.ndarray], i: int) -> np.ndarray:
    """Level i of an image. maps: (C, h, w) of each level."""
    padded = np.pad(maps[i], ((0, 0), (1, 1), (1, 1)))
    kernel = block.offsets.weight.detach().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    sampling = np.einsum("chwij,ocij->ohw", windows, kernel) + block.offsets.bias.detach().numpy()[:, None, None]

    def through(layer: SampledConv, x: np.ndarray, sampling: np.ndarray, stride: int = 1) -> np.ndarray:
        return normed(deformed(x, sampling, layer.conv.weight.detach().numpy(), stride), layer.norm)

    found = [through(block.same, maps[i], sampling)]
    if i > 0:
        found.append(through(block.finer, maps[i - 1], sampling, stride=2))
    if i + 1 < len(maps):
        coarser = maps[i + 1]
        found.append(resized(through(block.coarser, coarser, resized(sampling, coarser.shape[1:])), maps[i].shape[1:]))
    weights = [hard_sigmoid(np.maximum(linear(block.scale, one.mean((1, 2))), 0)) for one in found]
    return rectified(block.task, sum(w * one for w, one in zip(weights, found, strict=True)) / len(found))


@pytest.mark.parametrize("bias", [-5.0, 0.5])
@torch.no_grad()
def test_the_block_is_that_of_numpy(bias):
    """bias: of the scales' weights, so that their ReLU is off or on."""
    block, inputs = lively(DyHeadBlock(CHANNELS)), levels()
    block.scale.bias.fill_(bias)
    for i, output in enumerate(block(inputs)):
        for image in range(2):
            expected = refined(block, [level[image].numpy() for level in inputs], i)
            np.testing.assert_allclose(output[image].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("logit", "mask"), [(0.0, 0.5), (40.0, 1.0)])
@torch.no_grad()
def test_without_offsets_it_is_a_convolution(stride, logit, mask):
    layer = SampledConv(CHANNELS, stride)
    layer.norm = nn.Identity()  # it would hide the mask, a common factor
    (x,) = levels([(5, 6)], dtype=torch.float32)
    expected = mask * F.conv2d(x, layer.conv.weight, stride=stride, padding=1)
    sampling = torch.zeros(2, 27, *expected.shape[2:])
    sampling[:, 18:] = logit
    torch.testing.assert_close(layer(x, sampling), expected)


@torch.no_grad()
def test_offsets_start_at_zero_and_the_rest_nearly_neutral():
    """As mmdetection initialises it: masks 0.5, weights of the scales near 0.5, the dynamic ReLU near a ReLU."""
    torch.manual_seed(0)
    block, (x, _) = DyHeadBlock(16), levels([(8, 8), (4, 4)], channels=16, dtype=torch.float32)
    assert not block.offsets(x).any()
    torch.testing.assert_close(block.task(x), x.relu(), rtol=0, atol=0.01)
    assert block._weight(x).min() >= 0.5 and block._weight(x).max() < 0.51


SHAPES = {"one level": [(6, 5)], "one cell": [(1, 1)], "down to one cell": [(3, 2), (2, 1), (1, 1), (1, 1)]}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_any_number_of_levels_of_any_size(sizes):
    for images in (1, 2):
        outputs = lively(DyHeadBlock(CHANNELS))(levels(sizes, images=images))
        assert [output.shape for output in outputs] == [(images, CHANNELS, *size) for size in sizes]
        assert all(output.isfinite().all() for output in outputs)


def gradients(module: nn.Module, inputs: list[torch.Tensor], autocast: bool = False) -> dict[str, torch.Tensor]:
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        sum((level.float() ** 2).mean() for level in module(inputs)).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_every_parameter_has_a_gradient_from_the_start():
    torch.manual_seed(0)
    blocks = nn.Sequential(DyHeadBlock(16), DyHeadBlock(16))
    found = gradients(blocks, levels([(8, 8), (4, 4), (2, 2), (1, 1)], channels=16, dtype=torch.float32))
    assert [name for name, gradient in found.items() if gradient is None or not gradient.any()] == []


def test_autocast():
    torch.manual_seed(0)
    block, inputs = DyHeadBlock(16), levels([(8, 8), (4, 4), (2, 2), (1, 1)], channels=16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = block([level.bfloat16() for level in inputs[:2]] + inputs[2:])  # as an FPN on a CPU gives them
    for output, expected in zip(outputs, block(inputs), strict=True):
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)
    exact, rounded = (gradients(block, inputs, autocast) for autocast in (False, True))
    for name, gradient in exact.items():
        assert (rounded[name] - gradient).norm() < 0.2 * gradient.norm(), name


def test_channels_last_is_the_same():
    torch.manual_seed(0)
    block, inputs = DyHeadBlock(16), levels([(8, 8), (4, 4)], channels=16, dtype=torch.float32)
    expected = gradients(block, inputs)
    to_device(block, "cpu", channels_last=True)
    found = gradients(block, [level.contiguous(memory_format=torch.channels_last) for level in inputs])
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
