"""Criterion and box losses: against torchvision's RetinaNet, by hand, and where there is nothing to learn."""

import math
import re

import numpy as np
import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList

from detector.config.loss import AssignerConfig, LossConfig
from detector.losses import criterion as criterion_module
from detector.losses.assigners import ASSIGNERS
from detector.losses.assigners.assignment import Assignment
from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.box import BOX_LOSSES, box_loss
from detector.losses.class_alpha import inverse_frequency
from detector.losses.class_statistics import ClassStatistics
from detector.losses.classification import CLASSIFICATION_LOSSES
from detector.losses.classification.adaptive_focal import AdaptiveFocal
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal
from detector.losses.criterion import Criterion, build_criterion, set_class_weights
from detector.models.anchors import AnchorGenerator
from detector.ops.boxes import decode, encode
from detector.utils.errors import InputError


def test_box_losses_by_hand():
    anchors, boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10]])
    zero = torch.zeros(1, 4)
    assert box_loss(zero, anchors, boxes, name="smooth_l1", beta=0).item() == pytest.approx(0.5)
    assert box_loss(zero, anchors, boxes, name="smooth_l1", beta=1).item() == pytest.approx(0.125)
    # IoU 1/3, hull 150 of which 150 covered; centres 5 apart, hull diagonal^2 325
    assert box_loss(zero, anchors, boxes, name="giou").item() == pytest.approx(2 / 3, abs=1e-5)
    assert box_loss(zero, anchors, boxes, name="diou").item() == pytest.approx(2 / 3 + 25 / 325, abs=1e-5)
    assert box_loss(zero, anchors, boxes, name="ciou").item() == pytest.approx(2 / 3 + 25 / 325, abs=1e-5)
    with pytest.raises(InputError, match="loss.box: no 'iou'; did you mean"):
        box_loss(zero, anchors, boxes, name="iou")


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_box_losses_are_weighted_one_by_one(name):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 2, generator=generator) * 20
    anchors, boxes = (torch.cat([corners, corners + 5 + shift], dim=1) for shift in (0, torch.arange(3)[:, None]))
    deltas, weights = torch.randn(3, 4, generator=generator) / 4, torch.tensor([2.0, 0, 0.5])
    each = [box_loss(*(t[i : i + 1] for t in (deltas, anchors, boxes)), name=name) for i in range(3)]
    torch.testing.assert_close(box_loss(deltas, anchors, boxes, weights, name=name), 2 * each[0] + each[2] / 2)
    torch.testing.assert_close(box_loss(deltas, anchors, boxes, name=name), sum(each))


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_no_positives_no_nan(name):
    outputs = {
        "logits": torch.randn(2, 6, 3, requires_grad=True),
        "deltas": torch.randn(2, 6, 4, requires_grad=True),
        "anchors": torch.rand(6, 4) + torch.tensor([0, 0, 2, 2]),
    }
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = Criterion(assigner=MaxIoUAssigner(), box=name)(outputs, [empty, empty])
    assert losses["loss_box"].item() == 0 and losses["num_positives"].item() == 0 and losses["loss_cls"] > 0
    (losses["loss_cls"] + losses["loss_box"]).backward()
    assert outputs["deltas"].grad.abs().sum() == 0 and outputs["logits"].grad.isfinite().all()


