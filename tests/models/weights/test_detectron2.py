"""detectron2's layout, beside the one that test_parity.py detects with."""

import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from detector.models.weights.detectron2 import converted, rows_by_ratio

STEM = "backbone.bottom_up.stem.conv1"


@pytest.fixture(scope="module")
def torchvisions():
    """RetinaNet's state dict, with a first norm as after a training."""
    torch.manual_seed(0)
    state = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2).state_dict()
    state["backbone.body.bn1.running_var"] *= 4
    state["backbone.body.bn1.weight"] *= 0.3
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def by_ratio(state):
    heads = ("cls_logits.weight", "cls_logits.bias", "bbox_reg.weight", "bbox_reg.bias")
    return {name: rows_by_ratio(tensor, 3, 3) if name.endswith(heads) else tensor for name, tensor in state.items()}


def test_every_name_of_a_resnet50(torchvisions, as_detectron2):
    state, phrase = converted(as_detectron2(torchvisions, bgr=False))
    state = by_ratio(state)
    assert state.keys() == torchvisions.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in torchvisions.items())
    assert phrase.startswith("for RGB input with std 58.395, 57.12, 57.375 (by the gain of its first layer, 0.")


def test_bgr_pixels_go_into_the_first_convolution(torchvisions, as_detectron2):
    state, phrase = converted(as_detectron2(torchvisions, bgr=True))
    first = torchvisions["backbone.body.conv1.weight"]
    torch.testing.assert_close(state["backbone.body.conv1.weight"], first, rtol=1e-6, atol=1e-9)
    assert phrase.startswith("for BGR input with std 1, 1, 1 (by the gain of its first layer, 0.00")
    assert phrase.endswith(
        "if it strides in its 1x1 convolutions (MSRA), its detections only become right with fine-tuning"
    )


@pytest.mark.parametrize(
    ("mean", "std", "phrase"),
    [
        ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], "for BGR input with std 1, 1, 1 (by its pixel_mean, pixel_std)"),
        ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], "for BGR input with std 57.375, 57.12, 58.395"),
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "for RGB input with std 58.395, 57.12, 57.375"),
    ],
)
def test_the_input_that_a_file_tells(mean, std, phrase):
    """One image, as detectron2 and as this project feed it: the same activations of the first convolution."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=generator).float()  # RGB
    kernel = torch.randn(4, 3, 7, 7, generator=generator)
    state = {f"{STEM}.weight": kernel, "pixel_mean": torch.tensor(mean).view(3, 1, 1), "pixel_std": torch.tensor(std)}
    theirs = image.flip(1) if "BGR" in phrase else image
    theirs = (theirs - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = torch.conv2d(theirs, kernel, padding=3)

    found, said = converted(state)
    assert found.keys() == {"backbone.body.conv1.weight"}
    ours = image / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    ours /= torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    activations = torch.conv2d(ours, found["backbone.body.conv1.weight"], padding=3)
    torch.testing.assert_close(activations, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))
    assert said.startswith(phrase) and "fine-tuning" not in said


def test_another_mean_is_said():
    state = {
        f"{STEM}.weight": torch.ones(1, 3, 7, 7),
        "pixel_mean": torch.full((3,), 127.5),
        "pixel_std": torch.ones(3),
    }
    assert "its pixel_mean is not ImageNet's" in converted(state)[1]


def test_a_tower_with_norms():
    """Sequential(conv, norm, ReLU, conv, norm, ReLU): the convolutions are at 0 and 3."""
    weights = {0: (4, 4, 3, 3), 1: (4,), 3: (4, 4, 3, 3), 4: (4,)}
    state = {f"head.cls_subnet.{i}.weight": torch.full(shape, 10.0 * i) for i, shape in weights.items()}
    found, _ = converted(state | {f"head.cls_subnet.{i}.bias": torch.zeros(4) for i in weights})
    assert found.keys() == {name.replace("weight", kind) for name in found for kind in ("weight", "bias")}
    values = {name: float(tensor.flatten()[0]) for name, tensor in found.items() if name.endswith("weight")}
    conv = "head.classification_head.conv"
    assert values == {
        f"{conv}.0.0.weight": 0,
        f"{conv}.0.1.weight": 10,
        f"{conv}.1.0.weight": 30,
        f"{conv}.1.1.weight": 40,
    }


def test_a_pyramid_with_norms():
    state = {
        f"backbone.fpn_{kind}4{rest}": torch.ones(1)
        for kind in ("lateral", "output")
        for rest in (".weight", ".norm.bias")
    }
    assert set(converted(state)[0]) == {
        "backbone.fpn.inner_blocks.1.0.weight",
        "backbone.fpn.inner_blocks.1.1.bias",
        "backbone.fpn.layer_blocks.1.0.weight",
        "backbone.fpn.layer_blocks.1.1.bias",
    }


def test_rows_by_ratio():
    """2 sizes, 3 ratios, 2 classes: row = (size * 3 + ratio) * 2 + class becomes (ratio * 2 + size) * 2 + class."""
    rows = torch.arange(12)
    assert rows_by_ratio(rows, scales=2, ratios=3).tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
