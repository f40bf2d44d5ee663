"""Every classification loss against its paper's formula, written out pair by pair, and against float64 differences."""

import math

import pytest
import torch
import torch.nn.functional as F

from detector.losses import dense_focal_loss
from detector.losses.classification import one_pass as classification
from detector.losses.classification.adaptive_focal import AdaptiveFocal
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal
from detector.losses.classification.one_pass import CPU_CHUNK
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal

K = 4
ALPHAS = [0.1, 0.25, 0.5, 0.9]
GAMMAS = [0.5, 1.0, 2.0, 3.5]
RATIOS = [1.0, 0.75, 0.25, 0.0]
WEIGHTS = [1.0, 1.5, 2.0, 3.0]


def equalized(alpha=0.25) -> EqualizedFocal:
    """With RATIOS (the last one nearly)."""
    loss = EqualizedFocal(K, alpha=alpha, scale=6.0)
    loss.negative_gradient.copy_(torch.tensor([10 / max(r, 1e-30) - 10 for r in RATIOS]))
    return loss


# name → (loss, what the paper says of one pair: p, y (IoU of a positive, else 0), positive?, class)
def focal_pair(alpha, gamma, weight=lambda k: 1.0, negative=lambda k: 0.75):
    def pair(p, y, positive, k):
        p_t = p if positive else 1 - p
        a = 1.0 if alpha is None else alpha(k) if positive else negative(k)
        return -weight(k) * a * (1 - p_t) ** gamma(k) * math.log(p_t)

    return pair


def qfl_pair(p, y, positive, k):
    return -(abs(y - p) ** 2) * ((1 - y) * math.log(1 - p) + y * math.log(p))


def vfl_pair(p, y, positive, k):
    return -y * (y * math.log(p) + (1 - y) * math.log(1 - p)) if y > 0 else -0.75 * p**2 * math.log(1 - p)


def weighted(pair):
    """With WEIGHTS of the positives; one whose box has no overlap is a negative to the varifocal loss."""
    return lambda p, y, positive, k: (
        pair(p, y, positive, k) * (WEIGHTS[k] if positive and (y > 0 or pair is qfl_pair) else 1.0)
    )


def efl_gamma(k):
    return 2 + 6 * (1 - RATIOS[k])


CASES = {
    "focal": (Focal, focal_pair(lambda k: 0.25, lambda k: 2)),
    "cross_entropy": (lambda: Focal(alpha=None, gamma=0.0), focal_pair(None, lambda k: 0)),
    "alpha_by_class": (lambda: Focal(alpha=ALPHAS), focal_pair(lambda k: ALPHAS[k], lambda k: 2)),
    "gamma_by_class": (lambda: Focal(gamma=GAMMAS), focal_pair(lambda k: 0.25, lambda k: GAMMAS[k])),
    "both_by_class": (
        lambda: Focal(alpha=ALPHAS, gamma=GAMMAS),
        focal_pair(lambda k: ALPHAS[k], lambda k: GAMMAS[k], negative=lambda k: [0.5, 0.75, 0.75, 0.75][k]),
    ),
    "equalized_focal": (equalized, focal_pair(lambda k: 0.25, efl_gamma, lambda k: efl_gamma(k) / 2)),
    "adaptive_focal": (lambda: AdaptiveFocal(gamma=1.5), focal_pair(lambda k: 0.25, lambda k: 1.5)),
    "adaptive_focal, half fallen": (
        lambda: AdaptiveFocal(gamma=0.75),
        focal_pair(lambda k: 0.375, lambda k: 0.75, negative=lambda k: 0.625),
    ),
    "quality_focal": (QualityFocal, qfl_pair),
    "varifocal": (Varifocal, vfl_pair),
    "quality_focal, by class": (lambda: QualityFocal(weight=WEIGHTS), weighted(qfl_pair)),
    "varifocal, by class": (lambda: Varifocal(weight=WEIGHTS), weighted(vfl_pair)),
}
each_loss = pytest.mark.parametrize("name", CASES)


def example(scale=3.0, dtype=torch.float64):
    """Logits (2, 30, K), classes (2, 30) with positives, background and ignored ones, quality (P,), one of them 0."""
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(2, 30, K, generator=generator, dtype=dtype)
    classes = torch.randint(-2, K, (2, 30), generator=generator)
    quality = torch.rand(int((classes >= 0).sum()), generator=generator)
    quality[3] = 0
    return logits.requires_grad_(), classes, quality


@each_loss
def test_equals_the_papers_formula(name):
    build, pair = CASES[name]
    logits, classes, quality = example()
    expected = [0.0] * K
    qualities = iter(quality.tolist())
    for x, own in zip(logits.view(-1, K).tolist(), classes.flatten().tolist(), strict=True):
        y = next(qualities) if own >= 0 else 0.0
        for k in range(K) if own != -2 else ():
            expected[k] += pair(1 / (1 + math.exp(-x[k])), y if k == own else 0.0, k == own, k)
    loss = build()
    by_class, gradient = loss.terms(logits, classes, quality)
    assert by_class.tolist() == pytest.approx(expected, rel=1e-5)  # settings are float32
    total = loss(logits, classes, quality)
    assert total.item() == pytest.approx(sum(expected), rel=1e-5)
    assert torch.equal(torch.autograd.grad(total, logits)[0], gradient)


@each_loss
def test_gradcheck(name):
    logits, classes, quality = example()
    loss = CASES[name][0]().eval()
    assert torch.autograd.gradcheck(lambda x: loss(x, classes, quality), logits)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, GAMMAS])
@pytest.mark.parametrize("kind", [QualityFocal, Varifocal])
def test_gradcheck_of_quality_losses_with_other_gammas(kind, gamma):
    logits, classes, quality = example()
    loss = kind(gamma=gamma)
    assert torch.autograd.gradcheck(lambda x: loss(x, classes, quality), logits)


