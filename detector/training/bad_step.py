"""A training step whose loss or gradient is not finite: undo it, and find the images to blame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.inference.detect import Batch
from detector.models.retinanet import outputs_of_image
from detector.training.forward import forward


@dataclass(frozen=True)
class BadStep:
    """A step that was not taken."""

    parts: list[str]
    """The losses that are not finite, or whose gradient is not."""
    image_ids: list[int]
    """The images to blame: those whose own loss or gradient is not finite; if no single image is to
    blame, all images of the step."""
    batches: list[Batch]
    """The batches of the step."""
    micro_batches: int
    """Parts that each batch was computed in."""


class Rollback:
    """A copy of what the forward pass of a training step changes: the buffers of model and criterion (statistics of
    batch norm and of the loss) and the state of the random generators. Copying does not wait for the device."""

    def __init__(self, model: nn.Module, criterion: nn.Module, device: torch.device):
        self.buffers = [*model.buffers(), *criterion.buffers()]
        self.copies = [buffer.clone() for buffer in self.buffers]
        self.device = device
        self.save()

    @torch.no_grad()
    def save(self) -> None:
        """Copy the state."""
        torch._foreach_copy_(self.copies, self.buffers)
        self.random = torch.get_rng_state()
        self.random_cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the state of the last `save`."""
        torch._foreach_copy_(self.buffers, self.copies)
        torch.set_rng_state(self.random)
        if self.random_cuda is not None:
            torch.cuda.set_rng_state(self.random_cuda, self.device)


def culprits(
    model: nn.Module,
    criterion: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    autocast: torch.dtype | None,
) -> dict[int, list[str]]:
    """Image id → its losses that are not finite; if all losses are finite, its losses whose gradient is not.

    The losses come from the batches as they are, because some norms look at a whole batch. The gradients come from each
    image alone, because one infinite gradient in a batch turns the zero gradients of the other images into NaN. Empty
    if no image is to blame alone. Changes what Rollback restores.
    """
    batches = list(batches)
    found: dict[int, list[str]] = {}
    with torch.no_grad():
        for images, targets in batches:
            outputs = forward(model, images, targets, device, autocast)
            for target, losses in zip(targets, losses_by_image(criterion, outputs, targets), strict=True):
                if names := [name for name, loss in losses.items() if not loss.isfinite()]:
                    found[target["image_id"]] = names
    if found:
        return found
    singles = [(images[i : i + 1], [target]) for images, targets in batches for i, target in enumerate(targets)]
    for image, alone in singles:
        try:
            (losses,) = losses_by_image(criterion, forward(model, image, alone, device, autocast), alone)
        except ValueError:  # batch norm refuses a single value per channel
            break
        if names := _bad_gradients(model, losses):
            found[alone[0]["image_id"]] = names
    return found


def losses_by_image(criterion: nn.Module, outputs: dict, targets: list[dict]) -> Iterator[dict[str, Tensor]]:
    """The losses of each image of a batch alone, divided by the image's own normaliser."""
    for i, target in enumerate(targets):
        losses = criterion(outputs_of_image(outputs, i), [target])
        normaliser = losses.pop("normaliser").clamp(min=1)
        del losses["num_positives"]
        yield {name: loss / normaliser for name, loss in losses.items()}


def _bad_gradients(model: nn.Module, losses: dict[str, Tensor]) -> list[str]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    bad = []
    for name, loss in losses.items():
        if not loss.requires_grad:  # its half of the head is frozen
            continue
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
            bad.append(f"gradient of {name}")
    return bad
