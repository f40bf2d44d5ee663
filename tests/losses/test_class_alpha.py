"""Weights by class: by hand, their mean over boxes, their cap, and the table."""

import numpy as np
import pytest

from detector.config.schema import LossConfig
from detector.losses.class_alpha import MAX_ALPHA, alpha_table, effective_number, inverse_frequency

COUNTS = np.array([600, 300, 100])


def mean_of_boxes(alphas, counts) -> float:
    return (alphas * counts).sum() / counts.sum()


def test_inverse_frequency_by_hand():
    # proportional to 1/6, 1/3, 1; every class's boxes together weigh the same: 250 / 3
    assert inverse_frequency(COUNTS) == pytest.approx([250 / 1800, 250 / 900, 250 / 300])


def test_effective_number_by_hand():
    weights = np.array([1 / sum(0.9**i for i in range(n)) for n in (3, 2, 1)])
    counts = np.array([3, 2, 1])
    expected = weights * 0.25 * 6 / (weights * counts).sum()
    assert effective_number(counts, 0.9) == pytest.approx(expected)
    assert effective_number(COUNTS, 0.0) == pytest.approx([0.25] * 3)
    assert effective_number(COUNTS, 1 - 1e-9) == pytest.approx(inverse_frequency(COUNTS), rel=1e-5)


@pytest.mark.parametrize("counts", [[10_000, 100, 1], [5000, 40, 30, 20, 1, 0], [1], [7, 7], [0, 0], [0, 9]])
def test_mean_over_boxes_is_kept_below_the_cap(counts):
    counts = np.array(counts)
    for alphas in (inverse_frequency(counts), effective_number(counts, 0.999)):
        assert ((alphas > 0) & (alphas <= MAX_ALPHA)).all()
        assert np.all(np.diff(alphas[np.argsort(-counts, kind="stable")]) >= -1e-12)
        if counts.any():
            assert mean_of_boxes(alphas, counts) == pytest.approx(0.25)


def test_table():
    loss = LossConfig(alpha="inverse_frequency")
    title, header, *rows = alpha_table(loss, np.array([100, 600, 300]), ["star", "square", "disk"])
    assert "0.250" in title and "0.75" in title and header.split() == ["class", "boxes", "alpha"]
    assert [row.split() for row in rows] == [
        ["square", "600", "0.139"],
        ["disk", "300", "0.278"],
        ["star", "100", "0.833"],
    ]
    assert alpha_table(LossConfig(), COUNTS, ["a", "b", "c"]) == []
