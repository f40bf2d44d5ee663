"""What all sections of the configuration have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=8192)]
Depth = Annotated[int, Field(ge=0, le=64)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[str, Field(min_length=1)]
Choice = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every section: it never changes, unknown keys are errors, values are not coerced across types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
