"""Weights by class: by hand, their bounds, and the table."""

import numpy as np
import pytest

from detector.config.schema import LossConfig
from detector.losses.class_alpha import MAX_ALPHA, alpha_table, effective_number, inverse_frequency
from detector.losses.classification.focal import ALPHA

COUNTS = np.array([600, 300, 100])


def test_inverse_frequency_by_hand():
    # 600 boxes weigh 0.25, 300 twice that; 100 would weigh 1.5
    assert inverse_frequency(COUNTS) == pytest.approx([0.25, 0.5, 0.75])


def test_effective_number_by_hand():
    weights = np.array([1 / sum(0.9**i for i in range(n)) for n in (3, 2, 1)])
    assert effective_number(np.array([3, 2, 1]), 0.9) == pytest.approx(0.25 * weights / weights[0])
    assert effective_number(COUNTS, 0.0) == pytest.approx([0.25] * 3)
    assert effective_number(COUNTS, 1 - 1e-9) == pytest.approx(inverse_frequency(COUNTS), rel=1e-5)


@pytest.mark.parametrize("counts", [[10_000, 100, 1], [5000, 40, 30, 20, 1, 0], [1], [7, 7], [0, 0], [0, 9]])
def test_the_commonest_class_keeps_its_weight_and_none_exceeds_the_cap(counts):
    counts = np.array(counts)
    for alphas in (inverse_frequency(counts), effective_number(counts, 0.999)):
        assert alphas[counts.argmax()] == ALPHA and ((alphas >= ALPHA) & (alphas <= MAX_ALPHA)).all()
        assert np.all(np.diff(alphas[np.argsort(-counts, kind="stable")]) >= -1e-12)


def test_table():
    loss = LossConfig(alpha="inverse_frequency")
    title, header, *rows = alpha_table(loss, np.array([100, 600, 300]), ["star", "square", "disk"])
    assert "0.75" in title and header.split() == ["class", "an", "epoch", "alpha"]
    assert [row.split() for row in rows] == [
        ["square", "600", "0.250"],
        ["disk", "300", "0.500"],
        ["star", "100", "0.750"],
    ]
    assert alpha_table(LossConfig(), COUNTS, ["a", "b", "c"]) == []
    later = loss.model_copy(update={"defer_alpha": 0.5})
    assert "from 50% of the training on, 0.25 before" in alpha_table(later, COUNTS, ["a", "b", "c"])[0]
