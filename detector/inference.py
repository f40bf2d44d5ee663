"""A trained detector, ready to use: `detect = detector.load("runs/my"); detect("photo.jpg")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detector import checkpoint
from detector.config import Config, load_config, validate
from detector.data.coco import load_descriptor, read_coco
from detector.data.image import read_image, to_rgb
from detector.data.loader import collate
from detector.data.transforms import build_transform, letterbox
from detector.models.build import build_model, build_postprocess
from detector.models.files import load_strictly
from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet
from detector.utils.device import resolve_device
from detector.utils.errors import InputError

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass
class Detector:
    """A model with what is needed to use it: its classes, the configuration it was trained with, and a device."""

    model: RetinaNet
    class_names: list[str]
    category_ids: list[int]  # of the training data, in the order of class_names
    config: Config
    device: torch.device
    postprocess: Postprocess

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
                arrays = {key: found[key].cpu().numpy() for key in ("boxes", "scores", "labels")}
                yield arrays | {"names": [self.class_names[label] for label in arrays["labels"]]}


def load(source: str | Path, device: str = "auto", overrides: Sequence[str] = ()) -> Detector:
    """A detector from a run directory (its best checkpoint), a checkpoint file, or a CONFIG whose `model.weights`
    names a whole detector (then for the classes of its dataset's val split, by name).

    overrides: dotted.path=value on its configuration. Raises InputError.
    """
    source = Path(source)
    if source.suffix in (".yaml", ".yml"):
        model, classes, config = _from_config(source, overrides)
    else:
        state = checkpoint.load(checkpoint.find(source))
        classes = dict(zip(state["class_names"], state["category_ids"], strict=True))
        config = validate(state["config"], str(source), overrides)
        model = build_model(config.model, len(classes), pretrained=False)
        load_strictly(model, state["model"], source=str(source))
    place = resolve_device(config.device if device == "auto" else device)
    model.to(place, memory_format=torch.channels_last).eval()
    postprocess = build_postprocess(config.model.postprocess)
    return Detector(model, list(classes), list(classes.values()), config, place, postprocess)


def _from_config(path: Path, overrides: Sequence[str]) -> tuple[RetinaNet, dict[str, int], Config]:
    config = load_config(path, overrides)
    if config.model.weights is None:
        raise InputError(f"{path}: model.weights names no detector to use; give a run directory or a checkpoint")
    descriptor = load_descriptor(config.data.dataset)
    val = read_coco(descriptor.split("val"), descriptor.classes, config.data.bad_annotations)
    model = build_model(config.model, len(val.class_names), pretrained=False)
    unknown = checkpoint.start_from(model, config.model.weights, val.class_names)
    if unknown:
        raise InputError(f"{config.model.weights}: does not know the class {unknown[0]!r} of {descriptor.path}")
    return model, dict(zip(val.class_names, val.category_ids.tolist(), strict=True)), config


def _sample(image: ImageLike, transform) -> tuple[torch.Tensor, dict]:
    array = image if isinstance(image, np.ndarray) else to_rgb(image) if isinstance(image, Image.Image) else None
    array = read_image(Path(image)) if array is None else array
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise InputError(f"an image array must be (H, W, 3) uint8 RGB, got {array.shape} {array.dtype}")
    content, boxes, labels = transform(array, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    tensor = torch.from_numpy(letterbox(content, transform.image_size)).permute(2, 0, 1)
    return tensor, {"size": content.shape[:2], "orig_size": array.shape[:2]}
