"""Where a trained detector's classification loss comes from: Figure 4 of the focal loss paper, for any checkpoint.

Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, section 5.1, "Analysis of the Focal Loss": for
several gamma, on the same outputs, the loss of every prediction, sorted from the easiest to the hardest, accumulated
and normalised to sum to 1; foreground and background apart. Alpha is a factor common to each, so it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.data.loader import eval_loader
from detector.data.split import read_split
from detector.inference.detector import Detector
from detector.inference.evaluate import run_directory_of
from detector.losses.assigners import build_assigner
from detector.losses.assigners.assignment import BACKGROUND
from detector.utils.console import console, progress_bar
from detector.utils.disk import check_writable
from detector.utils.errors import InputError
from detector.utils.text import counted

HARDEST = (0.01, 0.1)  # fractions of the background whose share of the loss is printed

Curve = tuple[np.ndarray, np.ndarray]  # fractions of the predictions, shares of the loss


class LogitHistogram:
    """Counts of logits in bins so fine that the losses follow from the counts.

    The loss is a monotone function of the logit for any gamma, so one order serves all. Instead of sorting a sample
    (the paper's 10^5 foreground and 10^7 background windows), every prediction is counted, in 64 KB. A bin is 1/128
    wide: its centre stands for all logits in it, which changes a loss by less than (gamma + 1) / 256 of it, and a sum
    by far less, because the errors cancel. Logits beyond +-32 count as +-32.
    """

    RANGE = 32
    PER_UNIT = 128

    def __init__(self) -> None:
        self.counts = np.zeros(2 * self.RANGE * self.PER_UNIT, np.int64)

    def add(self, logits: Tensor) -> None:
        """logits: any shape, float."""
        inside = logits.float().clamp(-self.RANGE, self.RANGE)
        bins = ((inside + self.RANGE) * self.PER_UNIT).long().clamp_(max=len(self.counts) - 1)
        self.counts += torch.bincount(bins.flatten(), minlength=len(self.counts)).cpu().numpy()

    def cumulative_loss(self, gamma: float) -> Curve:
        """The normalised loss of the easiest predictions, if all are background: (fractions, shares), float64, both
        ascending from 0 to 1; linear between two points.

        FL = p^gamma softplus(x), p = sigmoid(x) (eq. 4 of the paper, y = -1).
        """
        x = (np.arange(len(self.counts)) + 0.5) / self.PER_UNIT - self.RANGE
        log_p = -np.logaddexp(0, -x)
        loss = self.counts * np.exp(gamma * log_p) * np.logaddexp(0, x)
        filled = self.counts > 0
        return _accumulated(self.counts, filled), _accumulated(loss, filled)


def _accumulated(values: np.ndarray, filled: np.ndarray) -> np.ndarray:
    return np.r_[0, np.cumsum(values[filled]) / values.sum()]


def share_of_hardest(curve: Curve, fraction: float) -> float:
    """Share of the loss that the hardest `fraction` (0..1) of the predictions have."""
    return 1 - float(np.interp(1 - fraction, *curve))


def loss_curves(detector: Detector, source: str, split: str, output: Path | None, gammas: Sequence[float]) -> Path:
    """Draw the curves for a split of the data that the detector was trained with, and print the shares of the hardest.

    output: a picture file; None: eval/<split>/loss_curves.png of the run that `source` belongs to. Returns its path.
    Raises InputError.
    """
    output = output or run_directory_of(Path(source), detector.config) / "eval" / split / "loss_curves.png"
    check_writable(output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    foreground, background = count_logits(detector, split)
    for name, histogram in (("positive", foreground), ("background", background)):
        if not histogram.counts.any():
            raise InputError(f"the {split} split has no {name} anchor: there is no loss to draw")
    curves = {gamma: (foreground.cumulative_loss(gamma), background.cumulative_loss(gamma)) for gamma in gammas}
    _draw(curves, output)
    console.print(f"{counted(background.counts.sum(), 'background prediction')}, {foreground.counts.sum()} foreground")
    console.print("share of the background's loss in its hardest")
    console.print("  gamma" + "".join(f"{part:>8.0%}" for part in HARDEST))
    for gamma, (_, curve) in curves.items():
        console.print(f"{gamma:7g}" + "".join(f"{share_of_hardest(curve, part):8.1%}" for part in HARDEST))
    console.print(f"written to {output}")
    return output


@torch.inference_mode()
def count_logits(detector: Detector, split: str) -> tuple[LogitHistogram, LogitHistogram]:
    """The logits of a split's foreground and of its background.

    Anchors are assigned as in the detector's training. Foreground: the logit of each positive anchor's own class,
    negated, so that the easiest is the lowest here too. Background: all K logits of each background anchor, as each is
    a term of the loss. Raises InputError.
    """
    config = detector.config
    data = read_split(config, split, detector.class_names)
    for remark in data.remarks():
        console.print(remark)
    assigner = build_assigner(config.loss.assigner)
    loader = eval_loader(
        data, image_size=config.data.image_size, batch_size=config.eval.batch_size, workers=config.data.workers
    )
    foreground, background = LogitHistogram(), LogitHistogram()
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(loader))
        for images, targets in loader:
            outputs = detector.model(images.to(detector.device), [target["size"] for target in targets])
            classes = assigner(outputs, targets).classes
            own = classes.clamp(min=0)[..., None]
            foreground.add(-outputs["logits"].gather(2, own).squeeze(2)[classes >= 0])
            background.add(outputs["logits"][classes == BACKGROUND])
            bar.advance(task)
    return foreground, background


def _draw(curves: Mapping[float, tuple[Curve, Curve]], output: Path) -> None:
    """curves: gamma → (foreground, background)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for i, (name, panel) in enumerate(zip(("foreground", "background"), panels, strict=True)):
        for gamma, pair in curves.items():
            hardest = f"; {share_of_hardest(pair[i], HARDEST[0]):.0%} in the hardest {HARDEST[0]:.0%}"
            panel.plot(*pair[i], label=f"$\\gamma$ = {gamma:g}{hardest}")
        panel.set(title=name, xlabel=f"fraction of {name} predictions, easiest first", xlim=(0, 1), ylim=(0, 1))
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left", fontsize="small")
    panels[0].set_ylabel("cumulative normalised loss")
    figure.savefig(output, dpi=120)
