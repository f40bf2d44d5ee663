"""The focal loss against hand-computed values, torchvision, binary cross entropy and float64 autograd."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops

from detector.losses import FocalLoss, dense_focal_loss, sigmoid_focal_loss
from detector.losses.classification.one_pass import CPU_CHUNK

GAMMAS = [0.0, 0.5, 1.0, 1.5, 2.0, 5.0]


def one_hot(classes: torch.Tensor, num_classes: int, dtype=torch.float64) -> torch.Tensor:
    targets = torch.zeros(*classes.shape, num_classes, dtype=dtype)
    targets[classes >= 0] = F.one_hot(classes[classes >= 0], num_classes).to(dtype)
    return targets


def test_hand_computed_sum():
    logits, labels = torch.tensor([[0.8], [-1.5], [0.1]]), torch.tensor([[1], [0], [1]])
    loss = FocalLoss(gamma=1.5, alpha=0.25, reduction="sum")(logits, labels)
    assert loss.item() == pytest.approx(0.0805, abs=5e-5)
    classes = torch.tensor([0, -1, 0])
    assert dense_focal_loss(logits, classes, alpha=0.25, gamma=1.5).item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("wrong", [{"alpha": 3}, {"alpha": -0.1}, {"alpha": [0.2, 0.8]}, {"gamma": -1}, {"gamma": "2"}])
def test_what_would_give_a_negative_or_no_loss_is_refused(wrong):
    said = f"{next(iter(wrong))} must be one number"
    with pytest.raises(ValueError, match=said):
        FocalLoss(**wrong)
    with pytest.raises(ValueError, match=said):
        sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2, 3), **wrong)
    with pytest.raises(ValueError, match=said):
        dense_focal_loss(torch.zeros(2, 3), torch.tensor([0, 1]), **wrong)


@pytest.mark.parametrize("classes", [torch.tensor([0, 3]), torch.tensor([0.0, 1.0])])
def test_a_class_beyond_the_logits_is_refused(classes):
    with pytest.raises(ValueError, match="whole numbers from -2 to 2"):
        dense_focal_loss(torch.zeros(2, 3), classes)


def test_reductions_agree():
    logits, labels = torch.randn(5, 3), torch.randint(0, 2, (5, 3))
    each = FocalLoss(reduction="none")(logits, labels)
    assert each.shape == (5, 3)
    assert FocalLoss(reduction="mean")(logits, labels).item() == pytest.approx(each.mean().item())
    assert FocalLoss(reduction="sum")(logits, labels).item() == pytest.approx(each.sum().item())
    with pytest.raises(ValueError, match="none, mean or sum"):
        FocalLoss(reduction="average")
    with pytest.raises(ValueError, match="differ in shape"):
        FocalLoss()(logits, labels[:2])


@pytest.mark.parametrize("alpha", [0.25, 0.9, -1, None])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_torchvisions_arguments_give_torchvisions_values(alpha, reduction):
    torch.manual_seed(0)
    logits, targets = 5 * torch.randn(7, 3, dtype=torch.float64), torch.randint(0, 2, (7, 3)).double()
    theirs = torchvision.ops.sigmoid_focal_loss(logits, targets, -1 if alpha is None else alpha, 1.5, reduction)
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha, 1.5, reduction), theirs)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets),
        torchvision.ops.sigmoid_focal_loss(logits, targets),  # the same defaults
    )
    with pytest.raises(ValueError, match="none, mean or sum"):
        sigmoid_focal_loss(logits, targets, reduction="average")
    with pytest.raises(ValueError, match="dense_focal_loss takes class ids"):
        sigmoid_focal_loss(logits, torch.zeros(7, dtype=torch.int64))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.25, 0.9, None])
def test_value_and_gradient_equal_torchvision_from_minus_100_to_100(gamma, alpha):
    torch.manual_seed(0)
    logits = torch.linspace(-100, 100, 2001, dtype=torch.float64)[torch.randperm(2001)]
    logits = logits.view(-1, 3).clone().requires_grad_()
    classes = torch.randint(-1, 3, (len(logits),))

    loss = dense_focal_loss(logits, classes, alpha=alpha, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    targets = one_hot(classes, 3)
    reference = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=alpha or -1, gamma=gamma, reduction="sum")
    (expected,) = torch.autograd.grad(reference, logits)

    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=0)
    # torchvision's own gradient is nan where 1 - p_t rounds to 0 and gamma < 1
    finite = expected.isfinite()
    assert finite.all() or gamma == 0.5
    torch.testing.assert_close(gradient[finite], expected[finite], rtol=0, atol=1e-12)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradcheck_with_ignored_anchors(gamma):
    torch.manual_seed(1)
    logits = (3 * torch.randn(2, 6, 4, dtype=torch.float64)).requires_grad_()
    classes = torch.randint(-2, 4, (2, 6))
    assert torch.autograd.gradcheck(lambda x: dense_focal_loss(x, classes, gamma=gamma), logits)
    assert torch.autograd.gradcheck(FocalLoss(gamma=gamma), (logits, one_hot(classes.clamp(min=-1), 4)))


def test_gamma_0_without_alpha_is_binary_cross_entropy():
    logits = (10 * torch.randn(50, 7, dtype=torch.float64)).requires_grad_()
    classes = torch.randint(-1, 7, (50,))
    targets = one_hot(classes, 7)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    for loss in (
        dense_focal_loss(logits, classes, alpha=None, gamma=0),
        FocalLoss(gamma=0, alpha=None, reduction="sum")(logits, targets),
    ):
        torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
        actual = torch.autograd.grad(loss, logits)[0]
        torch.testing.assert_close(actual, torch.autograd.grad(expected, logits, retain_graph=True)[0])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_float32_is_exact_at_extreme_logits(gamma):
    logits = torch.tensor([[-100.0], [-50.0], [-20.0], [20.0], [50.0], [100.0]]).repeat(2, 1).requires_grad_()
    classes = torch.tensor([0] * 6 + [-1] * 6)
    loss = dense_focal_loss(logits, classes, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    exact = logits.detach().double().requires_grad_()
    exact_loss = dense_focal_loss(exact, classes, gamma=gamma)
    torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-6, atol=0)
    expected = torch.autograd.grad(exact_loss, exact)[0]
    torch.testing.assert_close(gradient.double(), expected, rtol=2e-6, atol=1e-30)


def test_ignored_anchors_have_neither_loss_nor_gradient():
    logits = torch.randn(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(dense_focal_loss(logits, torch.tensor([-2, 1, -2, -1])), logits)
    assert (gradient[[0, 2]] == 0).all() and (gradient[[1, 3]] != 0).all()
    kept = dense_focal_loss(logits[[1, 3]], torch.tensor([1, -1]))
    assert dense_focal_loss(logits, torch.tensor([-2, 1, -2, -1])).item() == pytest.approx(kept.item())


def test_chunks_do_not_show():
    rows = 3 * CPU_CHUNK // 4 + 5  # of 4 classes: several chunks, the last one shorter
    logits = torch.randn(rows, 4, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(-2, 4, (rows,))
    whole = dense_focal_loss(logits, classes)
    (gradient,) = torch.autograd.grad(whole, logits)
    some = [dense_focal_loss(part, c) for part, c in zip(logits.split(999), classes.split(999), strict=True)]
    torch.testing.assert_close(whole, sum(some), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(sum(some), logits)[0], rtol=1e-12, atol=1e-15)


def test_bfloat16_logits_are_computed_in_float32():
    logits = torch.randn(100, 5).bfloat16().requires_grad_()
    classes = torch.randint(-1, 5, (100,))
    loss = dense_focal_loss(logits, classes)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(dense_focal_loss(logits.float(), classes).item(), rel=1e-6)
    assert torch.autograd.grad(loss, logits)[0].dtype == torch.bfloat16


def test_no_anchors():
    assert dense_focal_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).item() == 0
    with pytest.raises(ValueError, match="must have the shape"):
        dense_focal_loss(torch.zeros(3, 4), torch.zeros(4, dtype=torch.int64))
