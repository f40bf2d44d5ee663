"""A trained detector, ready to use: `detect = detector.load("runs/my"); detect("photo.jpg")`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detector import checkpoint
from detector.config.file import load_config, validate
from detector.config.schema import Config
from detector.data.image import decode_image, read_image, refusals_named, to_rgb, turned_upright
from detector.data.loader import collate
from detector.data.split import read_split
from detector.data.transforms import Transform, build_transform, letterbox
from detector.evaluation.deployment import Deployment
from detector.inference.config_check import check_names
from detector.inference.detect import detect
from detector.models.build import build_model, build_postprocess, to_device
from detector.models.limits import check_buildable, check_size
from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import load_strictly
from detector.models.weights.transfer import load_whole
from detector.utils.console import console
from detector.utils.device import resolve_device
from detector.utils.errors import InputError
from detector.utils.nearest import lookup, nearest_file
from detector.utils.text import quoted

UNUSED = {"seed", "output_dir", "imbalance", "augment", "loss", "train"}  # sections that only a training looks at
ImageLike = str | Path | bytes | Image.Image | np.ndarray
SHAPES = "(H, W, 3) RGB, or (H, W) or (H, W, 1) grey"
TAKEN = f"an image is a path, the bytes of an image file, a PIL image, or a uint8 array, {SHAPES}"
Threshold = float | Mapping[str, float]  # the least score to report: of all classes, or class name → its own


@dataclass
class Detector:
    """A model with all that its use needs: classes, configuration, device."""

    model: RetinaNet
    class_names: list[str]
    category_ids: list[int]
    """Of the training data, in the order of class_names."""
    config: Config
    device: torch.device
    postprocess: Postprocess
    class_counts: list[int] | None = None
    """Training boxes per class, where known."""
    deployment: Deployment | None = None
    """Thresholds and calibration of its checkpoint."""
    thresholds: np.ndarray | None = None
    """(K,) scores that a detection must reach to be reported; None: all are reported."""

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], threshold: Threshold | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Detect objects in an image or in a list of them.

        An image is a path, the bytes of an image file (JPEG, PNG, ...), a PIL image, or a uint8 array: (H, W, 3) RGB,
        (H, W) or (H, W, 1) grey. threshold: the least score to report in this call; see `with_threshold`.

        Returns for each image a dict of numpy arrays, highest score first: `boxes` (n, 4) float32 xyxy in pixels of
        the original, `scores` (n,) float32, `labels` (n,) int64 in 0..K-1, and `names`, a list of n str. One image
        gives one dict, a list gives a list. Raises InputError for an image that cannot be read, and as
        `with_threshold`.
        """
        detector = self if threshold is None else self.with_threshold(threshold)
        if isinstance(images, ImageLike):
            return next(detector.stream([images]))
        if not isinstance(images, Iterable):
            raise InputError(f"images: {TAKEN}; or a list of such, not {type(images).__name__}")
        return list(detector.stream(images))

    def stream(self, images: Iterable[ImageLike]) -> Iterator[dict[str, Any]]:
        """The same for any number of images, `eval.batch_size` at a time."""
        transform = build_transform(self.config.data.image_size, None)
        iterator = enumerate(images, 1)
        while chunk := list(islice(iterator, self.config.eval.batch_size)):
            batch = collate([_sample(_pixels(image, f"image {number}"), transform) for number, image in chunk])
            assert isinstance(batch, tuple)
            for found in detect(self.model, self.postprocess, *batch, self.device):
                arrays = self._reported({key: values.cpu().numpy() for key, values in found.items()})
                yield arrays | {"names": [self.class_names[label] for label in arrays["labels"]]}

    def with_threshold(self, threshold: Threshold) -> Detector:
        """The same detector, reporting from other scores; the model is shared.

        threshold: the least score to report, before calibration (`eval.calibrate`), 0 to 1. A number is for all
        classes. In a dict, class name → number, the classes that it leaves out keep their scores: those given to
        `load`, else those chosen on val. Raises InputError for anything else.
        """
        if isinstance(threshold, Mapping):
            labels = {name: label for label, name in enumerate(self.class_names)}
            floor = self.postprocess.score_threshold
            scores = np.full(len(labels), floor) if self.thresholds is None else np.maximum(self.thresholds, floor)
            for name, score in threshold.items():
                scores[lookup(labels, name, "threshold")] = _score(score, f"threshold of {name}")
        else:
            scores = np.full(len(self.class_names), _score(threshold, "threshold"))
        # A candidate must exceed the postprocessing's threshold, and may equal this one: hence a little less.
        settings = self.config.model.postprocess.model_copy(update={"score_threshold": 0.99 * float(scores.min())})
        return replace(self, postprocess=build_postprocess(settings), thresholds=scores)

    def _reported(self, found: dict[str, np.ndarray]) -> dict[str, Any]:
        """The detections that reach their class's threshold, calibrated if `eval.calibrate` says so."""
        if self.thresholds is not None:
            keep = found["scores"] >= self.thresholds[found["labels"]]
            found = {key: values[keep] for key, values in found.items()}
        if self.config.eval.calibrate and self.deployment:
            scores = self.deployment.calibration(found["scores"], found["labels"])
            order = np.argsort(-scores, kind="stable")
            found = {key: values[order] for key, values in {**found, "scores": scores}.items()}
        return found


