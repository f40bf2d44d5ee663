"""Criterion and box losses: against torchvision's RetinaNet, by hand, and where there is nothing to learn."""

import re

import numpy as np
import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList

from detector.config.schema import AssignerConfig, LossConfig
from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.box import BOX_LOSSES, box_loss
from detector.losses.classification import CLASSIFICATION_LOSSES
from detector.losses.classification.adaptive_focal import AdaptiveFocal
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal
from detector.losses.criterion import Criterion, build_criterion, set_class_weights
from detector.ops.boxes import encode
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
    equalized = build_criterion(settings, COUNTS).classification
    assert (equalized.scale, equalized.base_gamma) == (4, 1) and equalized.gamma.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["alpha", "gamma"])
def test_a_list_needs_one_value_a_class(name):
    with pytest.raises(InputError, match=rf"loss.{name} has 2 values, but the data has 3 classes \(a, b, c\)"):
        build_criterion(LossConfig(**{name: [0.5, 0.5]}), COUNTS, ["a", "b", "c"])


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"classification": "varifocal", "alpha": [0.5] * 3}, "loss.alpha: varifocal has weights of its own"),
        ({"classification": "quality_focal", "alpha": "inverse_frequency"}, "loss.alpha: quality_focal has weights"),
        ({"classification": "adaptive_focal", "gamma": [2.0] * 3}, "loss.gamma: adaptive_focal adapts one gamma"),
        ({"classification": "equalized_focal", "gamma": 0.0}, "loss.gamma: equalized_focal divides by it"),
        ({"classification": "equalized_focal", "gamma": [1.0, 0.0, 1.0]}, "loss.gamma: equalized_focal divides by it"),
        ({"classification": "focl"}, "loss.classification: no 'focl'; did you mean 'focal'?"),
        ({"box": "gio"}, "loss.box: no 'gio'; did you mean"),
        ({"assigner": AssignerConfig(name="atss")}, "loss.assigner.name: no 'atss'; there is: max_iou"),
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
