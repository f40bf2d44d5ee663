"""Where a trained detector's classification loss comes from: the paper's Figure 4 for any checkpoint.

Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, section 5.1, "Analysis of the Focal Loss": the loss
of every prediction, for several gamma, on the same outputs; sorted from the easiest to the hardest, normalised to sum
to 1, and accumulated; for foreground and background separately. (So alpha, a factor common to each, changes nothing.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.data.coco import check_images_exist, load_descriptor, read_coco
from detector.data.loader import eval_loader
from detector.inference.detector import Detector
from detector.inference.evaluate import run_directory_of
from detector.losses.assigners import build_assigner
from detector.losses.assigners.assignment import BACKGROUND
from detector.utils.console import console, progress_bar
from detector.utils.errors import InputError

HARDEST = (0.01, 0.1)  # parts of the background whose share of the loss is told


class LogitHistogram:
    """How many predictions have which logit, in bins so fine that losses follow from the counts.

    Whatever gamma is, the loss is a monotone function of the logit: one order serves for all, and instead of sorting a
    sample (the paper's 10^5 foreground and 10^7 background windows) every prediction is counted, in 64 KB. A bin is
    1/128 wide: taking its centre for all it holds changes a loss by less than (gamma + 1) / 256 of it, and sums by far
    less, since that cancels. Logits beyond +-32 count as +-32.
    """

    RANGE = 32
    PER_UNIT = 128

    def __init__(self):
        self.counts = np.zeros(2 * self.RANGE * self.PER_UNIT, np.int64)

    def add(self, logits: Tensor) -> None:
        """logits: any shape, float."""
        inside = logits.float().clamp(-self.RANGE, self.RANGE)
        bins = ((inside + self.RANGE) * self.PER_UNIT).long().clamp_(max=len(self.counts) - 1)
        self.counts += torch.bincount(bins.flatten(), minlength=len(self.counts)).cpu().numpy()

    def cumulative_loss(self, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """The normalised loss of the easiest predictions, if all are background: (fractions, shares), both ascending
        from 0 to 1, float64. Between two points it is linear.

        FL = p^gamma softplus(x), p = sigmoid(x) (eq. 4 of the paper, y = -1).
        """
        x = (np.arange(len(self.counts)) + 0.5) / self.PER_UNIT - self.RANGE
        log_p = -np.logaddexp(0, -x)
        loss = self.counts * np.exp(gamma * log_p) * np.logaddexp(0, x)
        filled = self.counts > 0
        return tuple(np.r_[0, np.cumsum(part[filled]) / part.sum()] for part in (self.counts, loss))


def share_of_hardest(curve: tuple[np.ndarray, np.ndarray], part: float) -> float:
    """Share of the loss that the hardest `part` (0..1) of the predictions have, by a curve of `cumulative_loss`."""
    return 1 - float(np.interp(1 - part, *curve))


def loss_curves(detector: Detector, source: str, split: str, output: Path | None, gammas: Sequence[float]) -> Path:
    """Draw the curves of a split of the data the detector was trained with, and print the shares of the hardest.

    output: a picture file; None: eval/<split>/loss_curves.png of the run `source` was loaded from. Returns where it is.
    Raises InputError.
    """
    foreground, background = count_logits(detector, split)
    for name, histogram in (("positive", foreground), ("background", background)):
        if not histogram.counts.any():
            raise InputError(f"the {split} split has no {name} anchor: there is no loss to draw")
    output = output or run_directory_of(Path(source), detector.config) / "eval" / split / "loss_curves.png"
    output.parent.mkdir(parents=True, exist_ok=True)
    curves = {gamma: (foreground.cumulative_loss(gamma), background.cumulative_loss(gamma)) for gamma in gammas}
    _draw(curves, output)
    console.print(f"{background.counts.sum()} background predictions, {foreground.counts.sum()} foreground")
    console.print("share of the background's loss in its hardest")
    console.print("  gamma" + "".join(f"{part:>8.0%}" for part in HARDEST))
    for gamma, (_, curve) in curves.items():
        console.print(f"{gamma:7g}" + "".join(f"{share_of_hardest(curve, part):8.1%}" for part in HARDEST))
    console.print(f"written to {output}")
    return output


@torch.inference_mode()
def count_logits(detector: Detector, split: str) -> tuple[LogitHistogram, LogitHistogram]:
    """The logits of a split's foreground, negated (the easiest lowest, as for the background), and of its background.

    Anchors are assigned as in the detector's training. Foreground: each positive anchor's logit of its own class.
    Background: all K logits of each background anchor, every one of which is a term of the loss. Raises InputError.
    """
    config = detector.config
    data = read_coco(
        load_descriptor(config.data.dataset).split(split), detector.class_names, config.data.bad_annotations
    )
    check_images_exist(data)
    assigner = build_assigner(config.loss.assigner)
    loader = eval_loader(
        data, image_size=config.data.image_size, batch_size=config.eval.batch_size, workers=config.data.workers
    )
    foreground, background = LogitHistogram(), LogitHistogram()
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(loader), note="")
        for images, targets in loader:
            outputs = detector.model(images.to(detector.device), [t["size"] for t in targets])
            classes = assigner(outputs, targets).classes
            own = classes.clamp(min=0)[..., None]
            foreground.add(-outputs["logits"].gather(2, own).squeeze(2)[classes >= 0])
            background.add(outputs["logits"][classes == BACKGROUND])
            bar.advance(task)
    return foreground, background


def _draw(curves: dict, output: Path) -> None:
    """curves: gamma → (foreground, background), as `cumulative_loss` gives them."""
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