@pytest.mark.parametrize("build, box", [(retinanet_resnet50_fpn, "smooth_l1"), (retinanet_resnet50_fpn_v2, "giou")])
def test_losses_equal_torchvisions_for_one_image(build, box):
    """torchvision's head and losses on given features' outputs; ours on the same outputs."""
    torch.manual_seed(0)
    reference = build(weights=None, weights_backbone=None, num_classes=5)
    image = torch.zeros(1, 3, 224, 160)
    features = [torch.zeros(1, 256, -(-224 // s), -(-160 // s)) for s in (8, 16, 32, 64, 128)]
    anchors = reference.anchor_generator(ImageList(image, [(224, 160)]), features)
    count = len(anchors[0])
    outputs = {"cls_logits": torch.randn(1, count, 5) - 2, "bbox_regression": torch.randn(1, count, 4) / 3}
    boxes = torch.tensor([[10.0, 20, 70, 90], [60, 60, 150, 200], [100, 10, 116, 22], [12, 22, 75, 95]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 4, 2, 1])}]
    expected = reference.compute_loss(targets, outputs, anchors)

    criterion = Criterion(assigner=MaxIoUAssigner(), box=box)
    ours = {"logits": outputs["cls_logits"], "deltas": outputs["bbox_regression"], "anchors": anchors[0]}
    losses = criterion(ours, targets)
    positives = losses["num_positives"]
    torch.testing.assert_close(losses["loss_cls"] / positives, expected["classification"], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses["loss_box"] / positives, expected["bbox_regression"], rtol=1e-5, atol=0)


def test_returns_sums_and_the_number_of_positives():
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    outputs = {"logits": torch.zeros(2, 2, 1), "deltas": torch.zeros(2, 2, 4), "anchors": anchors}
    targets = [
        {"boxes": anchors[:1].clone(), "labels": torch.tensor([0])},
        {"boxes": anchors + torch.tensor([0, 0, 0, 1]), "labels": torch.tensor([0, 0])},
    ]
    losses = Criterion(assigner=MaxIoUAssigner(), classification=Focal(alpha=None, gamma=0), box_weight=2.0)(
        outputs, targets
    )
    assert losses["num_positives"].item() == 3
    assert losses["loss_cls"].item() == pytest.approx(4 * 0.693147, rel=1e-5)
    # two boxes one pixel taller: dy = 0.05, dh = log(1.1)
    assert losses["loss_box"].item() == pytest.approx(2 * 2 * (0.05 + 0.0953102), rel=1e-5)


@pytest.mark.parametrize("kind", [QualityFocal, Varifocal])
def test_quality_is_the_iou_of_the_predicted_box(kind):
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    objects = torch.tensor([[20.0, 20, 30, 30], [0, 0, 10, 10]])
    predicted = torch.tensor([[0.0, 0, 10, 5], [20, 20, 30, 22]])  # IoU 0.5 and 0.2
    deltas = torch.cat([encode(predicted, anchors[:2]), torch.zeros(1, 4)])[None].requires_grad_()
    logits = torch.randn(1, 3, 2, requires_grad=True)
    outputs = {"logits": logits, "deltas": deltas, "anchors": anchors}
    targets = [{"boxes": objects, "labels": torch.tensor([1, 0])}]
    losses = Criterion(assigner=MaxIoUAssigner(), classification=kind())(outputs, targets)
    expected = kind()(logits, torch.tensor([[0, 1, -1]]), torch.tensor([0.5, 0.2]))
    torch.testing.assert_close(losses["loss_cls"], expected)
    assert torch.autograd.grad(losses["loss_cls"], deltas, allow_unused=True)[0] is None


class Assigned:
    """An assigner that has decided: anchors 0 and 2 of image 0 and anchor 1 of image 1 are positive."""

    def __init__(self, scores=None):
        self.scores = None if scores is None else torch.zeros(2, 4).index_put(POSITIVES, torch.tensor(scores))

    def __call__(self, outputs, targets):
        classes = torch.full((2, 4), -1).index_put(POSITIVES, torch.tensor([1, 0, 1]))
        objects = torch.zeros(2, 4, dtype=torch.int64).index_put(POSITIVES, torch.tensor([0, 1, 0]))
        return Assignment(classes, objects, BOXES, self.scores)


POSITIVES = torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1])
BOXES = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 40, 40]], [[5, 5, 15, 25], [0, 0, 0, 0]]])
SCORES = [0.9, 0.25, 0.5]


def some_outputs() -> dict:
    generator = torch.Generator().manual_seed(0)
    anchors = torch.tensor([[1.0, 0, 11, 10], [4, 6, 16, 24], [20, 22, 44, 40], [60, 60, 80, 80]])
    return {
        "logits": torch.randn(2, 4, 2, generator=generator),
        "deltas": torch.randn(2, 4, 4, generator=generator) / 5,
        "anchors": anchors,
    }


