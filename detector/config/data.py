"""The section `data`: what is read, and how large."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from detector.config.section import Choice, Name, Section, Side


class ShortLong(Section):
    """Resize so that the short side is `short` px, unless the long side would pass `long` px (as torchvision)."""

    short: Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
    """Length of the short side, in pixels. [least, greatest]: drawn anew for each training image; the greatest is for
    evaluation."""
    long: Side
    """Greatest length of the long side, in pixels."""

    @field_validator("short", mode="before")
    @classmethod
    def _two(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) != 2:
            raise ValueError(f"a list is [least, greatest], any side between is drawn; got {value}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> ShortLong:
        if self.least > self.greatest:
            raise ValueError(f"short ({self.short}) must be [least, greatest]")
        if self.long < self.greatest:
            raise ValueError(f"long ({self.long}) is smaller than short ({self.greatest})")
        return self

    @property
    def least(self) -> int:
        """The least length of the short side, in pixels."""
        return self.short[0] if isinstance(self.short, list) else self.short

    @property
    def greatest(self) -> int:
        """The greatest length of the short side, in pixels: that of evaluation."""
        return self.short[1] if isinstance(self.short, list) else self.short


class DataConfig(Section):
    """Which data, and how it is read and drawn."""

    dataset: Name
    """Dataset descriptor (YAML), relative to the working directory."""
    image_size: Side | ShortLong = 640
    """A number: letterboxed to a square of that many pixels. {short, long}: resized by side, padded in the batch; with
    short: [640, 800] each training image draws its own short side, and evaluation takes 800."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Loader processes; 0 loads in the training process. Any number gives the same batches."""
    bad_annotations: Literal["error", "drop"] = "error"
    """A box of zero size, NaN, or outside its image, and every box of a file whose boxes are evidently corners or
    fractions: stop and name the first, or drop and count. Lesser doubts, such as an object annotated twice, are counted
    in the log."""
    bad_images: Literal["error", "replace"] = "error"
    """A missing or broken training image: save, stop and name it; or replace it by another, count and list it. A bad
    val image always stops, because the figures would change without it."""
    sampling: Choice = "uniform"
    """How often each image is drawn (docs/imbalance.md). The length of an epoch stays the same."""
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """The repeat factors draw images with a class rarer than this more often. auto: the median class's frequency, or
    less if that repeats too much; printed."""

    @field_validator("image_size", mode="before")
    @classmethod
    def _no_list(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise ValueError(f"a number, or a range of short sides as {{short: {value}, long: ...}}; got {value}")
        return value
