"""Task-aligned assignment against loops over images, objects and anchors in numpy (float64); ties, broken outputs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config.loss import AssignerConfig
from detector.losses.assigners import build_assigner, candidates
from detector.losses.assigners.assignment import BACKGROUND
from detector.losses.assigners.tal import TaskAlignedAssigner

sys.path.append(str(Path(__file__).parent))  # pytest does not add it: --import-mode=importlib
cases = importlib.import_module("assigner_cases")


def predictions(per_cell: int, images: int, seed: int, *, alike: bool = False) -> dict:
    """A model's outputs. alike: of a detector that has learnt nothing: all scores the same, the anchors as boxes."""
    outputs = cases.pyramid(per_cell)
    generator = torch.Generator().manual_seed(seed)
    size = (images, len(outputs["anchors"]))
    factor = 0.0 if alike else 1.0
    outputs["logits"] = factor * 2 * torch.randn(*size, 3, generator=generator) - 3
    outputs["deltas"] = factor * 0.3 * torch.randn(*size, 4, generator=generator)
    return outputs


def decoded(delta: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    size = anchor[2:] - anchor[:2]
    centre = anchor[:2] + size / 2 + delta[:2] * size
    half = size * np.exp(np.minimum(delta[2:], np.log(1000 / 16))) / 2
    return np.concatenate([centre - half, centre + half])


def reference(outputs: dict, n: int, target: dict, topk: int, alpha: float, beta: float, every_object: bool):
    """The class, the object and the soft target of each anchor of image n."""
    anchors = outputs["anchors"].double().numpy()
    boxes = target["boxes"].double().numpy()
    predicted = [decoded(d, a) for d, a in zip(outputs["deltas"][n].double().numpy(), anchors, strict=True)]
    score = 1 / (1 + np.exp(-outputs["logits"][n].double().numpy()))
    owner, best = np.full(len(anchors), -1), np.zeros(len(anchors))
    alignment = np.zeros((len(boxes), len(anchors)))
    for m, (box, label) in enumerate(zip(boxes, target["labels"].tolist(), strict=True)):
        u = np.array([cases.iou(p, box) for p in predicted])
        alignment[m] = score[:, label] ** alpha * u**beta
        allowed = [r for r in range(len(anchors)) if cases.is_inside(anchors[r], box)]
        if every_object and not allowed:
            allowed = list(range(len(anchors)))
        taken = sorted((r for r in allowed if u[r] > 0), key=lambda r: (-alignment[m, r], r))[:topk]
        for r in taken:
            if u[r] > best[r]:
                owner[r], best[r] = m, u[r]
    scores = np.zeros(len(anchors))
    for m in range(len(boxes)):
        won = owner == m
        if won.any():
            scores[won] = alignment[m, won] / alignment[m, won].max() * best[won].max()
    labels = target["labels"].numpy()
    return [int(labels[m]) if m >= 0 else BACKGROUND for m in owner], owner.tolist(), scores


def assert_as_reference(outputs: dict, targets: list[dict], topk=13, alpha=1.0, beta=6.0, every_object=False) -> int:
    assigned = TaskAlignedAssigner(topk, alpha, beta, every_object=every_object)(outputs, targets)
    for n, target in enumerate(targets):
        classes, owner, scores = reference(outputs, n, target, topk, alpha, beta, every_object)
        assert assigned.classes[n].tolist() == classes
        positive = assigned.classes[n] >= 0
        assert assigned.objects[n][positive].tolist() == [m for m in owner if m >= 0]
        np.testing.assert_allclose(assigned.scores[n], scores, rtol=1e-4, atol=1e-6)
    assert assigned.scores.dtype == torch.float32 and assigned.scores.max() <= 1
    return int((assigned.classes >= 0).sum())


@pytest.mark.parametrize("per_cell", [1, 9])
@pytest.mark.parametrize("settings", [{}, {"topk": 4, "alpha": 0.5, "beta": 2.0, "every_object": True}])
@pytest.mark.parametrize("chunk", [1, 1 << 18])
def test_equals_the_loops(per_cell, settings, chunk, monkeypatch):
    monkeypatch.setattr(candidates, "CPU_CHUNK", chunk)
    targets = [cases.objects(count, seed) for seed, count in enumerate((0, 1, 12, 5))]
    assert assert_as_reference(predictions(per_cell, 4, seed=0), targets, **settings) > 20


@pytest.mark.parametrize("per_cell", [1, 3])
@pytest.mark.parametrize("every_object", [False, True])
def test_of_equal_anchors_and_objects_the_first_is_taken(per_cell, every_object):
    targets = [cases.objects(20, seed, whole=True) for seed in range(2)]
    outputs = predictions(per_cell, 2, seed=0, alike=True)
    assert assert_as_reference(outputs, targets, every_object=every_object) > 13


def test_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [30, 0, 40, 10]])
    logits = torch.tensor([[0.5, 0.5], [0.2, 0.5], [0.9, 0.5], [0.5, 0.5]]).logit()
    outputs = {"anchors": anchors, "anchors_per_cell": 1, "logits": logits[None], "deltas": torch.zeros(1, 4, 4)}
    target = {"boxes": torch.tensor([[0.0, 0, 12, 10]]), "labels": torch.tensor([0])}
    # u = 100/120, 100/120, 80/140; t = s u: 5/12, 1/6, 0.9 * 4/7
    assigned = TaskAlignedAssigner(2, 1.0, 1.0)(outputs, [target])
    assert assigned.classes.tolist() == [[0, -1, 0, -1]]
    # the greatest u of both is 5/6
    expected = [5 / 12 / (3.6 / 7) * 5 / 6, 0, 5 / 6, 0]
    assert assigned.scores[0].tolist() == pytest.approx(expected, rel=1e-5)
    # with the paper's exponents overlap decides, and then the score
    assigned = TaskAlignedAssigner(2)(outputs, [target])
    assert assigned.classes.tolist() == [[0, 0, -1, -1]]
    assert assigned.scores[0].tolist() == pytest.approx([5 / 6, 0.4 * 5 / 6, 0, 0], rel=1e-5)


