"""Every shipped config is valid and says only what differs."""

from pathlib import Path

import pytest
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from detector.config.file import load_config
from detector.models.build import build_model

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_its_dataset_is_described(path):
    config = load_config(path)
    assert (path.parents[1] / config.data.dataset).is_file()
    assert config.output_dir == f"runs/{path.stem}"


@pytest.mark.parametrize(
    "name, weights",
    [("v1", RetinaNet_ResNet50_FPN_Weights.COCO_V1), ("v2", RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1)],
)
def test_torchvision_recipes_have_its_published_number_of_parameters(name, weights):
    config = load_config(CONFIGS[0].parent / f"retinanet_r50_fpn_{name}_coco.yaml")
    model = build_model(config.model, len(weights.meta["categories"]), pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == weights.meta["num_params"]
