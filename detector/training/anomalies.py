"""What a training keeps an eye on, step by step: steps that are not finite, losses that jump, images that went bad."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from statistics import median

from detector.training import replay
from detector.training.bad_step import BadStep
from detector.training.state import Run, Training
from detector.utils.errors import RunError
from detector.utils.names import shortened

WINDOW = 100  # steps whose losses say what is usual
FEWEST = 20  # before so many, nothing is
# A loss jumps when it is this many robust deviations above the median of the window: 1.4826 x the median absolute
# deviation, which is the standard deviation of a normal distribution, but at least a tenth of the median.
DEVIATIONS = 8
MOST_LINES = 5  # of a kind and epoch on the console; log.txt and metrics.jsonl have all


class Deadline:
    """hours: from `start` (of time.monotonic()) on; None = never."""

    def __init__(self, hours: float | None, start: float):
        self.end = math.inf if hours is None else start + 3600 * hours

    def is_over(self) -> bool:
        return time.monotonic() >= self.end


class Watch:
    """Over an epoch, or what is left of it; what must outlive that is in the training's Progress."""

    def __init__(self, run: Run, training: Training):
        self.run, self.training = run, training
        self.jumps = self.replaced = 0
        self.written = False
        self._note()

    def is_good(self, record: dict) -> bool:
        """Whether the step of the engine's `record` was taken; to be called after every one, when the progress counts
        it. Takes from the record what only this needs.

        Raises RunError when train.max_bad_steps in a row were bad; then the training is as before the first of them, or
        of those of this epoch.
        """
        bad, image_ids, replaced = (record.pop(key) for key in ("bad", "image_ids", "replaced"))
        if replaced:
            self._say_replaced(replaced)
        if bad:
            self._bad(bad)
            return False
        self._look_for_jump(record["loss"], image_ids)
        self.training.progress.bad_in_a_row = 0
        self._note()
        return True

    def summary(self) -> list[str]:
        """Lines for the end of the epoch."""
        lines = [f"{self.jumps} steps with a jump of the loss (kind spike in metrics.jsonl)"] if self.jumps else []
        return lines + ([f"{self.replaced} images replaced (kind bad_images)"] if self.replaced else [])

    def _bad(self, bad: BadStep) -> None:
        run, progress, most = self.run, self.training.progress, self.run.config.train.max_bad_steps
        progress.bad_steps, progress.bad_in_a_row = progress.bad_steps + 1, progress.bad_in_a_row + 1
        counts = {"in_a_row": progress.bad_in_a_row, "in_all": progress.bad_steps}
        self._log("bad_step", {"parts": bad.parts, "image_ids": bad.image_ids, **counts})
        what = f"{' and '.join(bad.parts)} not finite on {_images(bad.image_ids)}"
        run.log.say(
            f"step {progress.step}: {what}: skipped ({progress.bad_in_a_row} in a row, {progress.bad_steps} in all)"
        )
        last = progress.bad_in_a_row >= most
        if last or not self.written:
            self.written = replay.write(run, self.training, bad)
        if last:
            self._rewind()
            again = f"python tools/train.py --replay {run.directory.bad_batch}" if self.written else ""
            raise RunError(
                f"{most} steps in a row were not finite (train.max_bad_steps), at last {what}"
                f"{'; to see where it begins: ' if again else ''}{again}"
            )

    def _note(self) -> None:
        """All that a bad step moves: the rest, `train_one_epoch` leaves as it was."""
        schedule, optimizer = self.training.schedule, self.training.optimizer
        self.before = (
            replace(self.training.progress), schedule.state_dict(), [group["lr"] for group in optimizer.param_groups]
        )  # fmt: skip

    def _rewind(self) -> None:
        progress, schedule, rates = self.before
        vars(self.training.progress).update(vars(progress))
        self.training.progress.bad_in_a_row = 0  # they may have begun in the epoch before
        self.training.schedule.load_state_dict(schedule)
        for group, rate in zip(self.training.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _look_for_jump(self, loss: float, image_ids: list[int]) -> None:
        progress = self.training.progress
        usual = progress.recent_losses
        if len(usual) >= FEWEST:
            middle = median(usual)
            deviation = max(1.4826 * median(abs(value - middle) for value in usual), 0.1 * middle)
            if loss > middle + DEVIATIONS * deviation:
                self.jumps += 1
                self._log("spike", {"loss": loss, "median": middle, "image_ids": image_ids})
                self.run.log.say(
                    f"  step {progress.step}: loss {loss:.3g}, where {middle:.3g} is usual, on {_images(image_ids)}",
                    to_console=self.jumps <= MOST_LINES,
                )
        progress.recent_losses = [*usual, loss][-WINDOW:]  # a new list: the one before may be noted

    def _say_replaced(self, replaced: list[dict]) -> None:
        rows = {f"{key}s" if key != "by" else "replaced_by": [row[key] for row in replaced] for key in replaced[0]}
        self.training.progress.replaced += len(replaced)
        self._log("bad_images", {**rows, "in_all": self.training.progress.replaced})
        for row in replaced:
            self.replaced += 1
            self.run.log.say(
                f"  image {row['image_id']} replaced by {row['by']}: {row['reason']}",
                to_console=self.replaced <= MOST_LINES,
            )

    def _log(self, kind: str, values: dict) -> None:
        self.run.log.numbers(kind, self.training.progress.step, self.training.progress.epoch + 1, values)


def _images(image_ids: list[int]) -> str:
    return f"image{'s' if len(image_ids) > 1 else ''} {shortened([str(i) for i in image_ids])}"
