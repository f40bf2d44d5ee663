import pytest
import torch
from torchvision.ops import box_iou

from detector.models.postprocess import Postprocess

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 40, 40], [50, 50, 70, 90]])


def outputs(scores, anchors=ANCHORS, levels=None, deltas=None):
    """scores: (R, K) nested list; the deltas are zero, so that boxes are the anchors."""
    logits = torch.logit(torch.tensor(scores, dtype=torch.float32))[None]
    deltas = torch.zeros(1, len(anchors), 4) if deltas is None else deltas
    return {"logits": logits, "deltas": deltas, "anchors": anchors, "anchors_per_level": levels or [len(anchors)]}


def run(outputs, size=(100, 100), orig_sizes=None, **changes):
    settings = {"score_threshold": 0.05, "nms": "by_class", "nms_iou": 0.5, "topk": 1000, "max_detections": 100}
    return Postprocess(**settings | changes)(outputs, [size] * len(outputs["logits"]), orig_sizes)[0]


def test_by_hand():
    # The first two overlap (IoU 9/11): of class 0 the better one stays; class 1 is suppressed apart from class 0.
    found = run(outputs([[0.8, 0.01], [0.9, 0.3], [0.04, 0.05], [0.0, 0.6]]))
    assert found["labels"].tolist() == [0, 1, 1]
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.6, 0.3]))
    assert torch.equal(found["boxes"], ANCHORS[[1, 3, 1]])
    assert [found[key].dtype for key in ("boxes", "scores", "labels")] == [torch.float32, torch.float32, torch.int64]


def test_topk_is_per_level_and_over_classes():
    scores = [[0.9, 0.8], [0.7, 0.1], [0.2, 0.3], [0.4, 0.1]]
    found = run(outputs(scores, levels=[2, 2]), topk=2, nms_iou=1.0)
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.8, 0.4, 0.3]))
    assert found["labels"].tolist() == [0, 1, 0, 1]
    assert torch.equal(found["boxes"], ANCHORS[[0, 0, 3, 2]])


def test_max_detections_keeps_the_best():
    found = run(outputs([[0.5], [0.4], [0.9], [0.6]]), max_detections=2)
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.6]))


def test_clipped_to_the_image_then_scaled_to_the_original():
    found = run(outputs([[0.0], [0.0], [0.0], [0.9]]), size=(80, 60), orig_sizes=[(160, 30)])
    assert found["boxes"].tolist() == [[25.0, 100.0, 30.0, 160.0]]  # 50, 50, 60, 80 before


def test_nothing_found():
    found = run(outputs([[0.01]] * 4), orig_sizes=[(50, 50)])
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
    }
    assert found["labels"].dtype == torch.int64


def test_one_empty_image_in_a_batch():
    both = outputs([[0.9], [0.01], [0.01], [0.01]])
    both["logits"] = torch.cat((both["logits"], torch.full((1, 4, 1), -9.0)))
    both["deltas"] = both["deltas"].expand(2, 4, 4)
    post = Postprocess(score_threshold=0.05, nms="by_class", nms_iou=0.5, topk=10, max_detections=10)
    first, second = post(both, [(100, 100), (50, 50)], [(100, 100), (50, 50)])
    assert len(first["boxes"]) == 1 and len(second["boxes"]) == 0


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 4), (0.5, 1), (1.0, 0)])
def test_threshold_is_exclusive_at_its_ends_too(threshold, kept):
    scores = [[0.5], [0.4], [0.51], [0.0001]]
    assert len(run(outputs(scores), score_threshold=threshold, nms_iou=1.0)["scores"]) == kept


def test_lower_precision_is_treated_in_float32():
    exact = outputs([[0.9], [0.1], [0.2], [0.3]], deltas=torch.full((1, 4, 4), 0.125))
    half = {**exact, "logits": exact["logits"].bfloat16(), "deltas": exact["deltas"].bfloat16()}
    full = {**half, "logits": half["logits"].float()}
    found, expected = run(half), run(full)
    assert all(found[key].dtype == expected[key].dtype for key in found)
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_outputs_that_require_gradients():
    training = outputs([[0.9], [0.1], [0.2], [0.3]])
    training["deltas"].requires_grad_()
    assert not run(training)["boxes"].requires_grad


def plain_nms(boxes, scores, iou):
    """Indices of the boxes that no better one overlaps by more than `iou`, best first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(box_iou(boxes[None, i], boxes[None, k]).item() <= iou for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.9])
def test_boxes_of_all_classes_suppress_each_other_if_they_are_to(iou):
    generator = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(30, 2, generator=generator)
    anchors = torch.cat((corners, corners + 10 + 30 * torch.rand(30, 2, generator=generator)), dim=1)
    scores = 0.1 + 0.8 * torch.rand(30, 3, generator=generator)
    boxes, flat, labels = anchors.repeat_interleave(3, dim=0), scores.flatten(), torch.arange(3).repeat(30)
    found = run(outputs(scores.tolist(), anchors=anchors), nms="all", nms_iou=iou)
    kept = plain_nms(boxes, flat, iou)
    assert torch.equal(found["labels"], labels[kept])
    torch.testing.assert_close(found["boxes"], boxes[kept])
    torch.testing.assert_close(found["scores"], flat[kept])
    assert len(kept) < len(run(outputs(scores.tolist(), anchors=anchors), nms_iou=iou)["labels"])


def test_boxes_that_are_not_finite_are_left_out():
    deltas = torch.zeros(1, 4, 4)
    deltas[0, 0, 1], deltas[0, 2, 0] = torch.nan, torch.inf
    found = run(outputs([[0.9], [0.8], [0.7], [0.6]], deltas=deltas))
    assert torch.equal(found["boxes"], ANCHORS[[1, 3]])
    torch.testing.assert_close(found["scores"], torch.tensor([0.8, 0.6]))
