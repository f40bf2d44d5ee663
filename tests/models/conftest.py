"""Small detectors, and state dicts in other layouts than today's torchvision's, renamed by hand."""

import pytest
import torch

from detector.config.model import ModelConfig
from detector.models.build import build_model

IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def small_model():
    """num_classes, changes of the `model` section → a detector with a ResNet-18 and narrow towers."""

    def build(num_classes, **changes):
        settings = {
            "backbone": {"name": "resnet18", "weights": None, "norm": "batch"},
            "neck": {"channels": 16},
            "head": {"width": 16, "depth": 1},
        }
        return build_model(ModelConfig.model_validate({**settings, **changes}), num_classes)

    return build


@pytest.fixture(scope="session")
def with_old_names():
    """A state dict of torchvision's RetinaNet → in the names that it had before torchvision 0.13."""

    def rename(state):
        renamed = {}
        for name, tensor in state.items():
            for tower in ("head.classification_head.conv.", "head.regression_head.conv."):
                if name.startswith(tower):
                    index, _, kind = name.removeprefix(tower).split(".")
                    name = f"{tower}{2 * int(index)}.{kind}"
            if "inner_blocks" in name or "layer_blocks" in name:
                name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            if not name.endswith("num_batches_tracked"):
                renamed[name] = tensor
        return renamed

    return rename


@pytest.fixture(scope="session")
def as_detectron2():
    """A state dict of torchvision's RetinaNet of 3 x 3 anchors without norms in the head → as detectron2 saves it.

    bgr: for BGR in 0..255, minus ImageNet's mean, as detectron2's own models; else for RGB divided by ImageNet's std,
    as the models that its tools/convert-torchvision-to-d2.py starts from.
    """

    def convert(state, bgr):
        converted = {}
        for name, tensor in state.items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.startswith("backbone.body."):
                if "layer" not in name:
                    name = name.replace("backbone.body.", "backbone.body.stem.")
                for stage in (1, 2, 3, 4):
                    name = name.replace(f"layer{stage}", f"res{stage + 1}").replace(f"bn{stage}", f"conv{stage}.norm")
                name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
                name = name.replace("backbone.body.", "backbone.bottom_up.")
            for level in (0, 1, 2):
                name = name.replace(f"fpn.inner_blocks.{level}.0", f"fpn_lateral{level + 3}")
                name = name.replace(f"fpn.layer_blocks.{level}.0", f"fpn_output{level + 3}")
            name = name.replace("fpn.extra_blocks", "top_block")
            for layer in (0, 1, 2, 3):
                name = name.replace(f"classification_head.conv.{layer}.0", f"cls_subnet.{2 * layer}")
                name = name.replace(f"regression_head.conv.{layer}.0", f"bbox_subnet.{2 * layer}")
            name = name.replace("classification_head.cls_logits", "cls_score")
            converted[name.replace("regression_head.bbox_reg", "bbox_pred")] = tensor
        for name in ("head.cls_score.weight", "head.cls_score.bias", "head.bbox_pred.weight", "head.bbox_pred.bias"):
            anchors = converted[name].chunk(9)  # of a ratio, the three sizes
            converted[name] = torch.cat([anchors[3 * ratio + size] for size in range(3) for ratio in range(3)])
        if bgr:
            first = converted["backbone.bottom_up.stem.conv1.weight"] / (255 * IMAGENET_STD)[:, None, None]
            converted["backbone.bottom_up.stem.conv1.weight"] = first[:, [2, 1, 0]]
        for level in range(5):
            converted[f"anchor_generator.cell_anchors.{level}"] = torch.zeros(9, 4)
        return converted

    return convert
