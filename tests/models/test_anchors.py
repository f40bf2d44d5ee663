import copy
import pickle

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen

from detector.models.anchors import CACHE_ENTRIES, AnchorGenerator
from detector.utils.errors import InputError

CPU = torch.device("cpu")
DEFAULT = {"base_size": 32, "scales": 3, "ratios": [0.5, 1.0, 2.0]}


def grids(height, width):
    """The sizes of P3..P7: the backbone and P6, P7 halve, rounding up."""
    sizes = []
    for level in range(8):
        if level >= 3:
            sizes.append((height, width))
        height, width = -(-height // 2), -(-width // 2)
    return sizes


def test_by_hand():
    generator = AnchorGenerator(base_size=32, scales=1, ratios=[0.5, 1.0])
    anchors = generator((16, 24), [(2, 3)], CPU)
    # ratio 0.5 is 45.25 x 22.63: half of it is (22.6, 11.3), rounded (23, 11)
    wide, square = torch.tensor([-23.0, -11.0, 23.0, 11.0]), torch.tensor([-16.0, -16.0, 16.0, 16.0])
    shifts = [(0, 0), (8, 0), (16, 0), (0, 8), (8, 8), (16, 8)]  # (x, y): along the row first
    expected = [cell + torch.tensor([x, y, x, y]) for x, y in shifts for cell in (wide, square)]
    assert torch.equal(anchors, torch.stack(expected))
    assert anchors.dtype == torch.float32


def test_sizes_are_truncated_and_double_at_each_level():
    generator = AnchorGenerator(base_size=16, scales=2, ratios=[1.0])
    anchors = generator((64, 64), [(1, 1), (1, 1)], CPU)
    # 16, int(22.6) = 22, 32, int(45.3) = 45 whose half, 22.5, rounds to the even 22
    assert (anchors[:, 2] - anchors[:, 0]).tolist() == [16, 22, 32, 44]


@pytest.mark.parametrize("size", [(32, 32), (256, 352), (800, 1344), (800, 800), (1216, 96), (608, 1024)])
def test_same_as_torchvision(size):
    features = [torch.zeros(1, 1, *grid) for grid in grids(*size)]
    reference = _default_anchorgen()(ImageList(torch.zeros(1, 3, *size), [size]), features)[0]
    generator = AnchorGenerator(**DEFAULT)
    assert torch.equal(generator(size, grids(*size), CPU), reference)
    assert sum(generator.level_sizes(grids(*size))) == len(reference)


def test_cached_and_bounded():
    generator = AnchorGenerator(**DEFAULT)
    first = generator((64, 64), grids(64, 64), CPU)
    assert generator((64, 64), grids(64, 64), CPU) is first
    for n in range(2, CACHE_ENTRIES + 10):
        generator((64, 32 * n), grids(64, 32 * n), CPU)
    assert len(generator._cache) == CACHE_ENTRIES
    again = generator((64, 64), grids(64, 64), CPU)
    assert again is not first and torch.equal(again, first)


def test_anchors_made_in_inference_mode_serve_training():
    generator = AnchorGenerator(**DEFAULT)
    with torch.inference_mode():
        anchors = generator((64, 64), grids(64, 64), CPU)
    scale = torch.ones((), requires_grad=True)
    (scale * anchors).sum().backward()  # saves the anchors, which an inference tensor refuses


def test_survives_copy_and_pickle():
    generator = AnchorGenerator(**DEFAULT)
    anchors = generator((64, 64), grids(64, 64), CPU)
    for twin in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert torch.equal(twin((64, 64), grids(64, 64), CPU), anchors)


@pytest.mark.parametrize("ratios", [[1.0], [0.01, 1.0]])
def test_vanishing_anchors_are_an_error(ratios):
    with pytest.raises(InputError, match="base_size"):
        AnchorGenerator(base_size=1 if ratios == [1.0] else 8, scales=3, ratios=ratios)


def test_made_on_the_cpu_whatever_the_default_device_is():
    generator = AnchorGenerator(**DEFAULT)
    expected = generator._anchors((64, 64), grids(64, 64))
    with torch.device("meta"):
        assert torch.equal(AnchorGenerator(**DEFAULT)._anchors((64, 64), grids(64, 64)), expected)
