"""Codec and IoU of tensors: by hand, and against torchvision."""

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from detector.ops.boxes import decode, encode, iou, iou_with_anchors

ANCHOR = torch.tensor([10.0, 20.0, 30.0, 60.0])  # centre (20, 40), 20 wide, 40 high


def test_encode_by_hand():
    # centre (25, 50), 40 wide, 20 high: a quarter of the anchor to the right, a quarter down, twice, half
    box = torch.tensor([5.0, 40.0, 45.0, 60.0])
    expected = torch.tensor([0.25, 0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(encode(box, ANCHOR), expected)
    torch.testing.assert_close(decode(expected, ANCHOR), box)


def test_decode_zero_is_the_anchor():
    assert torch.equal(decode(torch.zeros(4), ANCHOR), ANCHOR)


def test_decode_clamps_the_size_from_above_only():
    boxes = decode(torch.tensor([[0.0, 0.0, 50.0, 50.0], [0.0, 0.0, -50.0, -50.0]]), ANCHOR)
    sizes = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(sizes[0], torch.tensor([20 * 62.5, 40 * 62.5]))
    assert (sizes[1] < 1e-6).all()


def random_boxes(*shape):
    generator = torch.Generator().manual_seed(0)
    top_left = 1000 * torch.rand(*shape, 2, generator=generator)
    return torch.cat((top_left, top_left + 1 + 500 * torch.rand(*shape, 2, generator=generator)), dim=-1)


def test_same_as_torchvision():
    anchors, boxes = random_boxes(200).flip(0), random_boxes(200)
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    deltas = encode(boxes, anchors)
    torch.testing.assert_close(deltas, coder.encode_single(boxes, anchors), rtol=1e-6, atol=1e-6)
    wild = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(decode(wild, anchors), coder.decode_single(wild, anchors), rtol=1e-6, atol=1e-3)


def test_round_trip_broadcasts_over_leading_dimensions():
    boxes, anchors = random_boxes(2, 5, 7), random_boxes(7).flip(0)
    deltas = encode(boxes, anchors)
    assert deltas.shape == (2, 5, 7, 4)
    torch.testing.assert_close(decode(deltas, anchors), boxes, rtol=0, atol=1e-3)


def test_empty():
    assert encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert decode(torch.zeros(3, 0, 4), torch.zeros(0, 4)).shape == (3, 0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    deltas = torch.tensor([0.25, 0.5, 0.125, -0.5], dtype=dtype)  # exact in both
    far = ANCHOR + 1000
    boxes = decode(deltas, far)
    assert boxes.dtype == torch.float32
    assert torch.equal(boxes, decode(deltas.float(), far))
    assert encode(far.to(dtype), far).dtype == torch.float32


def test_float64_stays():
    boxes = random_boxes(3).double()
    assert decode(encode(boxes, boxes), boxes).dtype == torch.float64


def test_gradient_flows_through_decode():
    deltas = torch.zeros(2, 4, requires_grad=True)
    decode(deltas, ANCHOR).sum().backward()
    # d(x1 + x2)/d(dx) = 2 * width; growing is symmetric, so it cancels
    torch.testing.assert_close(deltas.grad, torch.tensor([[40.0, 80.0, 0.0, 0.0]] * 2))


def test_iou_equals_torchvision():
    torch.manual_seed(0)
    corners = 10 * torch.rand(2, 50, 2)
    boxes, others = torch.cat([corners, corners + 5 * torch.rand(2, 50, 2) + 0.1], dim=2)
    expected = box_iou(boxes, others)
    assert torch.equal(iou(boxes, others), expected.diagonal())
    assert (expected.diagonal() == 0).any() and (expected.diagonal() > 0).any()
    assert torch.equal(iou(boxes[:, None], others), expected)
    assert torch.equal(iou_with_anchors(boxes.view(2, 25, 4), others).view(50, 50), expected)
