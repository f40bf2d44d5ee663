"""What every backbone offers, whichever library it is from."""

from __future__ import annotations

from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """images (N, 3, H, W) → {"0": C3 (N, C, H/8, W/8), "1": C4, "2": C5}; H and W are multiples of `stride`."""

    channels: list[int]
    """Of C3, C4, C5."""
    stride: int
    """What H and W are multiples of, in pixels: the stride of C5, or more."""
    mean: tuple[float, float, float]
    """Of RGB values in 0..1, as the published weights were trained."""
    std: tuple[float, float, float]
    """As `mean`."""
    stages: dict[str, list[str]]
    """The parts that a user freezes by name, from the image on: "stem", then one a stage → the names of its modules,
    for `get_submodule`. Together they are the backbone, but for parameters beside them (position embeddings)."""
    before_stride_8: list[str]
    """The first keys of `stages`, those before the first layer at stride 8."""

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of a classification network, as published for this backbone, under the backbone's own
        names and without the classifier. Names that it doesn't know are passed on: loading says that they don't fit."""
        raise NotImplementedError