@each_loss
def test_finite_at_extreme_logits_in_bfloat16(name):
    values = torch.tensor([-100.0, -30.0, 0.0, 30.0, 100.0]).bfloat16()
    logits = values.repeat_interleave(6)[None, :, None].repeat(1, 1, K).requires_grad_()
    classes = torch.tensor([-2, -1, 0, 1, 2, 3] * 5)[None]
    quality = torch.tensor([0.0, 0.3, 0.6, 1.0]).repeat(5)
    loss = CASES[name][0]()
    total = loss(logits, classes, quality)
    (gradient,) = torch.autograd.grad(total, logits)
    assert total.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert total.isfinite() and total > 0 and gradient.isfinite().all() and gradient.any()
    assert all(buffer.isfinite().all() for buffer in loss.buffers())


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_a_score_equal_to_its_quality_has_no_gradient_from_focusing(gamma):
    logits = torch.zeros(1, 1, 1, requires_grad=True)
    total = QualityFocal(gamma=gamma)(logits, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0.5]))
    assert torch.autograd.grad(total, logits)[0].item() == 0


@each_loss
def test_float32_agrees_with_float64(name):
    logits, classes, quality = example(scale=10.0)
    loss = CASES[name][0]()
    exact, exact_gradient = loss.terms(logits, classes, quality)
    by_class, gradient = loss.terms(logits.float(), classes, quality)
    torch.testing.assert_close(by_class.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-7)


@each_loss
def test_ignored_anchors_have_neither_loss_nor_gradient(name):
    logits, classes, quality = example()
    loss = CASES[name][0]()
    by_class, gradient = loss.terms(logits, classes, quality)
    kept = classes != -2
    assert (~kept).any() and (gradient[~kept] == 0).all() and (gradient[kept] != 0).all()
    torch.testing.assert_close(loss.terms(logits[kept], classes[kept], quality)[0], by_class)


@each_loss
def test_a_second_backward_gives_the_same_even_if_the_loss_has_moved_on(name):
    logits, classes, quality = example()
    total = CASES[name][0]()(logits, classes, quality)
    first = torch.autograd.grad(total, logits, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(total, logits)[0], first)


def test_chunks_do_not_show_with_gammas_by_class():
    rows = 3 * CPU_CHUNK // K // 2 + 5
    logits, classes = torch.randn(rows, K, dtype=torch.float64), torch.randint(-2, K, (rows,))
    by_class, gradient = equalized().terms(logits, classes)
    parts = [equalized().terms(x, c) for x, c in zip(logits.split(999), classes.split(999), strict=True)]
    torch.testing.assert_close(by_class, sum(p[0] for p in parts), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.cat([p[1] for p in parts]), rtol=1e-12, atol=0)


@each_loss
def test_positives_that_are_not_looked_up_are_the_same(name, monkeypatch):
    """As on a GPU."""
    logits, classes, quality = example()
    looked_up, other = CASES[name][0](), CASES[name][0]()
    total = looked_up(logits, classes, quality)
    expected = looked_up.terms(logits, classes, quality)
    monkeypatch.setattr(classification, "LOOK_UP", ())
    torch.testing.assert_close(other(logits, classes, quality), total)
    torch.testing.assert_close(other.terms(logits, classes, quality), expected)
    for a, b in zip(looked_up.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    none = torch.full_like(classes, -1)
    assert other(logits, none, quality[:0]).isfinite()


def test_limits():
    logits, classes, quality = example()
    positive = classes >= 0
    one_hot = F.one_hot(classes.clamp(min=0), K) * positive[..., None]
    counted = (classes != -2)[..., None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits[counted], one_hot[counted].double(), reduction="sum")
    torch.testing.assert_close(Focal(alpha=None, gamma=0.0)(logits, classes), bce)
    torch.testing.assert_close(QualityFocal(gamma=0.0)(logits, classes, torch.ones_like(quality)), bce)
    # boxes that are all perfect: the focal loss without weights
    unweighted = dense_focal_loss(logits, classes, alpha=None, gamma=2.0)
    torch.testing.assert_close(QualityFocal()(logits, classes, torch.ones_like(quality)), unweighted)
    # all classes alike: the scalar's loss, for numbers that float32 has exactly
    focal = dense_focal_loss(logits, classes)
    torch.testing.assert_close(Focal(alpha=[0.25] * K, gamma=[2.0] * K)(logits, classes), focal)
    torch.testing.assert_close(EqualizedFocal(K)(logits, classes), focal)
    torch.testing.assert_close(AdaptiveFocal(gamma=2.0)(logits, classes), focal, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["focal", "equalized_focal", "quality_focal"])
def test_compiled_it_is_the_same(name):
    logits, classes, quality = example(dtype=torch.float32)
    eager = CASES[name][0]()
    compiled = torch.compile(CASES[name][0](), backend="eager")
    for _ in range(2):
        total, expected = compiled(logits, classes, quality), eager(logits, classes, quality)
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits))


@pytest.mark.parametrize("background", [-4.6, -7.0])
def test_float16_gradients_are_scaled_before_they_are_rounded(background):
    """Easy background has gradients below float16's least number; with GradScaler's factor they are above it."""
    logits = (background + 0.3 * torch.randn(1, 5000, 4)).half().requires_grad_()
    exact = logits.detach().float().requires_grad_()
    classes, scale = torch.full((1, 5000), -1), 32768.0
    (Focal()(logits, classes) * scale).backward()
    Focal()(exact, classes).backward()
    assert logits.grad.dtype == torch.float16
    torch.testing.assert_close(logits.grad.float() / scale, exact.grad, rtol=2e-3, atol=1e-9)