def load(
    source: str | Path, device: str = "auto", overrides: Sequence[str] = (), threshold: Threshold | None = None
) -> Detector:
    """A detector from a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose `model.weights`
    names a whole detector.

    A CONFIG's detector has the classes of its weights; if those have no names, it takes the names of the dataset's val
    split. overrides: dotted.path=value on its configuration. threshold: the least score to report, a number or class
    name → number, as `Detector.with_threshold` takes it; None: the thresholds chosen on val for each class, or all
    scores where the checkpoint has none. Raises InputError.
    """
    source = Path(source)
    is_config = source.suffix in (".yaml", ".yml")
    detector = (_from_config if is_config else _from_checkpoint)(source, device, overrides)
    unused = UNUSED - {"output_dir"} if is_config else UNUSED
    if idle := [override for override in overrides if re.split("[.=]", override)[0] in unused]:
        console.print(f"without effect on a detector that is not trained: {', '.join(idle)}")
    if detector.config.eval.calibrate and detector.deployment is None:
        console.print(
            f"eval.calibrate: {source} has no calibration, without which scores stay as they are; "
            "tools/eval.py on val makes one"
        )
    if detector.deployment is not None:
        detector = replace(detector, thresholds=detector.deployment.thresholds)
    return detector if threshold is None else detector.with_threshold(threshold)


def _from_checkpoint(source: Path, device: str, overrides: Sequence[str]) -> Detector:
    state = checkpoint.load(checkpoint.find(source))
    classes = dict(zip(state["class_names"], state["category_ids"], strict=True))
    # its own device was that of another time and machine
    trained = validate({**state["config"], "device": "auto"}, str(source))
    config = validate(trained.model_dump(), str(source), overrides)
    config = config.with_anchor_rule(trained.model.anchors.resolved_rule)
    check_names(config)
    check_buildable(config, len(classes), state["model"], source=str(source))
    model = build_model(config.model, len(classes), pretrained=False)
    load_strictly(model, state["model"], source=str(source))
    detector = _ready(model, classes, config, device)
    return replace(detector, class_counts=state.get("class_counts"), deployment=_deployment(state, source))


def _from_config(source: Path, device: str, overrides: Sequence[str]) -> Detector:
    config = load_config(source, overrides)
    check_names(config)
    weights = config.model.weights
    if weights is None:
        raise InputError(f"{source}: model.weights names no detector to use; give a run directory or a checkpoint")
    if config.model.class_map:
        raise InputError(f"{source}: model.class_map is for training; a detector used as it is keeps its own names")
    found = checkpoint.read_detector(weights)
    if found.backbone_only:
        raise InputError(f"{weights}: {found.description}: it is no detector to use")
    config = config.with_anchor_rule(found.anchor_rule)
    classes = found.category_ids
    if classes is None:
        val = read_split(config, "val", check_images=False)
        classes = dict(zip(val.class_names, val.category_ids.tolist(), strict=True))
    check_size(config, len(classes))
    model = build_model(config.model, len(classes), pretrained=False)
    load_whole(model, found, list(classes))
    return _ready(model, classes, config, device)


def _ready(model: RetinaNet, classes: dict[str, int], config: Config, device: str) -> Detector:
    """On its device, in evaluation mode. classes: name → category id. device: auto means the configuration's."""
    resolved = resolve_device(config.device if device == "auto" else device)
    to_device(model, resolved, channels_last=True).eval()
    postprocess = build_postprocess(config.model.postprocess)
    return Detector(model, list(classes), list(classes.values()), config, resolved, postprocess)


def _deployment(state: dict[str, Any], source: Path) -> Deployment | None:
    """The checkpoint's thresholds and calibration. Raises InputError if they are damaged."""
    if state.get("deployment") is None:
        return None
    try:
        return Deployment.from_state(state["deployment"], len(state["class_names"]))
    except ValueError:
        raise InputError(f"{source}: its thresholds (`deployment`) are not as this version writes them") from None


def _score(value: object, name: str) -> float:
    """The value if it is a score. Raises InputError that calls it `name`."""
    if not isinstance(value, (int, float, np.floating)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InputError(f"{name}: a number from 0 to 1 (of all classes, or class name: number), not {quoted(value)}")
    return float(value)


def _sample(pixels: np.ndarray, transform: Transform) -> tuple[torch.Tensor, dict[str, Any]]:
    content, _, _ = transform(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    tensor = torch.from_numpy(letterbox(content, transform.image_size)).permute(2, 0, 1)
    return tensor, {"size": content.shape[:2], "orig_size": pixels.shape[:2]}


def _pixels(image: ImageLike, name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright. name: what errors call an image without a path. Raises InputError."""
    if isinstance(image, (str, Path)):
        if not os.path.exists(image):
            raise InputError(f"{image}: no such image; {nearest_file(Path(image))}")
        return read_image(image)
    if isinstance(image, bytes):
        return decode_image(image, name)
    if isinstance(image, Image.Image):
        with refusals_named(name):  # Pillow reads the pixels of a file only when they are needed
            return to_rgb(turned_upright(image))
    if not isinstance(image, np.ndarray):
        raise InputError(f"{name}: {TAKEN}, not {type(image).__name__}")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    colour = image.ndim == 3 and image.shape[2] == 3
    if not (grey or colour) or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"{name}: an array is uint8, {SHAPES}, not {image.dtype} {image.shape}")
    return image if colour else np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