def of_positives(outputs: dict) -> tuple[list[float], list[float], list[float]]:
    """By hand, of each positive: the smooth L1 loss of its box, the IoU of its box, its greatest score."""
    losses, overlaps, scores = [], [], []
    for n, r, m in ((0, 0, 0), (0, 2, 1), (1, 1, 0)):
        delta, anchor, box = outputs["deltas"][n, r], outputs["anchors"][r], BOXES[n, m]
        losses.append((delta - encode(box, anchor)).abs().sum().item())
        x1, y1, x2, y2 = decode(delta, anchor).tolist()
        a1, b1, a2, b2 = box.tolist()
        inter = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
        overlaps.append(inter / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inter))
        scores.append(outputs["logits"][n, r].sigmoid().max().item())
    return losses, overlaps, scores


@pytest.mark.parametrize("weighting", ["assigner", "score", "iou"])
@pytest.mark.parametrize("given", [None, SCORES])
@pytest.mark.parametrize("kind", [Focal, QualityFocal])
def test_both_losses_over_the_normaliser_are_weighted_means(weighting, given, kind):
    """Of the box loss, as the papers weigh it; of the classification loss, over its positives or its soft targets."""
    outputs = some_outputs()
    losses = Criterion(assigner=Assigned(given), classification=kind(), box_weighting=weighting)(outputs, [{}, {}])
    each, overlaps, greatest = of_positives(outputs)
    weights = {"assigner": given or [1.0, 1, 1], "score": greatest, "iou": overlaps}[weighting]
    expected = sum(w * x for w, x in zip(weights, each, strict=True)) / sum(weights)
    assert (losses["loss_box"] / losses["normaliser"]).item() == pytest.approx(expected, rel=1e-4)
    soft = given is not None and kind is QualityFocal
    assert losses["num_positives"].item() == 3
    assert losses["normaliser"].item() == pytest.approx(sum(SCORES) if soft else 3)
    classes = Assigned()(outputs, [{}, {}]).classes
    quality = torch.tensor(given or overlaps) if kind is QualityFocal else None
    torch.testing.assert_close(losses["loss_cls"], kind()(outputs["logits"], classes, quality))


@pytest.mark.parametrize(
    ("kind", "given", "weighting", "computed"),
    [
        (Focal, None, "assigner", False),
        (Focal, SCORES, "score", False),
        (Focal, None, "iou", True),
        (QualityFocal, None, "assigner", True),
        (QualityFocal, SCORES, "assigner", False),
    ],
)
def test_the_overlap_is_computed_only_where_it_is_used(kind, given, weighting, computed, monkeypatch):
    calls = []
    monkeypatch.setattr(criterion_module, "_overlap", lambda *boxes: calls.append(boxes) or torch.ones(3))
    Criterion(assigner=Assigned(given), classification=kind(), box_weighting=weighting)(some_outputs(), [{}, {}])
    assert bool(calls) == computed


def test_boxes_that_all_miss_their_objects_still_have_a_loss():
    outputs = some_outputs()
    outputs["deltas"][..., :2] += 50
    losses = Criterion(assigner=Assigned(), box="giou", box_weighting="iou")(outputs, [{}, {}])
    alike = Criterion(assigner=Assigned(), box="giou")(outputs, [{}, {}])
    torch.testing.assert_close(losses["loss_box"], alike["loss_box"])


def test_weights_have_no_gradient():
    outputs = some_outputs()
    deltas, logits = outputs["deltas"].requires_grad_(), outputs["logits"].requires_grad_()
    for weighting in ("score", "iou"):
        loss = Criterion(assigner=Assigned(), box_weighting=weighting)(outputs, [{}, {}])["loss_box"]
        assert torch.autograd.grad(loss, logits, allow_unused=True, retain_graph=True)[0] is None
        slope = torch.autograd.grad(loss, deltas)[0][POSITIVES]
        assert (slope.abs() == slope.abs()[:, :1]).all()  # of L1: the weight, up to its sign


