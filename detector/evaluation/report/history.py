"""What the lines of a run's metrics.jsonl say of its training: when, how long and where, and if it was long enough.

A training writes a line of kind `start` whenever it starts or resumes. Every line has its time, in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from detector.evaluation.report.curves import of_kind

RISING = 0.02  # AP; more than another seed or the last fall of the learning rate usually brings


def training_time(lines: Sequence[dict]) -> str:
    """ "2025-01-31 12:00 UTC, 1 h 7 min on cpu"; "" if the lines do not say. Pauses before a resume do not count."""
    timed = [(line, datetime.fromisoformat(line["time"])) for line in lines if "time" in line]
    devices = dict.fromkeys(line["device"] for line, _ in timed if line["kind"] == "start")
    if not devices:
        return ""
    spent = timedelta()
    for (_, before), (line, now) in zip(timed, timed[1:], strict=False):
        if line["kind"] != "start":
            spent += max(now - before, timedelta())
    return f"{timed[0][1]:%Y-%m-%d %H:%M} UTC, {_in_words(spent)} on {' and '.join(devices)}"


def data_findings(lines: Sequence[dict]) -> list[str]:
    """What the examination of the data found when the training last started, a sentence each."""
    starts = of_kind(lines, "start")
    return starts[-1]["findings"] if starts else []


def still_rises(lines: Sequence[dict]) -> str:
    """The sentence that a longer training would be better, or "".

    It would if the AP of the last evaluation is the best, and RISING or more above that of three quarters of the way.
    Of a training that is not over, nothing is said.
    """
    ap = {line["epoch"]: line["AP"] for line in of_kind(lines, "eval") if line["AP"] is not None}
    last = max(ap, default=0)
    starts = of_kind(lines, "start")
    if starts and last < starts[-1].get("epochs", 0):  # earlier versions did not write it
        return ""
    before = max((epoch for epoch in ap if epoch <= last * 3 / 4), default=None)
    if before is None or ap[last] < max(ap.values()) or ap[last] - ap[before] < RISING:
        return ""
    return (
        f"AP still rises: by {ap[last] - ap[before]:.3f} from epoch {before} to {last}, the last one, which is the "
        f"best. Train longer, for example with train.epochs={2 * last}."
    )


def _in_words(spent: timedelta) -> str:
    seconds = spent.total_seconds()
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"
