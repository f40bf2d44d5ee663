"""The forward pass and postprocess of a batch, in halves where the device's memory cannot hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from detector.evaluation.detections import Detections
from detector.utils.errors import InputError

Batch = tuple[torch.Tensor, list[dict]]  # images (N, 3, H, W) uint8, N targets


def parts(step: list[Batch], split: int) -> Iterator[Batch]:
    """Each batch in `split` parts, as even as its images allow."""
    for images, targets in step:
        size = -(-len(targets) // split)
        for first in range(0, len(targets), size):
            yield images[first : first + size], targets[first : first + size]


@torch.inference_mode()
def evaluate(model: nn.Module, postprocess, batches: Iterable, *, device: torch.device) -> Iterator[Detections]:
    """Detections of each batch, in float32 arithmetic, boxes in original pixels; batches in the order of the data."""
    model.eval()
    first = 0
    for images, targets in batches:
        yield Detections.from_batch(_detect(model, postprocess, images, targets, device), first)
        first += len(targets)


def _detect(model: nn.Module, postprocess, images: torch.Tensor, targets: list[dict], device) -> list[dict]:
    """What postprocess finds in a batch, in halves where the device's memory cannot hold it."""
    sizes = [t["size"] for t in targets]
    try:
        outputs = model(images.to(device, non_blocking=True), sizes)
        return postprocess(outputs, sizes, [t["orig_size"] for t in targets])
    except torch.OutOfMemoryError:
        if len(targets) == 1:
            raise _one_image_too_many(images, device) from None
    torch.cuda.empty_cache()
    return [found for part in parts([(images, targets)], 2) for found in _detect(model, postprocess, *part, device)]


def _one_image_too_many(images: torch.Tensor, device: torch.device) -> InputError:
    height, width = images.shape[-2:]
    return InputError(f"the memory of {device} does not hold one image of {width}x{height} px; lower data.image_size")
