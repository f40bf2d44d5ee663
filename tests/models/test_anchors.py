import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen

from detector.config.model import ModelConfig
from detector.models.anchors import CACHE_ENTRIES, AnchorGenerator
from detector.models.build import build_anchors, build_model
from detector.utils.errors import InputError

CPU = torch.device("cpu")
DEFAULT = {"base_size": 32, "scales": 3, "ratios": [0.5, 1.0, 2.0]}
TORCHVISION = {**DEFAULT, "rule": "torchvision"}
RULES = ("exact", "torchvision")


def grids(height, width, finest=3):
    """The sizes of P3..P7: the backbone and P6, P7 halve, rounding up."""
    sizes = []
    for level in range(8):
        if level >= finest:
            sizes.append((height, width))
        height, width = -(-height // 2), -(-width // 2)
    return sizes


def padded(height, width):
    return -(-height // 32) * 32, -(-width // 32) * 32


def detectron2_anchors(grid_sizes, finest_stride=8):
    """What detectron2's RetinaNet configs make of its DefaultAnchorGenerator (modeling/anchor_generator.py, offset 0),
    one anchor after the other, but with a cell's anchors by ratio, then size."""
    anchors = []
    for level, (rows, columns) in enumerate(grid_sizes):
        stride = finest_stride * 2**level
        for row in range(rows):
            for column in range(columns):
                x, y = column * stride, row * stride
                for ratio in (0.5, 1.0, 2.0):
                    for octave in (0, 1 / 3, 2 / 3):
                        area = (4 * stride * 2**octave) ** 2
                        width = math.sqrt(area / ratio)
                        height = ratio * width
                        anchors.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return np.array(anchors)


class TestExact:
    @pytest.mark.parametrize("size", [(800, 1344), (800, 1333), (192, 192), (240, 320), (320, 240), (33, 500)])
    def test_same_as_detectron2(self, size):
        size = padded(*size)
        anchors = build_anchors(ModelConfig())(size, grids(*size), CPU)
        np.testing.assert_allclose(anchors.numpy(), detectron2_anchors(grids(*size)), rtol=1e-6, atol=1e-4)
        assert anchors.dtype == torch.float32

    def test_padding_moves_no_anchor(self):
        generator = AnchorGenerator(**DEFAULT)
        alone, beside_a_larger_image = (800, 1088), (1088, 1344)
        small = generator(alone, grids(*alone), CPU).split(generator.level_sizes(grids(*alone)))
        large = generator(beside_a_larger_image, grids(*beside_a_larger_image), CPU)
        large = large.split(generator.level_sizes(grids(*beside_a_larger_image)))
        for few, many, (h, w), (_, columns) in zip(
            small, large, grids(*alone), grids(*beside_a_larger_image), strict=True
        ):
            assert torch.equal(few.view(h, w, 9, 4), many.view(-1, columns, 9, 4)[:h, :w])

    def test_a_level_of_stride_4_has_half_of_p3s_sizes(self):
        model = ModelConfig.model_validate({"neck": {"finest": "p2"}})
        generator = build_anchors(model)
        anchors = generator((192, 320), grids(192, 320, finest=2), CPU)
        expected = detectron2_anchors(grids(192, 320, finest=2), finest_stride=4)
        np.testing.assert_allclose(anchors.numpy(), expected, rtol=1e-6, atol=1e-4)
        p2 = generator.level_sizes(grids(192, 320, finest=2))[0]
        assert torch.equal(anchors[p2:], AnchorGenerator(**DEFAULT)((192, 320), grids(192, 320), CPU))

    def test_the_smallest_sizes_do_not_vanish(self):
        anchors = AnchorGenerator(base_size=1, scales=1, ratios=[0.25])((8, 8), [(1, 1)], CPU)
        assert anchors.tolist() == [[-1, -0.25, 1, 0.25]]

    def test_a_compiled_graph_computes_them_again(self):
        generator = AnchorGenerator(**DEFAULT)
        compiled = torch.compile(lambda x: x + generator((64, 96), grids(64, 96), x.device).sum(), backend="eager")
        expected = generator((64, 96), grids(64, 96), CPU).sum()
        torch.testing.assert_close(compiled(torch.zeros(())), expected)


class TestTorchvision:
    def test_by_hand(self):
        generator = AnchorGenerator(base_size=32, scales=1, ratios=[0.5, 1.0], rule="torchvision")
        anchors = generator((16, 24), [(2, 3)], CPU)
        # ratio 0.5 is 45.25 x 22.63: half of it is (22.6, 11.3), rounded (23, 11)
        wide, square = torch.tensor([-23.0, -11.0, 23.0, 11.0]), torch.tensor([-16.0, -16.0, 16.0, 16.0])
        shifts = [(0, 0), (8, 0), (16, 0), (0, 8), (8, 8), (16, 8)]  # (x, y): along the row first
        expected = [cell + torch.tensor([x, y, x, y]) for x, y in shifts for cell in (wide, square)]
        assert torch.equal(anchors, torch.stack(expected))
        assert anchors.dtype == torch.float32

    def test_sizes_are_truncated_and_double_at_each_level(self):
        generator = AnchorGenerator(base_size=16, scales=2, ratios=[1.0], rule="torchvision")
        anchors = generator((64, 64), [(1, 1), (1, 1)], CPU)
        # 16, int(22.6) = 22, 32, int(45.3) = 45 whose half, 22.5, rounds to the even 22
        assert (anchors[:, 2] - anchors[:, 0]).tolist() == [16, 22, 32, 44]

    @pytest.mark.parametrize("size", [(32, 32), (256, 352), (800, 1344), (800, 800), (1216, 96), (608, 1024)])
    def test_same_as_torchvision(self, size):
        features = [torch.zeros(1, 1, *grid) for grid in grids(*size)]
        reference = _default_anchorgen()(ImageList(torch.zeros(1, 3, *size), [size]), features)[0]
        generator = build_anchors(ModelConfig.model_validate({"anchors": {"rule": "torchvision"}}))
        assert torch.equal(generator(size, grids(*size), CPU), reference)
        assert sum(generator.level_sizes(grids(*size))) == len(reference)

    @pytest.mark.parametrize("ratios", [[1.0], [0.01, 1.0]])
    def test_vanishing_anchors_are_an_error(self, ratios):
        with pytest.raises(InputError, match="base_size"):
            AnchorGenerator(base_size=1 if ratios == [1.0] else 8, scales=3, ratios=ratios, rule="torchvision")


@pytest.mark.parametrize("rule", RULES)
@torch.no_grad()
def test_the_detectors_are_those_of_its_config(rule):
    small = {"backbone": {"name": "resnet18", "weights": None}, "neck": {"channels": 8}, "head": {"depth": 0}}
    model = build_model(ModelConfig.model_validate({**small, "anchors": {"rule": rule}}), 1)
    anchors = model(torch.zeros(1, 3, 192, 320))["anchors"]  # P7 has 2 x 3 cells
    expected = {name: AnchorGenerator(**DEFAULT, rule=name)((192, 320), grids(192, 320), CPU) for name in RULES}
    assert torch.equal(anchors, expected[rule])
    assert not torch.allclose(expected["exact"], expected["torchvision"], atol=20)


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
    generator = AnchorGenerator(**TORCHVISION)
    anchors = generator((64, 64), grids(64, 64), CPU)
    for twin in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert torch.equal(twin((64, 64), grids(64, 64), CPU), anchors)


def test_made_on_the_cpu_whatever_the_default_device_is():
    generator = AnchorGenerator(**DEFAULT)
    expected = generator._anchors((64, 64), grids(64, 64))
    with torch.device("meta"):
        assert torch.equal(AnchorGenerator(**DEFAULT)._anchors((64, 64), grids(64, 64)), expected)
