"""What the lines of a run say of its training."""

import pytest

from detector.evaluation.report.history import data_findings, still_rises, training_time


def at(clock: str, kind: str = "train", **values) -> dict:
    return {"kind": kind, "time": f"2025-01-31T{clock}+00:00", **values}


def start(clock: str, device: str = "cpu", findings: tuple = ()) -> dict:
    return at(clock, "start", device=device, findings=list(findings))


def evaluations(*ap: float) -> list[dict]:
    return [{"kind": "eval", "epoch": epoch, "AP": value} for epoch, value in enumerate(ap, start=1)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ""),
        ([{"kind": "train"}], ""),
        ([start("12:00:00"), at("12:00:20"), at("12:00:42")], "2025-01-31 12:00 UTC, 42 s on cpu"),
        ([start("12:00:00"), at("13:07:00")], "2025-01-31 12:00 UTC, 1 h 7 min on cpu"),
        ([start("12:00:00"), at("12:59:40")], "2025-01-31 12:00 UTC, 1 h 0 min on cpu"),
        # stopped at 12:10 and resumed elsewhere at 20:00
        ([start("12:00:00"), at("12:10:00"), start("20:00:00", "cuda (H200)"), at("20:05:00")],
         "2025-01-31 12:00 UTC, 15 min on cpu and cuda (H200)"),
        ([start("12:00:00"), at("11:00:00")], "2025-01-31 12:00 UTC, 0 s on cpu"),  # the clock was put back
    ],
)  # fmt: skip
def test_when_how_long_and_where(lines, said):
    assert training_time(lines) == said


def test_findings_of_the_last_start():
    assert data_findings([start("12:00:00", findings=["a", "b"]), start("13:00:00", findings=["c"])]) == ["c"]
    assert data_findings([at("12:00:00")]) == []


@pytest.mark.parametrize(
    "ap",
    [
        [],
        [0.3],
        [0.1, 0.3, 0.4, 0.41],  # by less than 0.02
        [0.1, 0.5, 0.4, 0.45],  # an earlier epoch was better
    ],
)
def test_long_enough_or_nothing_to_tell_by(ap):
    assert still_rises(evaluations(*ap)) == ""


def test_an_unfinished_training_is_not_too_short():
    lines = [start("12:00:00") | {"epochs": 20}, *evaluations(0.1, 0.2, 0.25, 0.28)]
    assert still_rises(lines) == ""
    assert still_rises([*lines, start("13:00:00") | {"epochs": 4}]).startswith("AP still rises")


def test_still_rising():
    assert still_rises(evaluations(0.1, 0.2, 0.25, 0.28)) == (
        "AP still rises: by 0.030 from epoch 3 to 4, the last one, which is the best. Train longer, for example with "
        "train.epochs=8."
    )
    sparse = [line for line in evaluations(*(epoch / 100 for epoch in range(1, 13))) if line["epoch"] % 4 == 0]
    assert "by 0.040 from epoch 8 to 12" in still_rises(sparse)
