"""The section `augment`: what happens to training images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detector.config.section import Choice, Fraction, Name, Positive, Section


class PasteConfig(Section):
    """Pasting of rare objects into other training images."""

    classes: Literal["auto"] | Annotated[list[Name], Field(min_length=1)] = "auto"
    """Classes to paste. Each is filled up to an equal share of all boxes; auto: those with less than half of an equal
    share, up to that half."""
    per_image: Positive = 1.0
    """Greatest mean number of objects pasted into an image; the rarest classes come first."""
    max_factor: Positive = 10.0
    """Greatest mean number of times per epoch that one crop is pasted."""
    context: Fraction = 0.1
    """Margin that is cut out around a box, as a fraction of its sides. The crop fades into the image there."""
    scale: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.7, 1.4]
    """Least and greatest size of a pasted object, relative to its own size."""
    flip: bool = True
    """Mirror half of the crops; set it to false where left and right mean something."""
    occlusion: Fraction = 0.5
    """An object loses its label when pasting covers more than this fraction of it."""
    blend: Literal["feather", "clone"] = "feather"
    """How a crop joins the image: with fading edges, or also with the image's colours (Poisson editing, slower)."""

    @model_validator(mode="after")
    def _ordered(self) -> PasteConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale ({self.scale}) must be [least, greatest]")
        return self


class AugmentConfig(Section):
    """How training images are varied."""

    transforms: Choice | list[dict[str, Any]] = "light"
    """A preset, or a list of albumentations transforms, as [{name: HorizontalFlip, p: 0.5}]."""
    mosaic: Fraction = 0.0
    """Probability that an image is made of crops of itself and of three others; objects keep their sizes."""
    mixup: Fraction = 0.0
    """Probability that an image is averaged with another; the objects of both stay."""
    close: Fraction = 0.1
    """The last part of the training, in whole epochs, that has no mosaic and mixup. Its images are as the detector will
    meet them (YOLOX, 2107.08430)."""
    paste: None | PasteConfig = None
    """Paste objects of rare classes into other training images: {}, or some of classes, per_image, max_factor, context,
    scale, flip, occlusion, blend; null: no pasting."""
