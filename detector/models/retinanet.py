"""RetinaNet: backbone → pyramid → head, and the anchors that the head's outputs belong to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.models.anchors import AnchorGenerator
from detector.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from detector.models.head import Head


class RetinaNet(nn.Module):
    """One-stage detector with focal loss in mind (arXiv 1708.02002); the state dict has torchvision's names.

    backbone: images → dict of C3..C5, with `stride`, the multiple of pixels that it takes.
    fpn: dict of C3..C5 → dict of P3..P7. head: list of P3..P7 → (logits, deltas).
    mean, std: of RGB values in 0..1, what the backbone was trained with; not part of the state dict.
    frozen: modules that `train()` leaves in evaluation mode (see models/freeze.py); none at first.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        fpn: nn.Module,
        head: Head,
        anchors: AnchorGenerator,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": backbone, "fpn": fpn})
        self.head = head
        self.anchors = anchors
        self.frozen: list[nn.Module] = []
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> RetinaNet:
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict:
        """The raw outputs, the same in training and evaluation.

        images: (N, 3, H, W) RGB, uint8 or float in 0..255, any H and W.
        sizes: (h, w) of each image inside its padding at the right and bottom, in pixels; None: no padding.
        Returns
            logits: (N, R, K) and deltas: (N, R, 4), in autocast's precision;
            anchors: (R, 4) float32 xyxy, pixels of `images`, shared by the batch;
            anchors_per_level: list of int, of sum R.
        """
        images = self._normalise(images, sizes)
        features = list(self.backbone["fpn"](self.backbone["body"](images)).values())
        logits, deltas = self.head(features)
        grid_sizes = [tuple(feature.shape[-2:]) for feature in features]
        return {
            "logits": logits,
            "deltas": deltas,
            "anchors": self.anchors(tuple(images.shape[-2:]), grid_sizes, images.device),
            "anchors_per_level": self.anchors.level_sizes(grid_sizes),
        }

    def _normalise(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None) -> Tensor:
        """Standardised images in the model's dtype; 0 in their padding, and in what completes a multiple of the stride.

        The padding is 0 after the normalisation, as in torchvision, so that an image alone and in a batch of
        larger ones look alike to the convolutions at its border.
        """
        images = torch.div(images, 255).to(self.mean.dtype).sub_(self.mean).div_(self.std)
        if sizes is not None:
            for image, (h, w) in zip(images, sizes, strict=True):
                image[:, h:].zero_()
                image[:, :, w:].zero_()
        height, width = images.shape[-2:]
        stride = self.backbone["body"].stride
        if height % stride or width % stride:
            images = F.pad(images, (0, -width % stride, 0, -height % stride))
        return images
