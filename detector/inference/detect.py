"""Detections of a batch: forward pass and postprocess, in halves where the device's memory cannot hold the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet
from detector.utils.errors import InputError

Batch = tuple[Tensor, list[dict]]  # images (N, 3, H, W) uint8, N targets


@torch.inference_mode()
def detect(
    model: RetinaNet, postprocess: Postprocess, images: Tensor, targets: list[dict], device: torch.device
) -> list[dict[str, Tensor]]:
    """The detections of each image, as `Postprocess` returns them, boxes in original pixels, on `device`.

    images: (N, 3, H, W) uint8, padded. targets: N dicts with `size` and `orig_size`, (h, w) in pixels. The model is in
    evaluation mode; the arithmetic is float32. Raises InputError if the memory does not even hold one image.
    """
    sizes = [target["size"] for target in targets]
    try:
        outputs = model(images.to(device, non_blocking=True), sizes)
        return postprocess(outputs, sizes, [target["orig_size"] for target in targets])
    except torch.OutOfMemoryError:
        if len(targets) == 1:
            raise image_too_large(images, device) from None
    # Retry outside `except`: its traceback keeps the tensors alive.
    torch.cuda.empty_cache()
    halves = split_into_micro_batches([(images, targets)], 2)
    return [found for half in halves for found in detect(model, postprocess, *half, device)]


def split_into_micro_batches(batches: Sequence[Batch], parts: int) -> Iterator[Batch]:
    """Each batch in `parts` parts, as even as its images allow."""
    for images, targets in batches:
        size = -(-len(targets) // parts)
        for first in range(0, len(targets), size):
            yield images[first : first + size], targets[first : first + size]


def image_too_large(images: Tensor, device: torch.device) -> InputError:
    """The error for an image that the device's memory cannot hold even alone."""
    height, width = images.shape[-2:]
    return InputError(f"the memory of {device} does not hold one image of {width}x{height} px; lower data.image_size")