ASSIGNERS_AND_LOSSES = [(name, loss) for name in ASSIGNERS for loss in CLASSIFICATION_LOSSES]


@pytest.mark.parametrize("assigner, classification", ASSIGNERS_AND_LOSSES)
def test_each_assigner_works_with_each_loss(assigner, classification):
    """And with the statistics of the classes, and weights that come later; in a state that can be gone on from."""
    by_class = 0.25 if classification in ("quality_focal", "varifocal") else [0.2, 0.3, 0.4]
    settings = LossConfig(
        classification=classification, assigner=AssignerConfig(name=assigner), box="giou", alpha=by_class
    )
    generator = AnchorGenerator(base_size=16, scales=1, ratios=[0.5, 2.0])
    grids = [(8, 8), (4, 4), (2, 2)]
    anchors = generator((64, 64), grids, torch.device("cpu"))
    logits = (torch.randn(2, len(anchors), 3, generator=torch.Generator().manual_seed(0)) - 3).requires_grad_()
    deltas = torch.zeros(2, len(anchors), 4, requires_grad=True)
    outputs = {"logits": logits, "deltas": deltas, "anchors": anchors, "anchors_per_cell": 2}
    outputs["anchors_per_level"] = generator.level_sizes(grids)
    some = {"boxes": torch.tensor([[4.0, 4, 30, 20], [30, 30, 50, 62], [8, 37, 26, 47]]), "labels": torch.arange(3)}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    whole, stopped = (build_criterion(settings, COUNTS, statistics=ClassStatistics(3)) for _ in range(2))
    for criterion in (whole, stopped):
        losses = criterion(outputs, [some, empty])
    (losses["loss_cls"] + losses["loss_box"]).backward()
    assert logits.grad.isfinite().all() and deltas.grad.isfinite().all() and deltas.grad[0].any()
    assert not deltas.grad[1].any() and losses["num_positives"] >= 3
    resumed = build_criterion(settings, COUNTS, statistics=ClassStatistics(3))
    resumed.load_state_dict(stopped.state_dict())
    for criterion in (whole, resumed):
        set_class_weights(criterion, settings, COUNTS, deferred=True)
    for batch in ([empty, some], [empty, empty]):
        first, second = whole(outputs, batch), resumed(outputs, batch)
        assert all(torch.equal(first[name], second[name]) for name in first)
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    figures = whole.statistics.summary(["a", "b", "c"])["per_class"]
    assert all(row["positives"] > 0 and 0 < row["score_positive"] < 1 for row in figures.values())


COUNTS = np.array([600, 300, 100])


@pytest.mark.parametrize(
    "settings, kind",
    [
        ({}, Focal),
        ({"classification": "cross_entropy", "alpha": None}, Focal),
        ({"classification": "equalized_focal", "equalized_scale": 4.0}, EqualizedFocal),
        ({"classification": "quality_focal"}, QualityFocal),
        ({"classification": "varifocal"}, Varifocal),
        ({"classification": "varifocal", "gamma": [0.5, 1.0, 2.0]}, Varifocal),
        ({"classification": "quality_focal", "gamma": [0.5, 1.0, 2.0]}, QualityFocal),
        ({"classification": "adaptive_focal", "gamma": 1.0}, AdaptiveFocal),
        ({"alpha": "effective_number"}, Focal),
        ({"alpha": [0.1, 0.2, 0.3], "gamma": [1.0, 2.0, 3.0]}, Focal),
        ({"alpha": "inverse_frequency", "classification": "equalized_focal", "gamma": [1.0, 2.0, 3.0]}, EqualizedFocal),
    ],
)
def test_every_setting_builds_its_loss_and_trains(settings, kind):
    criterion = build_criterion(LossConfig(**settings), COUNTS, ["a", "b", "c"])
    assert type(criterion.classification) is kind
    outputs = {
        "logits": torch.randn(2, 6, 3, requires_grad=True),
        "deltas": torch.randn(2, 6, 4, requires_grad=True),
        "anchors": torch.rand(6, 4) + torch.tensor([0, 0, 2, 2]),
    }
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    some = {"boxes": outputs["anchors"][:2] + 0.1, "labels": torch.tensor([2, 0])}
    for targets in ([empty, empty], [some, empty]):
        losses = criterion(outputs, targets)
        (losses["loss_cls"] + losses["loss_box"]).backward()
        assert outputs["logits"].grad.isfinite().all() and outputs["logits"].grad.any()


