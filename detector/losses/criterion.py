"""Outputs + targets -> named losses."""

from __future__ import annotations

from torch import Tensor, nn

from detector.losses.assigner import MaxIoUAssigner
from detector.losses.box import box_loss
from detector.losses.focal import sigmoid_focal_loss
from detector.utils.dist import mean_across_processes


class Criterion(nn.Module):
    """Focal loss over all anchors and box loss over the positive ones, both divided by the number of positives of
    the global batch (at least 1): RetinaNet section 4.1.
    """

    def __init__(
        self,
        *,
        assigner: MaxIoUAssigner,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        box: str = "smooth_l1",
        beta: float = 0.0,
        box_weight: float = 1.0,
    ):
        super().__init__()
        self.assigner = assigner
        self.alpha, self.gamma = alpha, gamma
        self.box, self.beta, self.box_weight = box, beta, box_weight

    def forward(self, outputs: dict, targets: list[dict]) -> dict[str, Tensor]:
        """outputs: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) xyxy. targets: N dicts, boxes and labels.

        Returns float32 scalars: loss_cls, loss_box, and num_positives, by which both were divided where it is not 0.
        """
        classes, objects, boxes = self.assigner(outputs["anchors"], targets)
        image, anchor = (classes >= 0).nonzero(as_tuple=True)  # CPU-GPU sync point: the only one of the losses
        num_positives = mean_across_processes(classes.new_tensor(len(image)).float())
        normaliser = num_positives.clamp(min=1)

        loss_cls = sigmoid_focal_loss(outputs["logits"], classes, alpha=self.alpha, gamma=self.gamma)
        loss_box = box_loss(
            outputs["deltas"][image, anchor],
            outputs["anchors"][anchor],
            boxes[image, objects[image, anchor]],
            kind=self.box,
            beta=self.beta,
        )
        return {
            "loss_cls": loss_cls / normaliser,
            "loss_box": self.box_weight * loss_box / normaliser,
            "num_positives": num_positives,
        }


def build_criterion(loss) -> Criterion:
    """The criterion of a LossConfig."""
    return Criterion(
        assigner=MaxIoUAssigner(**loss.assigner.model_dump()),
        alpha=loss.alpha,
        gamma=loss.gamma,
        box=loss.box,
        beta=loss.beta,
        box_weight=loss.box_weight,
    )
