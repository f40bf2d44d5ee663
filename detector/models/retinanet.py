"""RetinaNet: backbone → neck → attention → head, and the anchors that the head's outputs belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.models.anchors import AnchorGenerator
from detector.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from detector.models.head import Head

# The same for all images of a batch; the others begin with N.
SHARED_OUTPUTS = ("anchors", "anchors_per_level", "anchors_per_cell")


class RetinaNet(nn.Module):
    """One-stage detector (arXiv 1708.02002); its state dict has torchvision's names; those of an attention begin with
    `attention.`.

    backbone: images → dict of C3..C5 (or C2..C5), with `stride`, the multiple of pixels that it takes.
    norms: that dict → the same, normalised, for backbones that need it; None: as it is.
    neck: that dict → ordered dict of P3..P7 (or P2..P7).
    attention: list of these levels → one of the same shapes; None: as they are.
    head: list of these levels → dict of outputs, see `Head`.
    mean, std: of RGB values in 0..1, what the backbone was trained with; not part of the state dict.
    frozen: modules that `train()` leaves in evaluation mode (see models/freeze.py); none at first.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: nn.Module,
        attention: nn.Module | None = None,
        head: Head,
        anchors: AnchorGenerator,
        norms: nn.Module | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": backbone, "fpn": neck})  # torchvision's names
        if norms is not None:
            self.backbone["norms"] = norms
        self.attention = nn.Identity() if attention is None else attention
        self.head = head
        self.anchors = anchors
        self.frozen: list[nn.Module] = []
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def body(self) -> Backbone:
        """The backbone, whose parameters begin with `backbone.body.`."""
        return cast(Backbone, self.backbone["body"])

    @property
    def neck(self) -> nn.Module:
        """The neck, whose parameters begin with `backbone.fpn.`."""
        return self.backbone["fpn"]

    def train(self, mode: bool = True) -> RetinaNet:
        """As in nn.Module; what is in `frozen` stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        """The raw outputs, the same in training and evaluation.

        images: (N, 3, H, W) RGB, uint8 or float in 0..255, any H and W.
        sizes: (h, w) of each image inside its padding at the right and bottom, in pixels; None: no padding.
        Returns
            the head's outputs, in autocast's precision, among them logits (N, R, K) and deltas (N, R, 4);
            anchors: (R, 4) float32 xyxy, pixels of `images`, shared by the batch;
            anchors_per_level: list of int, of sum R;
            anchors_per_cell: int, A.
        """
        images = self._normalise(images, sizes)
        features = self.attention(list(self.pyramid(images).values()))
        grid_sizes = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        height, width = images.shape[-2:]
        return {
            **self.head(features),
            "anchors": self.anchors((height, width), grid_sizes, images.device),
            "anchors_per_level": self.anchors.level_sizes(grid_sizes),
            "anchors_per_cell": self.anchors.anchors_per_cell,
        }

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """Images as the backbone takes them → the levels that the neck makes of them, the finest first."""
        features = self.body(images)
        return self.neck(self.backbone["norms"](features) if "norms" in self.backbone else features)

    def _normalise(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None) -> Tensor:
        """Standardised images in the model's dtype, padded to a multiple of the backbone's stride.

        The padding is 0 after the normalisation, as in torchvision, so that the convolutions at an image's border see
        the same alone and in a batch of larger images.
        """
        images = torch.div(images, 255).to(self.mean.dtype).sub_(self.mean).div_(self.std)
        if sizes is not None:
            for image, (h, w) in zip(images, sizes, strict=True):
                image[:, h:].zero_()
                image[:, :, w:].zero_()
        height, width = images.shape[-2:]
        stride = self.body.stride
        if height % stride or width % stride:
            images = F.pad(images, (0, -width % stride, 0, -height % stride))
        return images


def outputs_of_image(outputs: Mapping[str, Any], i: int) -> dict[str, Any]:
    """What `RetinaNet.forward` returned for a batch → the same for its image i alone (N is 1); views, not copies."""
    return {name: value if name in SHARED_OUTPUTS else value[i : i + 1] for name, value in outputs.items()}
