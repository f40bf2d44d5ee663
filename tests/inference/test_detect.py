"""Detections of a batch that the device's memory cannot hold."""

import numpy as np
import pytest
import torch

from detector.config.model import ModelConfig
from detector.inference.detect import detect, split_into_micro_batches
from detector.models.build import build_model
from detector.models.postprocess import Postprocess
from detector.utils.errors import InputError

CPU = torch.device("cpu")
TARGETS = [{"size": (64, 64), "orig_size": (128, 64)} for _ in range(4)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    settings = {
        "backbone": {"name": "timm/test_resnet", "weights": None, "norm": "batch"},
        "neck": {"channels": 8},
        "head": {"depth": 1, "width": 8, "prior": 0.5},
        "anchors": {"base_size": 16},
    }
    return build_model(ModelConfig.model_validate(settings), 3).eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


POSTPROCESS = Postprocess(score_threshold=0.5, nms="by_class", nms_iou=0.5, topk=50, max_detections=20)


def test_halves_give_the_same_detections(model, images, little_memory):
    whole = detect(model, POSTPROCESS, images, TARGETS, CPU)
    little = little_memory(model, limit=1)
    halves = detect(little, POSTPROCESS, images, TARGETS, CPU)
    assert little.seen == [4, 2, 1, 1, 2, 1, 1]
    assert [len(found["scores"]) for found in whole] == [20] * 4
    for one, other in zip(whole, halves, strict=True):
        for key in ("boxes", "scores", "labels"):
            np.testing.assert_allclose(other[key], one[key], rtol=1e-5, atol=1e-4)


def test_boxes_are_in_original_pixels(model, images):
    fed = [target | {"orig_size": target["size"]} for target in TARGETS]
    (original, *_), (as_fed, *_) = (detect(model, POSTPROCESS, images, targets, CPU) for targets in (TARGETS, fed))
    torch.testing.assert_close(original["boxes"], as_fed["boxes"] * torch.tensor([1.0, 2.0, 1.0, 2.0]))


def test_an_image_that_does_not_fit_alone(model, images, little_memory):
    with pytest.raises(InputError, match="does not hold one image of 64x64 px; lower data.image_size"):
        detect(little_memory(model, limit=0), POSTPROCESS, images, TARGETS, CPU)


def test_batches_are_split_as_evenly_as_they_can(images):
    parts = list(split_into_micro_batches([(images, TARGETS), (images[:1], TARGETS[:1])], 3))
    assert [(len(part), len(targets)) for part, targets in parts] == [(2, 2), (2, 2), (1, 1)]
