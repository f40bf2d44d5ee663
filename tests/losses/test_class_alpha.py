"""Alpha from gamma, weights by class, their bounds, and what is said of them: by hand."""

import numpy as np
import pytest

from detector.config.loss import LossConfig
from detector.losses.class_alpha import (
    MOST,
    alpha_lines,
    effective_number,
    inverse_frequency,
    resolve_alpha,
    unweighted_alpha,
)
from detector.losses.classification import build_classification

COUNTS = np.array([600, 300, 100])
NAMES = ["square", "disk", "star"]


def lines(loss: LossConfig, counts=COUNTS, names=NAMES) -> list[str]:
    built = build_classification(loss, resolve_alpha(loss, counts), len(counts))
    return alpha_lines(loss, built, counts, names)


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [  # the best pairs of table 1b of the focal loss paper, and two between them
        ({}, 0.25),
        ({"gamma": 5.0}, 0.25),
        ({"gamma": 1.0}, 0.25),
        ({"gamma": 0.75}, 0.375),
        ({"gamma": 0.5}, 0.5),
        ({"gamma": 0.25}, 0.625),
        ({"gamma": 0.0}, 0.75),
        ({"classification": "cross_entropy"}, 0.75),  # whatever loss.gamma is
        ({"gamma": [0.0, 0.5, 2.0]}, [0.75, 0.5, 0.25]),
        ({"gamma": 0.0, "alpha": 0.1}, 0.1),
        ({"gamma": 0.0, "alpha": None}, None),
        ({"gamma": 0.0, "alpha": [0.1, 0.2, 0.3]}, [0.1, 0.2, 0.3]),
        ({"gamma": 0.5, "alpha": "inverse_frequency"}, [0.5, 1.0, 1.5]),  # the commonest has that of auto
        ({"gamma": [0.0, 0.5, 2.0], "alpha": "inverse_frequency"}, [0.75, 1.0, 0.75]),
    ],
)
def test_alpha_follows_gamma_unless_it_is_given(settings, alpha):
    assert resolve_alpha(LossConfig(**settings), COUNTS) == alpha


def test_while_weights_are_deferred_all_have_that_of_auto():
    assert unweighted_alpha(LossConfig(gamma=0.5, alpha="inverse_frequency"), 3) == [0.5] * 3
    assert unweighted_alpha(LossConfig(gamma=[0.0, 0.5, 2.0], alpha=[0.1] * 3), 3) == [0.75, 0.5, 0.25]


def test_inverse_frequency_by_hand():
    # 300 boxes weigh twice what 600 do; 100 would weigh 6 times
    assert inverse_frequency(COUNTS) == pytest.approx([1, 2, 3])


def test_effective_number_by_hand():
    weights = np.array([1 / sum(0.9**i for i in range(n)) for n in (3, 2, 1)])
    assert effective_number(np.array([3, 2, 1]), 0.9) == pytest.approx(weights / weights[0])
    assert effective_number(COUNTS, 0.0) == pytest.approx([1] * 3)
    assert effective_number(COUNTS, 1 - 1e-9) == pytest.approx(inverse_frequency(COUNTS), rel=1e-5)


@pytest.mark.parametrize("counts", [[10_000, 100, 1], [5000, 40, 30, 20, 1, 0], [1], [7, 7], [0, 0], [0, 9]])
def test_the_commonest_class_keeps_its_weight_and_none_exceeds_the_cap(counts):
    counts = np.array(counts)
    for weights in (inverse_frequency(counts), effective_number(counts, 0.999)):
        assert weights[counts.argmax()] == 1 and ((weights >= 1) & (weights <= MOST)).all()
        assert np.all(np.diff(weights[np.argsort(-counts, kind="stable")]) >= -1e-12)


def test_table():
    loss = LossConfig(alpha="inverse_frequency")
    title, header, *rows = lines(loss, np.array([100, 600, 300]), ["star", "square", "disk"])
    assert "0.75" in title and header.split() == ["class", "an", "epoch", "alpha"]
    assert [row.split() for row in rows] == [
        ["square", "600", "0.250"],
        ["disk", "300", "0.500"],
        ["star", "100", "0.750"],
    ]
    assert lines(LossConfig()) == []
    later = {"alpha": "inverse_frequency", "defer_alpha": 0.5}
    assert "from 50% of the training on, 0.25 before" in lines(LossConfig(**later))[0]
    assert "(negatives weigh 0.5), from 50% of the training on, 0.5 before" in lines(LossConfig(**later, gamma=0.5))[0]
    gammas = LossConfig(**later, gamma=[0.0, 0.5, 2.0])
    assert "(negatives weigh 0.25 to 0.75), from 50% of the training on, 0.25 to 0.75 before" in lines(gammas)[0]


def test_the_table_says_that_weights_move_with_gamma():
    moving = LossConfig(classification="adaptive_focal", alpha="inverse_frequency")
    title = lines(moving)[0]
    assert "(negatives weigh 0.75)" in title
    assert title.endswith("; as gamma falls to 0.5, up to 2 times that, negatives 0.5:")
    assert "falls" not in lines(moving.model_copy(update={"gamma": 0.3}))[0]


def test_what_auto_chose_is_said_with_its_reason():
    why = "(the focal loss paper, table 1b)"
    assert lines(LossConfig(classification="cross_entropy")) == [
        f"loss.alpha auto: positives weigh 0.75 and negatives 0.25, best for cross_entropy's gamma of 0 {why}"
    ]
    (by_class,) = lines(LossConfig(gamma=[0.5, 1.0, 2.0]))
    assert "weigh 0.25 to 0.5 and negatives 0.5 to 0.75, best for focal's gamma of 0.5 to 2" in by_class
    assert lines(LossConfig(classification="adaptive_focal")) == [
        f"loss.alpha auto: 0.25, and up to 0.5 as gamma falls to 0.5 {why}"
    ]
    assert "positives weigh 0.6 and" in lines(LossConfig(classification="adaptive_focal", gamma=0.3))[0]  # cannot fall
    given = ({"alpha": 0.1}, {"alpha": None}, {"classification": "quality_focal"}, {"classification": "varifocal"})
    for settings in given:  # the last two have none
        assert lines(LossConfig(gamma=0.5, **settings)) == []
    for name in ("quality_focal", "varifocal"):
        ignored = f"loss.alpha has no effect with {name}, which has none; weights by class have one"
        assert lines(LossConfig(classification=name, alpha=0.6)) == [ignored]
        assert lines(LossConfig(classification=name, alpha=None)) == []
    by_class = lines(LossConfig(classification="quality_focal", alpha="effective_number", defer_alpha=0.5))
    assert by_class[0] == "weight of positives by class (negatives weigh 1), from 50% of the training on, 1 before:"
    assert by_class[2].endswith(" 1.000")  # the commonest
    assert lines(LossConfig(defer_alpha=0.5)) == ["loss.defer_alpha has no effect: loss.alpha is not by class"]
