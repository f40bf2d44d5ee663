"""Losses written as plain functions: as those with a derivative made by hand, in loss, gradient and statistics."""

import pytest
import torch
import torch.nn.functional as F

from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.class_statistics import ClassStatistics
from detector.losses.classification.autograd import DifferentiableLoss
from detector.losses.classification.focal import Focal
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal
from detector.losses.criterion import Criterion

K = 4
ALPHAS = [0.1, 0.25, 0.5, 0.9]


def entropy(logits, targets):
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits, targets):
    p = logits.sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    return torch.where(targets == 1, 0.25, 0.75) * (1 - p_t) ** 2 * entropy(logits, targets)


def focal_with_alpha_by_class(logits, targets):
    p = logits.sigmoid()
    alpha = torch.tensor(ALPHAS, dtype=torch.float32).to(logits)  # as exact as the setting
    return torch.where(targets == 1, alpha * (1 - p) ** 2, 0.75 * p**2) * entropy(logits, targets)


def quality_focal(logits, targets):
    return (targets - logits.sigmoid()).abs() ** 2 * entropy(logits, targets)


def varifocal(logits, targets):
    weight = torch.where(targets > 0, targets, 0.75 * logits.sigmoid() ** 2)
    return weight * entropy(logits, targets)


CASES = {
    "focal": (DifferentiableLoss(focal), Focal()),
    "alpha by class": (DifferentiableLoss(focal_with_alpha_by_class), Focal(alpha=ALPHAS)),
    "quality focal": (DifferentiableLoss(quality_focal, needs_quality=True), QualityFocal()),
    "varifocal": (DifferentiableLoss(varifocal, needs_quality=True), Varifocal()),
}
each_loss = pytest.mark.parametrize("name", CASES)


def example(dtype=torch.float64):
    """Logits (2, 30, K), classes (2, 30) of every kind, quality (P,), one of them 0."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(2, 30, K, generator=generator, dtype=torch.float64)
    classes = torch.randint(-2, K, (2, 30), generator=generator)
    quality = torch.rand(int((classes >= 0).sum()), generator=generator)
    quality[3] = 0
    return logits.to(dtype).requires_grad_(), classes, quality


@each_loss
def test_loss_and_gradient_equal_the_derivative_made_by_hand(name):
    ours, by_hand = CASES[name]
    logits, classes, quality = example()
    total, expected = ours(logits, classes, quality), by_hand(logits, classes, quality)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    gradient, expected = (torch.autograd.grad(loss, logits)[0] for loss in (total, expected))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    by_class, gradient = ours.terms(logits, classes, quality)
    assert not by_class.requires_grad and not gradient.requires_grad
    torch.testing.assert_close((by_class, gradient), by_hand.terms(logits, classes, quality), rtol=1e-10, atol=1e-14)


@each_loss
@pytest.mark.parametrize("no_positives", [False, True])
def test_class_statistics_are_the_same(name, no_positives):
    logits, classes, quality = example(torch.float32)
    if no_positives:
        classes, quality = classes.clamp(max=-1), quality[:0]
    positives = (classes >= 0).nonzero(as_tuple=True)
    states = []
    for loss in CASES[name]:
        statistics = ClassStatistics(K)
        own = quality if loss.needs_quality else None
        statistics.observe(loss, logits.detach(), classes, positives, own, everything=True)
        states.append(dict(statistics.state_dict()))
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, classes, _ = example(dtype)
    seen = []
    loss = DifferentiableLoss(lambda x, t: seen.append((x.dtype, t.dtype)) or focal(x, t))
    total = loss(logits, classes)
    assert total.dtype == torch.float32 and set(seen) == {(torch.float32, torch.float32)}
    torch.testing.assert_close(total, Focal()(logits, classes))
    (gradient,) = torch.autograd.grad(total, logits)
    exact = logits.detach().float().requires_grad_()
    expected = torch.autograd.grad(Focal()(exact, classes), exact)[0]
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.float(), expected, rtol=1e-2, atol=1e-6)
    assert loss.terms(logits, classes)[1].dtype == torch.float32


def test_ignored_anchors_have_neither_loss_nor_gradient_whatever_their_logits():
    logits = torch.tensor([[1.0, -1], [float("inf"), float("nan")], [0, 2]], requires_grad=True)
    classes = torch.tensor([0, -2, -1])
    total = DifferentiableLoss(focal)(logits, classes)
    torch.testing.assert_close(total, Focal()(logits[[0, 2]], classes[[0, 2]]))
    (gradient,) = torch.autograd.grad(total, logits)
    assert (gradient[1] == 0).all() and (gradient[[0, 2]] != 0).all()


def test_gradcheck():
    logits, classes, _ = example()
    assert torch.autograd.gradcheck(lambda x: DifferentiableLoss(focal)(x, classes), logits)


def test_no_anchors():
    logits = torch.zeros(1, 3, K, requires_grad=True)
    total = DifferentiableLoss(focal)(logits, torch.full((1, 3), -2))
    assert total.item() == 0 and not torch.autograd.grad(total, logits)[0].any()


def test_a_function_that_sums_is_refused():
    with pytest.raises(ValueError, match=r"the loss of each pair must have shape \(1, 4\), not \(\)"):
        DifferentiableLoss(lambda x, t: entropy(x, t).sum())(torch.zeros(1, K), torch.tensor([0]))


@each_loss
def test_trains_in_a_criterion_as_the_other_does(name):
    generator = torch.Generator().manual_seed(0)
    anchors = torch.rand(6, 4, generator=generator) + torch.tensor([0, 0, 2, 2])
    targets = [{"boxes": anchors[:2] + 0.1, "labels": torch.tensor([2, 0])}]
    logits = torch.randn(1, 6, K, generator=generator, requires_grad=True)
    outputs = {"logits": logits, "deltas": torch.zeros(1, 6, 4), "anchors": anchors}
    gradients = []
    for loss in CASES[name]:
        criterion = Criterion(assigner=MaxIoUAssigner(), classification=loss, statistics=ClassStatistics(K))
        gradients.append(torch.autograd.grad(criterion(outputs, targets)["loss_cls"], logits)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
