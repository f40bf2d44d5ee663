"""A trained detector, ready to use: `detect = detector.load("runs/my"); detect("photo.jpg")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detector import checkpoint
from detector.config.file import load_config, validate
from detector.config.schema import Config
from detector.data.coco import load_descriptor, read_coco
from detector.data.image import read_image, to_rgb, turned_upright
from detector.data.loader import collate
from detector.data.transforms import Transform, build_transform, letterbox
from detector.evaluation.deployment import Deployment
from detector.models.build import build_model, build_postprocess, check_buildable
from detector.models.limits import check_size
from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import load_strictly
from detector.models.weights.transfer import load_whole
from detector.utils.device import resolve_device
from detector.utils.errors import InputError

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass
class Detector:
    """A model with what is needed to use it: its classes, the configuration it was trained with, and a device.

    What it reports is what reaches `thresholds` (K,), where there are any: those chosen on val, or the caller's.
    """

    model: RetinaNet
    class_names: list[str]
    category_ids: list[int]  # of the training data, in the order of class_names
    config: Config
    device: torch.device
    postprocess: Postprocess
    class_counts: list[int] | None = None  # boxes of each class in training, where known
    deployment: Deployment | None = None  # as its checkpoint has it
    thresholds: np.ndarray | None = None

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> dict | list[dict]:
        """Detect objects in an image (a path, a PIL image or an (H, W, 3) uint8 RGB array) or in a list of them.

        Returns for each image a dict of numpy arrays, highest score first: `boxes` (n, 4) float32 xyxy in pixels of
        the original, `scores` (n,) float32, `labels` (n,) int64 in 0..K-1, and `names`, a list of n str. One image
        gives one dict, a list gives a list. Raises InputError for an image that cannot be read.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return next(self.stream([images]))
        return list(self.stream(images))

    @torch.inference_mode()
    def stream(self, images: Iterable[ImageLike]) -> Iterator[dict]:
        """The same for any number of images, a batch at a time."""
        transform = build_transform(self.config.data.image_size, None)
        iterator = iter(images)
        while chunk := list(islice(iterator, self.config.eval.batch_size)):
            batch, targets = collate([_sample(image, transform) for image in chunk])
            sizes = [t["size"] for t in targets]
            outputs = self.model(batch.to(self.device), sizes)
            for found in self.postprocess(outputs, sizes, [t["orig_size"] for t in targets]):
                arrays = self._reported({key: found[key].cpu().numpy() for key in ("boxes", "scores", "labels")})
                yield arrays | {"names": [self.class_names[label] for label in arrays["labels"]]}

    def _reported(self, found: dict) -> dict:
        """Those of the detections that reach their class's threshold, calibrated where `eval.calibrate` says so."""
        scores, labels = found["scores"], found["labels"]
        if self.thresholds is not None:
            keep = scores >= self.thresholds[labels]
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
    names a whole detector (for all classes it knows; where it does not name them, those of the dataset's val split).

    overrides: dotted.path=value on its configuration. threshold: the score, before any calibration, to report a
    detection from; None = those of each class that were chosen on val, or all scores where the checkpoint has none.
    Raises InputError.
    """
    if threshold is not None:
        overrides = [*overrides, f"model.postprocess.score_threshold={threshold}"]
    detector = _load(Path(source), device, overrides)
    if threshold is not None or detector.deployment is None:
        return detector
    return replace(detector, thresholds=detector.deployment.thresholds)


def _load(source: Path, device: str, overrides: Sequence[str]) -> Detector:
    class_counts = deployment = None
    if source.suffix in (".yaml", ".yml"):
        config = load_config(source, overrides)
        model, classes = _from_weights(config, source)
    else:
        state = checkpoint.load(checkpoint.find(source))
        class_counts = state.get("class_counts")
        deployment = _deployment(state, source)
        classes = dict(zip(state["class_names"], state["category_ids"], strict=True))
        # it was trained on a device of its own time and machine
        config = validate({**state["config"], "device": "auto"}, str(source), overrides)
        check_buildable(config, len(classes), state["model"], source=str(source))
        model = build_model(config.model, len(classes), pretrained=False)
        load_strictly(model, state["model"], source=str(source))
    place = resolve_device(config.device if device == "auto" else device)
    model.to(place, memory_format=torch.channels_last).eval()
    postprocess = build_postprocess(config.model.postprocess)
    return Detector(model, list(classes), list(classes.values()), config, place, postprocess, class_counts, deployment)


def _deployment(state: dict, source: Path) -> Deployment | None:
    """Raises InputError where the checkpoint's is none."""
    if state.get("deployment") is None:
        return None
    try:
        return Deployment.from_state(state["deployment"], len(state["class_names"]))
    except ValueError:
        raise InputError(f"{source}: its thresholds (`deployment`) are not as this version writes them") from None


def _from_weights(config: Config, source: Path) -> tuple[RetinaNet, dict[str, int]]:
    """The detector of `model.weights`, and class name → category id."""
    weights = config.model.weights
    if weights is None:
        raise InputError(f"{source}: model.weights names no detector to use; give a run directory or a checkpoint")
    if config.model.class_map:
        raise InputError(f"{source}: model.class_map is for training; a detector used as it is keeps its own names")
    found = checkpoint.read_detector(weights)
    if found.backbone_only:
        raise InputError(f"{weights}: {found.description}: no detector to use")
    classes = found.category_ids
    if classes is None:
        descriptor = load_descriptor(config.data.dataset)
        val = read_coco(descriptor.split("val"), descriptor.classes, config.data.bad_annotations)
        classes = dict(zip(val.class_names, val.category_ids.tolist(), strict=True))
    check_size(config, len(classes))
    model = build_model(config.model, len(classes), pretrained=False)
    load_whole(model, found, list(classes))
    return model, classes


def _sample(image: ImageLike, transform: Transform) -> tuple[torch.Tensor, dict]:
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
