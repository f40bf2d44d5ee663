"""A trained detector, ready to use: `detect = detector.load("runs/my"); detect("photo.jpg")`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
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
from detector.data.image import read_image, to_rgb, turned_upright
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

UNUSED = {"seed", "output_dir", "imbalance", "augment", "loss", "train"}  # sections that only a training looks at
ImageLike = str | Path | Image.Image | np.ndarray


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

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> dict[str, Any] | list[dict[str, Any]]:
        """Detect objects in an image (a path, a PIL image or an (H, W, 3) uint8 RGB array) or in a list of them.

        Returns for each image a dict of numpy arrays, highest score first: `boxes` (n, 4) float32 xyxy in pixels of
        the original, `scores` (n,) float32, `labels` (n,) int64 in 0..K-1, and `names`, a list of n str. One image
        gives one dict, a list gives a list. Raises InputError for an image that cannot be read.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return next(self.stream([images]))
        return list(self.stream(images))

    def stream(self, images: Iterable[ImageLike]) -> Iterator[dict[str, Any]]:
        """The same for any number of images, `eval.batch_size` at a time."""
        transform = build_transform(self.config.data.image_size, None)
        iterator = iter(images)
        while chunk := list(islice(iterator, self.config.eval.batch_size)):
            batch = collate([_sample(image, transform) for image in chunk])
            assert isinstance(batch, tuple)
            for found in detect(self.model, self.postprocess, *batch, self.device):
                arrays = self._reported({key: values.cpu().numpy() for key, values in found.items()})
                yield arrays | {"names": [self.class_names[label] for label in arrays["labels"]]}

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
    source: str | Path, device: str = "auto", overrides: Sequence[str] = (), threshold: float | None = None
) -> Detector:
    """A detector from a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose `model.weights`
    names a whole detector.

    A CONFIG's detector has the classes of its weights; if those have no names, it takes the names of the dataset's val
    split. overrides: dotted.path=value on its configuration. threshold: the least score to report, before calibration;
    None: the thresholds chosen on val for each class, or all scores where the checkpoint has none. Raises InputError.
    """
    if threshold is not None:
        overrides = [*overrides, f"model.postprocess.score_threshold={threshold}"]
    source = Path(source)
    is_config = source.suffix in (".yaml", ".yml")
    detector = (_from_config if is_config else _from_checkpoint)(source, device, overrides)
    unused = UNUSED - {"output_dir"} if is_config else UNUSED
    if idle := [override for override in overrides if re.split("[.=]", override)[0] in unused]:
        console.print(f"without effect on a detector that is not trained: {', '.join(idle)}")
    if detector.config.eval.calibrate and detector.deployment is None:
        console.print(
            f"eval.calibrate: {source} has no calibration; scores stay as they are until tools/eval.py on val"
        )
    if threshold is not None or detector.deployment is None:
        return detector
    return replace(detector, thresholds=detector.deployment.thresholds)


def _from_checkpoint(source: Path, device: str, overrides: Sequence[str]) -> Detector:
    state = checkpoint.load(checkpoint.find(source))
    classes = dict(zip(state["class_names"], state["category_ids"], strict=True))
    # its own device was that of another time and machine
    config = validate({**state["config"], "device": "auto"}, str(source), overrides)
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


def _sample(image: ImageLike, transform: Transform) -> tuple[torch.Tensor, dict[str, Any]]:
    array = _pixels(image)
    content, _, _ = transform(array, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    tensor = torch.from_numpy(letterbox(content, transform.image_size)).permute(2, 0, 1)
    return tensor, {"size": content.shape[:2], "orig_size": array.shape[:2]}


def _pixels(image: ImageLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright. Raises InputError."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(turned_upright(image))
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image is a path, a PIL image or an array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"an image array is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
    return image