def test_an_anchor_between_objects_goes_to_the_greater_overlap_and_targets_follow():
    anchors = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    outputs = {"logits": torch.zeros(1, 2, 2), "deltas": torch.zeros(1, 2, 4)}
    outputs |= {"anchors": anchors, "anchors_per_cell": 1}
    target = {"boxes": torch.tensor([[0.0, 0, 12, 10], [2, 0, 12, 10]]), "labels": torch.tensor([0, 1])}
    assigned = TaskAlignedAssigner()(outputs, [target])
    assert assigned.classes.tolist() == [[0, 1]]
    assert assigned.scores[0].tolist() == pytest.approx([10 / 12, 1])


def test_scores_and_overlaps_may_be_tiny():
    """t would underflow: 1e-26 to the power of 1 times 1e-3 to that of 6, and the like."""
    outputs = predictions(1, 1, seed=0)
    outputs["logits"] -= 60
    outputs["deltas"][..., 2:] -= 4  # boxes of 1/55 of the size
    target = {"boxes": torch.tensor([[20.0, 10, 70, 60]]), "labels": torch.tensor([1])}
    assigned = TaskAlignedAssigner()(outputs, [target])
    assert (assigned.classes == 1).sum() == 13
    u = [cases.iou(decoded(outputs["deltas"][0, r].double().numpy(), outputs["anchors"][r].double().numpy()),
                   target["boxes"][0].double().numpy())
         for r in (assigned.classes[0] == 1).nonzero().flatten().tolist()]  # fmt: skip
    assert assigned.scores.max().item() == pytest.approx(max(u), rel=1e-4)


def test_images_without_objects_are_background():
    assigned = TaskAlignedAssigner()(predictions(1, 2, seed=0), [cases.objects(0, 0)] * 2)
    assert (assigned.classes == BACKGROUND).all() and not assigned.scores.any()


def test_a_tiny_object_has_anchors_only_if_every_object_has():
    outputs = predictions(9, 1, seed=0, alike=True)
    target = {"boxes": torch.tensor([[33.0, 34, 37, 38], [40, 20, 80, 60]]), "labels": torch.tensor([1, 0])}
    plain = TaskAlignedAssigner()(outputs, [target]).classes
    assert (plain == 1).sum() == 0 and (plain == 0).sum() == 13
    every = TaskAlignedAssigner(every_object=True)(outputs, [target])
    assert 0 < (every.classes == 1).sum() <= 13
    assert every.scores[every.classes == 1].max() == pytest.approx(16 / 256)  # its IoU with a square of 16 pixels


def test_padding_needs_no_cells():
    """It holds no centre; if it took all cells for that, every object would be compared with the whole grid."""
    anchors = predictions(1, 1, seed=0)["anchors"]
    box = torch.tensor([[40.0, 20, 80, 60]])
    assigner = TaskAlignedAssigner(every_object=True)
    alone, _ = assigner._cells(anchors, box[None], torch.tensor([[True]]), at_least=13)
    padded = torch.cat([box, torch.zeros(1, 4)])[None]
    found, counted = assigner._cells(anchors, padded, torch.tensor([[True, False]]), at_least=13)
    assert found.shape[2] == alone.shape[2] < len(anchors)
    assert torch.equal(found[:, :1], alone) and not counted[:, 1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    outputs = predictions(1, 2, seed=0)
    outputs |= {name: outputs[name].to(dtype) for name in ("logits", "deltas")}
    assert_as_reference(outputs, [cases.objects(4, 0), cases.objects(2, 1)])


@pytest.mark.parametrize("name", ["logits", "deltas"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_predictions_that_are_not_finite_stay_in_the_loss(name, value):
    outputs = predictions(1, 2, seed=0)
    outputs[name][1, :, 2:] = value
    targets = [{"boxes": torch.tensor([[20.0, 10, 70, 60]]), "labels": torch.tensor([2])}] * 2
    assigned = TaskAlignedAssigner()(outputs, targets)
    assert ((assigned.classes == 2).sum(dim=1) == 13).all() and assigned.scores.isfinite().all()


def test_settings_reach_the_assigner():
    config = AssignerConfig(name="tal", tal_topk=5, tal_alpha=0.5, tal_beta=4.0, every_object=True)
    built = build_assigner(config)
    assert type(built) is TaskAlignedAssigner
    assert (built.topk, built.alpha, built.beta, built.every_object) == (5, 0.5, 4, True)
    built = build_assigner(AssignerConfig(name="tal"))
    assert (built.topk, built.alpha, built.beta, built.every_object) == (13, 1, 6, False)
