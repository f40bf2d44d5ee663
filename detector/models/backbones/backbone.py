"""The contract of a backbone, whichever library it comes from."""

from __future__ import annotations

from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LEVELS = (4, 8, 16, 32)  # the strides of C2 to C5


class Backbone(nn.Module):
    """images (N, 3, H, W) → {"0": C3 (N, C, H/8, W/8), "1": C4, "2": C5}; H and W are multiples of `stride`.

    Built with finest_stride 4 instead of 8: {"0": C2 (N, C, H/4, W/4), "1": C3, "2": C4, "3": C5}.
    """

    channels: list[int]
    """Channels of C3, C4, C5, and of C2 before them if it gives C2."""
    stride: int
    """H and W must be multiples of this many pixels: the stride of C5, or more."""
    mean: tuple[float, float, float]
    """Mean of RGB values in 0..1 that the published weights were trained with."""
    std: tuple[float, float, float]
    """Standard deviation, as `mean`."""
    norm_eps: float | None = None
    """The eps of a LayerNorm that each feature needs before the neck; None: it needs none. Classification networks lack
    these norms, so they belong to the detector (models/norm.py:FeatureNorms)."""
    stages: dict[str, list[str]]
    """What a user can freeze by name, from the image on: "stem", then each stage → the paths of its modules (for
    `get_submodule`). Together they hold all parameters but those that stand beside them (position embeddings)."""
    before_stride_8: list[str]
    """The first keys of `stages`: those before the first layer at stride 8."""
    undecayed: frozenset[str] = frozenset()
    """Names of parameters that weight decay would harm, beside norms and biases: tables of positions, say."""

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published classification network's state dict → the backbone's names, without the classifier.

        Unknown names stay in it, so that loading it reports them.
        """
        raise NotImplementedError
