"""ATSS against loops over images, objects and anchors in numpy; ties, tiny objects, and objects outside."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config.loss import AssignerConfig
from detector.losses.assigners import build_assigner, candidates
from detector.losses.assigners.assignment import BACKGROUND
from detector.losses.assigners.atss import ATSSAssigner

sys.path.append(str(Path(__file__).parent))  # pytest does not add it: --import-mode=importlib
cases = importlib.import_module("assigner_cases")


def reference(outputs: dict, target: dict, topk: int, every_object: bool) -> tuple[list[int], list[int]]:
    """The class and the object of each anchor of one image."""
    anchors, boxes = outputs["anchors"].numpy(), target["boxes"].numpy()
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    best, owner = np.full(len(anchors), -1.0), np.full(len(anchors), -1)
    for m, box in enumerate(boxes):
        chosen, first = [], 0
        for count in outputs["anchors_per_level"]:
            away = ((box[:2] + box[2:]) / 2 - centres[first : first + count]) ** 2
            order = np.argsort(away[:, 0] + away[:, 1], kind="stable")
            chosen += (first + order[: topk * outputs["anchors_per_cell"]]).tolist()
            first += count
        ious = np.array([cases.iou(anchors[r], box) for r in chosen])
        threshold = np.mean(ious, dtype=np.float64) + np.std(ious, dtype=np.float64, ddof=1)
        positive = [u >= threshold and cases.is_inside(anchors[r], box) for r, u in zip(chosen, ious, strict=True)]
        if every_object and not any(positive):
            positive = [u == ious.max() > 0 for u in ious]
        for r, u, p in zip(chosen, ious, positive, strict=True):
            if p and u > best[r]:
                best[r], owner[r] = u, m
    labels = target["labels"].numpy()
    return [int(labels[m]) if m >= 0 else BACKGROUND for m in owner], owner.tolist()


def assert_as_reference(outputs: dict, targets: list[dict], topk: int = 9, every_object: bool = False) -> int:
    assigned = ATSSAssigner(topk, every_object=every_object)(outputs, targets)
    assert assigned.scores is None
    for n, target in enumerate(targets):
        classes, owner = reference(outputs, target, topk, every_object)
        assert assigned.classes[n].tolist() == classes
        positive = assigned.classes[n] >= 0
        assert assigned.objects[n][positive].tolist() == [m for m in owner if m >= 0]
        assert torch.equal(assigned.boxes[n, : len(target["boxes"])], target["boxes"])
    return int((assigned.classes >= 0).sum())


@pytest.mark.parametrize("per_cell", [1, 9])
@pytest.mark.parametrize("topk", [1, 9])
@pytest.mark.parametrize("every_object", [False, True])
@pytest.mark.parametrize("chunk", [1, 1 << 18])
def test_equals_the_loops(per_cell, topk, every_object, chunk, monkeypatch):
    monkeypatch.setattr(candidates, "CPU_CHUNK", chunk)
    outputs = cases.pyramid(per_cell)
    targets = [cases.objects(count, seed) for seed, count in enumerate((0, 1, 20, 7))]
    assert assert_as_reference(outputs, targets, topk, every_object) >= 5 * topk


@pytest.mark.parametrize("per_cell", [1, 9])
@pytest.mark.parametrize("every_object", [False, True])
def test_of_equal_cells_and_objects_the_first_is_taken(per_cell, every_object):
    targets = [cases.objects(16, seed, whole=True) for seed in range(3)]
    assert assert_as_reference(cases.pyramid(per_cell), targets, 9, every_object) > 9


def test_by_hand():
    # one level of four cells in a row, 8 pixels apart, with an anchor of 8x8 on each
    anchors = torch.tensor([[-4.0, -4, 4, 4], [4, -4, 12, 4], [12, -4, 20, 4], [20, -4, 28, 4]])
    outputs = {"anchors": anchors, "anchors_per_level": [4], "anchors_per_cell": 1}
    target = {"boxes": torch.tensor([[2.0, -4, 12, 4]]), "labels": torch.tensor([5])}
    # the three nearest have IoU 16/128, 64/80 and 0: mean 0.308, standard deviation (of a sample) 0.43, sum 0.738
    assert ATSSAssigner(3)(outputs, [target]).classes.tolist() == [[-1, 5, -1, -1]]
    # the two nearest: mean 0.4625, standard deviation 0.477: none is above, as of two there never is
    assert ATSSAssigner(2)(outputs, [target]).classes.tolist() == [[-1] * 4]
    assert ATSSAssigner(2, every_object=True)(outputs, [target]).classes.tolist() == [[-1, 5, -1, -1]]


def test_images_without_objects_are_background():
    outputs = cases.pyramid(1)
    assigned = ATSSAssigner()(outputs, [cases.objects(0, 0)] * 2)
    assert assigned.classes.shape == (2, len(outputs["anchors"])) and (assigned.classes == BACKGROUND).all()


@pytest.mark.parametrize("per_cell", [1, 9])
def test_a_tiny_object_has_anchors_only_if_every_object_has(per_cell):
    outputs = cases.pyramid(per_cell)
    target = {"boxes": torch.tensor([[33.0, 34, 37, 38], [40, 20, 80, 60]]), "labels": torch.tensor([1, 0])}
    plain = ATSSAssigner()(outputs, [target]).classes
    assert (plain == 1).sum() == 0 and (plain == 0).sum() > 0
    every = ATSSAssigner(every_object=True)(outputs, [target])
    tiny = every.classes[0] == 1
    assert 0 < tiny.sum() <= 9 * per_cell and torch.equal(every.classes == 0, plain == 0)
    overlap = torch.tensor([float(cases.iou(a.numpy(), target["boxes"][0].numpy())) for a in outputs["anchors"]])
    assert (overlap[tiny] == overlap.max()).all()


def test_objects_outside_the_image_get_nothing_and_do_no_harm():
    outputs = cases.pyramid(9)
    inside = {"boxes": torch.tensor([[40.0, 20, 80, 60]]), "labels": torch.tensor([2])}
    far = torch.tensor([[500.0, 500, 540, 530], [-900, -900, -850, -860]])
    both = {"boxes": torch.cat([far, inside["boxes"]]), "labels": torch.tensor([0, 1, 2])}
    for every_object in (False, True):
        assigner = ATSSAssigner(every_object=every_object)
        assert torch.equal(assigner(outputs, [both]).classes, assigner(outputs, [inside]).classes)


def test_an_image_is_assigned_alike_alone_and_beside_others():
    outputs = cases.pyramid(9)
    targets = [cases.objects(count, seed) for seed, count in enumerate((3, 0, 12))]
    together = ATSSAssigner()(outputs, targets)
    for n, target in enumerate(targets):
        assert torch.equal(ATSSAssigner()(outputs, [target]).classes[0], together.classes[n])


def test_settings_reach_the_assigner():
    built = build_assigner(AssignerConfig(name="atss", atss_topk=5, every_object=True))
    assert type(built) is ATSSAssigner and (built.topk, built.every_object) == (5, True)
    built = build_assigner(AssignerConfig(name="atss"))
    assert (built.topk, built.every_object) == (9, False)
