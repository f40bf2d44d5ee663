"""What a training watches step by step: losses that are not finite or jump, images that were replaced."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

from detector.training import replay
from detector.training.bad_step import BadStep
from detector.training.state import Run
from detector.utils.errors import RunError
from detector.utils.text import command, counted, plural, shortened

WINDOW = 100  # recent losses that show what is usual
FEWEST = 20  # with fewer losses, nothing is known to be usual
# A loss jumps if it is this many robust standard deviations above the median of the window. The robust deviation is
# 1.4826 x the median absolute deviation (equal to the standard deviation for normal data), at least a tenth of the
# median.
DEVIATIONS = 8
MOST_LINES = 5  # lines of a kind per epoch on the console; log.txt and metrics.jsonl have all


class StepMonitor:
    """Watches the steps of an epoch. What must survive a stop is in the training's Progress."""

    def __init__(self, run: Run):
        self.run = run
        self.jumps = self.replaced = 0
        self.bad_batch_written = False
        self._remember()

    def accept(self, record: dict[str, Any]) -> bool:
        """Whether the step of the engine's `record` was taken. Call it after every step, once the progress counts it;
        it pops `bad`, `image_ids` and `replaced` from the record.

        Raises RunError after `train.max_bad_steps` bad steps in a row. The state is then that of before the first of
        them, or of the beginning of this epoch's part if the first was in an earlier epoch.
        """
        bad, image_ids, replaced = (record.pop(key) for key in ("bad", "image_ids", "replaced"))
        if replaced:
            self._log_replaced(replaced)
        if bad:
            self._count_bad(bad)
            return False
        self._look_for_jump(record["loss"], image_ids)
        self.run.progress.bad_in_a_row = 0
        self._remember()
        return True

    def summary(self) -> list[str]:
        """Lines for the end of the epoch."""
        lines = []
        if self.jumps:
            lines.append(f"{counted(self.jumps, 'step')} with a jump of the loss (kind spike in metrics.jsonl)")
        if self.replaced:
            lines.append(f"{counted(self.replaced, 'image')} replaced (kind bad_images)")
        return lines

    def _count_bad(self, bad: BadStep) -> None:
        run, progress, most = self.run, self.run.progress, self.run.config.train.max_bad_steps
        progress.bad_steps, progress.bad_in_a_row = progress.bad_steps + 1, progress.bad_in_a_row + 1
        counts = {"in_a_row": progress.bad_in_a_row, "in_all": progress.bad_steps}
        self._log("bad_step", {"parts": bad.parts, "image_ids": bad.image_ids, **counts})
        what = f"{' and '.join(bad.parts)} not finite on {_images(bad.image_ids)}"
        run.log.say(
            f"step {progress.step}: {what}: skipped ({progress.bad_in_a_row} in a row, {progress.bad_steps} in all)"
        )
        is_last = progress.bad_in_a_row >= most
        if is_last or not self.bad_batch_written:
            self.bad_batch_written = replay.write(run, bad)
        if is_last:
            self._rewind()
            again = command("tools/train.py", "--replay", run.directory.bad_batch) if self.bad_batch_written else ""
            raise RunError(
                f"{counted(most, 'step')} in a row not finite (train.max_bad_steps), the last one: {what}"
                f"{'; to see where it begins: ' if again else ''}{again}"
            )

    def _remember(self) -> None:
        """Copy what a bad step changes; `train_one_epoch` restores the rest."""
        schedule, optimizer = self.run.training.schedule, self.run.training.optimizer
        rates = [group["lr"] for group in optimizer.param_groups]
        self.before = (replace(self.run.progress), schedule.state_dict(), rates)

    def _rewind(self) -> None:
        """Restore what `_remember` copied."""
        progress, schedule, rates = self.before
        vars(self.run.progress).update(vars(progress))
        self.run.progress.bad_in_a_row = 0  # the copy may count bad steps of the epoch before
        self.run.training.schedule.load_state_dict(schedule)
        for group, rate in zip(self.run.training.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _look_for_jump(self, loss: float, image_ids: list[int]) -> None:
        progress = self.run.progress
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
        progress.recent_losses = [*usual, loss][-WINDOW:]  # a new list: `_remember` may hold the old one

    def _log_replaced(self, replaced: list[dict[str, Any]]) -> None:
        """replaced: see DetectionDataset."""
        rows = {f"{key}s" if key != "by" else "replaced_by": [row[key] for row in replaced] for key in replaced[0]}
        self.run.progress.replaced += len(replaced)
        self._log("bad_images", {**rows, "in_all": self.run.progress.replaced})
        for row in replaced:
            self.replaced += 1
            self.run.log.say(
                f"  image {row['image_id']} replaced by {row['by']}: {row['reason']}",
                to_console=self.replaced <= MOST_LINES,
            )

    def _log(self, kind: str, values: dict[str, Any]) -> None:
        self.run.log.numbers(kind, self.run.progress.step, self.run.progress.epoch + 1, values)


def _images(image_ids: list[int]) -> str:
    return f"{plural('image', len(image_ids))} {shortened([str(i) for i in image_ids])}"
