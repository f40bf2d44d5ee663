"""A list of albumentations transforms, checked and applied. The only module that uses albumentations."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import warnings
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import ValidationError

from detector.data.sample import Sample
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


class AlbumentationsList:
    """albumentations transforms, applied in order.

    entries: {"name": a transform's, **its arguments}, each.
    min_visibility: an object is dropped when a transform leaves less than this fraction of it.

    Raises InputError when a name or argument is wrong, or a transform needs more than an image and its boxes.
    """

    def __init__(self, entries: list[dict[str, Any]], min_visibility: float):
        library = _albumentations()
        parameters = library.BboxParams(
            "pascal_voc", min_visibility=min_visibility, clip=True, filter_invalid_bboxes=True
        )
        transforms = [_build(entry) for entry in entries]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a list without a transform of boxes is fine
            self.compose = library.Compose(transforms, bbox_params=parameters)
        self.names = ", ".join(entry["name"] for entry in entries)

    def __call__(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """The transformed sample; all random numbers come from `rng`.

        Raises InputError when a transform fails or leaves no uint8 RGB image.
        """
        # set_random_seed would give every transform the same random numbers: all flipped images would also be darkened
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        try:
            out = self.compose(image=image, bboxes=np.column_stack([boxes, labels]).astype(np.float32))
        except Exception as problem:
            h, w = image.shape[:2]
            why = " ".join(str(problem).split())
            raise InputError(
                f"augment.transforms: {self.names} failed on an image of {w}x{h} pixels: {why}"
            ) from problem
        image, rows = out["image"], out["bboxes"].reshape(-1, 5)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise InputError(
                f"augment.transforms: {self.names} must leave a uint8 RGB image; the model normalises it itself"
            )
        return image, rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int64)


@cache
def _albumentations() -> ModuleType:
    """The library, imported at first use (it takes seconds), without its look for updates in the network."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return importlib.import_module("albumentations")


def _build(entry: dict[str, Any]) -> Any:
    """The transform of an entry. Raises InputError."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(
            f"augment.transforms: every entry needs a name, as in {{name: HorizontalFlip, p: 0.5}}; got {entry}"
        )
    arguments = {key: value for key, value in entry.items() if key != "name"}
    name, known = entry["name"], _transforms_for_boxes()
    if name not in known:
        raise InputError(
            f"augment.transforms: no albumentations transform {name!r} for boxes; {did_you_mean(name, known)}"
        )
    parameters = inspect.signature(known[name]).parameters
    for key in arguments:
        if key not in parameters:
            raise InputError(f"augment.transforms: {name} has no argument {key!r}; {did_you_mean(key, parameters)}")
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    try:
        with warnings.catch_warnings():
            # For some wrong arguments albumentations only warns, and uses others instead.
            warnings.simplefilter("error")
            known[name].InitSchema(**defaults | arguments, strict=True)
            warnings.simplefilter("ignore")  # the remaining warnings are advice
            transform = known[name](**arguments)
    except (ValueError, TypeError, Warning) as problem:
        raise InputError(f"augment.transforms: {name}: {_complaint(problem)}") from None
    if set(transform.targets_as_params) - {"image", "bboxes"}:
        raise InputError(f"augment.transforms: {name} needs more than an image and its boxes")
    return transform


@cache
def _transforms_for_boxes() -> dict[str, Any]:
    """Name → class of every albumentations transform that keeps boxes valid: pixels only, or boxes moved along."""
    library = _albumentations()
    abstract = (library.BasicTransform, library.ImageOnlyTransform, library.DualTransform, library.Transform3D)
    classes: dict[str, Any] = {
        name: value
        for name, value in vars(library).items()
        if inspect.isclass(value) and issubclass(value, library.BasicTransform) and value not in abstract
    }
    return {
        name: value
        for name, value in classes.items()
        if issubclass(value, library.ImageOnlyTransform) or "BBOXES" in str(value._targets)
    }


def _complaint(problem: Exception) -> str:
    """What is wrong with the arguments of a transform: its first error, on one line."""
    if not isinstance(problem, ValidationError):
        return " ".join(str(problem).split())
    error = problem.errors()[0]
    where = ".".join(map(str, error["loc"]))
    what = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{where}: {what}{got}" if where else what
