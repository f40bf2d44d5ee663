"""The adaptive focal loss's gamma: by hand, where nothing is to be learnt from, and at its floor."""

import math

import pytest
import torch

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


def test_batches_without_positives_and_untrained_ones_leave_it():
    loss = AdaptiveFocal(gamma=1.5)
    loss(LOGITS, torch.tensor([[-1, -2, -1]]))
    loss.terms(LOGITS, torch.tensor([[0, 0, 0]]))
    loss.eval()(LOGITS, torch.tensor([[0, 0, 0]]))
    assert loss.gamma.item() == pytest.approx(1.5)


def test_has_a_floor_and_stays_finite():
    loss = AdaptiveFocal()
    for _ in range(200):
        loss(LOGITS + 50, torch.tensor([[0, 0, 0]]))
    assert loss.gamma.item() == FLOOR
    for _ in range(3000):
        loss(LOGITS - 500, torch.tensor([[0, 0, 0]]))
    assert 50 < loss.gamma.item() < 100
