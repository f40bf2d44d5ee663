"""The adaptive focal loss's gamma: by hand, in a short training, where nothing is to be learnt from, at its bounds."""

import math

import pytest
import torch
import torch.nn.functional as F

from detector.losses.classification.adaptive_focal import FLOOR, AdaptiveFocal

LOGITS = torch.tensor([[[2.0, -1.0], [0.5, 3.0], [-2.0, 0.0]]], requires_grad=True)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_follows_the_running_mean_of_the_positives():
    loss = AdaptiveFocal(gamma=2.0)
    assert loss.gamma.item() == pytest.approx(2)
    loss(LOGITS, torch.tensor([[0, -1, 1]]))
    mean = 0.95 * math.exp(-2) + 0.05 * (sigmoid(2) + sigmoid(0)) / 2
    assert loss.gamma.item() == pytest.approx(-math.log(mean), rel=1e-6)
    kept = AdaptiveFocal()
    kept.load_state_dict(loss.state_dict())
    assert kept.gamma == loss.gamma
    assert list(loss.state_dict()) == ["right"]


def train(steps: int = 300) -> list[tuple[float, float]]:
    """(gamma, mean score of the positives) before each step of a short training from the prior, 0.01.

    Among 2000 places there are 20 positives that look unlike the background, and 20 that look nearly like it.
    """
    generator = torch.Generator().manual_seed(0)
    easy, hard = torch.tensor([3.0, 0.0]), torch.tensor([0.5, 1.0])
    places = torch.randn(2000, 2, generator=generator) * 0.5
    places[:20] += easy
    places[20:40] += hard
    classes = torch.where(torch.arange(2000) < 40, 0, -1)[None]
    weight, bias = torch.zeros(2, requires_grad=True), torch.tensor([math.log(0.01 / 0.99)], requires_grad=True)
    optimizer, loss, seen = torch.optim.Adam([weight, bias], lr=0.05), AdaptiveFocal(gamma=2.0), []
    for _ in range(steps):
        logits = (places @ weight + bias)[None, :, None]
        seen.append((loss.gamma.item(), logits[0, :40].sigmoid().mean().item()))
        optimizer.zero_grad()
        (loss(logits, classes) / 40).backward()
        optimizer.step()
    return seen


def test_stays_as_given_while_nothing_is_learnt_and_falls_then():
    gammas, scores = zip(*train(), strict=True)
    assert scores[0] == pytest.approx(0.01) and scores[-1] > 0.3
    assert max(gammas) == pytest.approx(2)  # a running mean of the low first scores alone would give up to 4.6
    start = next(i for i, score in enumerate(scores) if score > math.exp(-2))
    assert gammas[: start + 1] == pytest.approx([2.0] * (start + 1))
    assert all(later <= earlier + 0.02 for earlier, later in zip(gammas, gammas[1:], strict=False))
    assert gammas[-1] < 1.2 and gammas[-1] == pytest.approx(-math.log(scores[-1]), abs=0.1)


def test_alpha_moves_with_gamma_unless_it_is_given():
    """The loss of one batch at a later gamma, against the formula in float64."""
    classes = torch.tensor([[0, -1, 1]])
    targets = F.one_hot(classes.clamp(min=0), 2) * (classes >= 0)[..., None]
    x = LOGITS.detach().double()
    p_t = torch.where(targets == 1, x.sigmoid(), 1 - x.sigmoid())
    halved = 0.75 - math.log(2) / 2  # table 1b, between gamma 0.5 and 1
    for score, gamma, alpha in ((0.2, -math.log(0.2), 0.25), (0.5, math.log(2), halved), (0.9, 0.5, 0.5)):
        for given, positive, negative in (
            ("auto", alpha, 1 - alpha),
            (0.3, 0.3, 0.7),
            (None, 1, 1),
            ([0.3, 0.3], 0.3 * alpha / 0.25, 1 - alpha),  # by class: 1.2 times that of auto
        ):
            loss = AdaptiveFocal(gamma=2.0, alpha=given)
            assert list(loss.state_dict()) == ["right"]
            loss.right.fill_(score)
            weight = torch.where(targets == 1, positive, negative)
            expected = -(weight * (1 - p_t) ** gamma * p_t.log()).sum()
            assert loss(x, classes).item() == pytest.approx(expected.item(), rel=1e-6)


def test_batches_without_positives_and_untrained_ones_leave_it():
    loss = AdaptiveFocal(gamma=1.5)
    loss(LOGITS, torch.tensor([[-1, -2, -1]]))
    loss.terms(LOGITS, torch.tensor([[0, 0, 0]]))
    loss.eval()(LOGITS, torch.tensor([[0, 0, 0]]))
    assert loss.gamma.item() == pytest.approx(1.5)


def test_has_bounds_and_stays_finite():
    loss = AdaptiveFocal()
    for _ in range(200):
        loss(LOGITS + 50, torch.tensor([[0, 0, 0]]))
    assert loss.gamma.item() == FLOOR
    for _ in range(3000):
        loss(LOGITS - 500, torch.tensor([[0, 0, 0]]))
    assert loss.gamma.item() == 2 and loss.right > 0
    low = AdaptiveFocal(gamma=0.3)  # below the floor: it never moves
    low(LOGITS + 50, torch.tensor([[0, 0, 0]]))
    assert low.gamma.item() == pytest.approx(0.3)
