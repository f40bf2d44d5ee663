"""Max-IoU assignment: by hand, and against torchvision's Matcher image by image."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detector.config.loss import AssignerConfig
from detector.losses.assigners import build_assigner
from detector.losses.assigners import max_iou as module
from detector.losses.assigners.assignment import BACKGROUND, IGNORED
from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.utils.errors import InputError

ANCHORS = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4.5], [0, 0, 10, 3], [50, 50, 60, 60]]).float()


def target(boxes, labels) -> dict:
    return {"boxes": torch.tensor(boxes).float().view(-1, 4), "labels": torch.tensor(labels).long()}


def test_thresholds_by_hand():
    # IoU with the object: 1, 0.9, 0.45, 0.3, 0
    assigned = MaxIoUAssigner(low_quality=False)({"anchors": ANCHORS}, [target([[0, 0, 10, 10]], [7])])
    assert assigned.classes.tolist() == [[7, 7, IGNORED, BACKGROUND, BACKGROUND]]


def test_low_quality_gives_every_touched_object_its_best_anchors():
    # the small object overlaps anchor 4 with IoU 0.04 only; the far one touches no anchor
    objects = target([[0, 0, 10, 10], [50, 50, 52, 52], [90, 90, 95, 95]], [0, 1, 2])
    without = MaxIoUAssigner(low_quality=False)({"anchors": ANCHORS}, [objects]).classes
    assert without.tolist() == [[0, 0, IGNORED, BACKGROUND, BACKGROUND]]
    assigned = MaxIoUAssigner(low_quality=True)({"anchors": ANCHORS}, [objects])
    assert assigned.classes.tolist() == [[0, 0, IGNORED, BACKGROUND, 1]]
    assert assigned.objects[0, 4] == 1


def test_images_without_objects_are_background():
    empty = target([], [])
    assert MaxIoUAssigner()({"anchors": ANCHORS}, [empty, empty]).classes.tolist() == [[BACKGROUND] * 5] * 2
    mixed = MaxIoUAssigner()({"anchors": ANCHORS}, [empty, target([[50, 50, 60, 60]], [3])])
    assert mixed.classes.tolist() == [[BACKGROUND] * 5, [BACKGROUND] * 4 + [3]]


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("chunk", [1 << 18, 100])
def test_equals_torchvision_on_random_boxes(low_quality, chunk, monkeypatch):
    monkeypatch.setattr(module, "CPU_CHUNK", chunk)
    torch.manual_seed(0)
    corners = torch.randint(0, 50, (400, 2)).float()  # whole numbers: many ties
    anchors = torch.cat([corners, corners + torch.randint(4, 30, (400, 2))], dim=1)
    targets = []
    for count in (1, 9, 4):
        objects = anchors[torch.randperm(400)[:count]] + torch.tensor([0, 0, 1, 2])
        targets.append({"boxes": objects, "labels": torch.randint(0, 5, (count,))})
    assigned = MaxIoUAssigner(low_quality=low_quality)({"anchors": anchors}, targets)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    for n, t in enumerate(targets):
        matches = matcher(box_iou(t["boxes"], anchors))
        expected = torch.where(matches >= 0, t["labels"][matches.clamp(min=0)], matches)
        assert assigned.classes[n].tolist() == expected.tolist()
        positive = matches >= 0
        assert assigned.objects[n][positive].tolist() == matches[positive].tolist()
        assert torch.equal(assigned.boxes[n, : len(t["boxes"])], t["boxes"])


def test_settings_reach_the_assigner():
    built = build_assigner(AssignerConfig(positive_iou=0.7, negative_iou=0.2, low_quality=False))
    assert (built.positive_iou, built.negative_iou, built.low_quality) == (0.7, 0.2, False)
    with pytest.raises(InputError, match=r"loss\.assigner\.name: no 'max_iuo'; did you mean 'max_iou'"):
        build_assigner(AssignerConfig(name="max_iuo"))