def test_weights_by_class_may_come_later():
    loss = LossConfig(classification="equalized_focal", alpha=[0.1, 0.2, 0.6])
    criterion = build_criterion(loss, COUNTS)
    criterion.classification.negative_gradient += 3
    for deferred, expected in ((True, [0.25] * 3), (False, [0.1, 0.2, 0.6]), (True, [0.25] * 3)):
        set_class_weights(criterion, loss, COUNTS, deferred=deferred)
        assert criterion.classification.positive.tolist() == pytest.approx(expected)
        assert criterion.classification.negative == 0.75
        assert criterion.classification.negative_gradient.tolist() == [3, 3, 3] and criterion.classification.training
    cautious = LossConfig(gamma=0.5, alpha=[0.1, 0.2, 0.6])
    criterion = build_criterion(cautious, COUNTS)
    set_class_weights(criterion, cautious, COUNTS, deferred=True)
    assert criterion.classification.positive.tolist() == [0.5] * 3 and criterion.classification.negative == 0.5
    plain = build_criterion(LossConfig(), COUNTS)
    set_class_weights(plain, LossConfig(), COUNTS, deferred=True)
    assert plain.classification.positive == 0.25


def test_weights_that_come_later_follow_the_gamma_of_adaptive_focal():
    loss = LossConfig(classification="adaptive_focal", alpha="inverse_frequency", defer_alpha=0.5)
    criterion = build_criterion(loss, COUNTS)
    criterion.classification.right.fill_(0.9)  # gamma 0.5, for which alpha is 0.5
    logits, classes = torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]])
    pair = 0.5**0.5 * math.log(2)
    for deferred, positives in ((True, 3 * 0.5), (False, 0.5 * (1 + 2 + 3))):
        set_class_weights(criterion, loss, COUNTS, deferred=deferred)
        expected = (positives + 6 * 0.5) * pair
        assert criterion.classification.eval()(logits, classes).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["focal", "equalized_focal"])
def test_negatives_keep_what_suits_gamma(name):
    """alpha and 1 - alpha of the focal loss paper's pairs, whether positives have weights by class or not."""
    for settings, positive, negative in (
        ({"gamma": 0.5}, 0.5, 0.5),
        ({"gamma": [0.25, 0.5, 2.0]}, [0.625, 0.5, 0.25], [0.375, 0.5, 0.75]),
        ({"gamma": 0.5, "alpha": "inverse_frequency"}, [0.5, 1.0, 1.5], 0.5),
        ({"gamma": [0.25, 0.5, 2.0], "alpha": [0.1, 0.2, 0.3]}, [0.1, 0.2, 0.3], [0.375, 0.5, 0.75]),
        ({"gamma": 0.5, "alpha": 0.1}, 0.1, 0.9),
        ({"gamma": 0.5, "alpha": None}, 1.0, 1.0),
    ):
        loss = build_criterion(LossConfig(classification=name, **settings), COUNTS).classification
        for weight, expected in ((loss.positive, positive), (loss.negative, negative)):
            assert torch.as_tensor(weight).tolist() == pytest.approx(expected)


def test_cross_entropy_has_the_alpha_of_gamma_0_and_is_plain_with_null():
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[0, -1, 2, -1, 1]] * 2)
    targets = torch.nn.functional.one_hot(classes.clamp(min=0), 3) * (classes >= 0)[..., None]
    pairs = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none")
    for settings, positive, negative in (({}, 0.75, 0.25), ({"alpha": None}, 1.0, 1.0)):
        loss = build_criterion(LossConfig(classification="cross_entropy", **settings), COUNTS).classification
        expected = (pairs * torch.where(targets == 1, positive, negative)).sum()
        torch.testing.assert_close(loss(logits, classes), expected)


def test_settings_reach_the_loss():
    by_frequency = build_criterion(LossConfig(alpha="inverse_frequency"), COUNTS).classification
    assert by_frequency.positive.tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert by_frequency.negative == 0.75
    cross_entropy = build_criterion(LossConfig(classification="cross_entropy", alpha=None), COUNTS).classification
    assert (cross_entropy.gamma, cross_entropy.positive, cross_entropy.negative) == (0, 1, 1)
    settings = LossConfig(classification="equalized_focal", equalized_scale=4.0, gamma=1.0)
    assert build_criterion(LossConfig(), COUNTS).box_weighting == "assigner"
    assert build_criterion(LossConfig(box_weighting="iou"), COUNTS).box_weighting == "iou"
    equalized = build_criterion(settings, COUNTS).classification
    assert (equalized.scale, equalized.base_gamma) == (4, 1) and equalized.gamma.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["quality_focal", "varifocal"])
def test_weights_by_class_of_a_loss_without_alpha_are_relative_to_auto(name):
    given = build_criterion(LossConfig(classification=name, alpha=[0.25, 0.5, 0.75]), COUNTS)
    assert given.classification.weight.tolist() == [1, 2, 3]
    by_frequency = LossConfig(classification=name, alpha="inverse_frequency", defer_alpha=0.5)
    criterion = build_criterion(by_frequency, COUNTS)
    assert criterion.classification.weight.tolist() == pytest.approx(inverse_frequency(COUNTS).tolist())
    set_class_weights(criterion, by_frequency, COUNTS, deferred=True)
    assert criterion.classification.weight.tolist() == [1, 1, 1]
    assert build_criterion(LossConfig(classification=name), COUNTS).classification.weight == 1


@pytest.mark.parametrize(("name", "more"), [("alpha", {}), ("gamma", {}), ("gamma", {"alpha": "effective_number"})])
def test_a_list_needs_one_value_a_class(name, more):
    with pytest.raises(InputError, match=rf"loss.{name} has 2 values, but the data has 3 classes \(a, b, c\)"):
        build_criterion(LossConfig(**{name: [0.5, 0.5]}, **more), COUNTS, ["a", "b", "c"])


def test_cross_entropy_has_no_gamma_to_be_wrong():
    build_criterion(LossConfig(classification="cross_entropy", gamma=[0.5, 0.5]), COUNTS)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"classification": "adaptive_focal", "gamma": [2.0] * 3}, "loss.gamma: adaptive_focal adapts one gamma"),
        ({"classification": "equalized_focal", "gamma": 0.0}, "loss.gamma: equalized_focal divides by it"),
        ({"classification": "equalized_focal", "gamma": [1.0, 0.0, 1.0]}, "loss.gamma: equalized_focal divides by it"),
        ({"classification": "focl"}, "loss.classification: no 'focl'; did you mean 'focal'?"),
        ({"box": "gio"}, "loss.box: no 'gio'; did you mean"),
        ({"assigner": AssignerConfig(name="ats")}, "loss.assigner.name: no 'ats'; did you mean 'atss'?"),
    ],
)
def test_settings_that_no_loss_can_use(settings, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        build_criterion(LossConfig(**settings), COUNTS, ["a", "b", "c"])


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_every_entry_of_the_table_is_built(name):
    loss = build_criterion(LossConfig(classification=name), COUNTS).classification
    logits, quality = torch.randn(1, 5, 3), torch.tensor([0.5])
    classes = torch.tensor([[0, -1, -1, -2, -1]])
    assert loss(logits, classes, quality if loss.needs_quality else None) > 0
