"""A training step whose loss or gradient is not finite: whose fault it is, and everything as it was before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, list[dict]]  # as in engine.py


@dataclass(frozen=True)
class BadStep:
    """A step that was not taken."""

    parts: list[str]  # what is not finite: of loss_cls and loss_box, or their gradients
    image_ids: list[int]  # whose own part of it is not; all of the step's images, if only together they are
    batches: list[Batch]  # all that the step was made of
    split: int  # parts that each batch was computed in


class Rollback:
    """What the forward pass of a training step changes: the buffers of model and criterion (statistics of batch norm
    and of the loss) and the state of the random generators. Noting it is a copy on the device, without a sync."""

    def __init__(self, model: nn.Module, criterion: nn.Module, device: torch.device):
        self.buffers = [*model.buffers(), *criterion.buffers()]
        self.before = [buffer.clone() for buffer in self.buffers]
        self.device = device
        self.note()

    @torch.no_grad()
    def note(self) -> None:
        torch._foreach_copy_(self.before, self.buffers)
        self.random = torch.get_rng_state()
        self.random_cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    @torch.no_grad()
    def undo(self) -> None:
        """Everything as it was at the last `note`."""
        torch._foreach_copy_(self.buffers, self.before)
        torch.set_rng_state(self.random)
        if self.random_cuda is not None:
            torch.cuda.set_rng_state(self.random_cuda, self.device)


def forward(
    model: nn.Module, images: Tensor, targets: list[dict], device: torch.device, autocast: torch.dtype | None
) -> dict:
    """What the model makes of a batch, in the arithmetic of the training."""
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        return model(images.to(device, non_blocking=True), [t["size"] for t in targets])


def culprits(
    model: nn.Module, criterion: nn.Module, batches: Iterable[Batch], *, device: torch.device, autocast
) -> dict[int, list[str]]:
    """Image id → which of its own losses are not finite, or, where all of them are, which have such a gradient.

    The losses are those of each image, after the batches went through the model as they are, for the sake of norms that
    look at a batch. The gradients are those of each image alone: in a batch, the infinite slope of one image makes NaN
    of the zero gradients of the others. Empty if none is to blame alone, or it cannot be found out. Changes what
    Rollback keeps.
    """
    batches = list(batches)
    found: dict[int, list[str]] = {}
    with torch.no_grad():
        for images, targets in batches:
            outputs = forward(model, images, targets, device, autocast)
            for target, losses in zip(targets, own_losses(criterion, outputs, targets), strict=True):
                if names := [name for name, loss in losses.items() if not loss.isfinite()]:
                    found[target["image_id"]] = names
    singles = [(images[i : i + 1], [target]) for images, targets in batches for i, target in enumerate(targets)]
    for image, targets in [] if found else singles:
        try:
            (losses,) = own_losses(criterion, forward(model, image, targets, device, autocast), targets)
        except ValueError:  # batch norm refuses to look at a single value
            break
        if names := _bad_gradients(model, losses):
            found[targets[0]["image_id"]] = names
    return found


def own_losses(criterion: nn.Module, outputs: dict, targets: list[dict]) -> Iterator[dict[str, Tensor]]:
    """loss_cls and loss_box of each image of a batch alone."""
    for i, target in enumerate(targets):
        own = {key: outputs[key][i : i + 1] for key in ("logits", "deltas")}
        losses = criterion({**outputs, **own}, [target])
        positives = losses.pop("num_positives").clamp(min=1)
        yield {name: loss / positives for name, loss in losses.items()}


def _bad_gradients(model: nn.Module, losses: dict[str, Tensor]) -> list[str]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    bad = []
    for name, loss in losses.items():
        if not loss.requires_grad:  # that half of the head is frozen
            continue
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
            bad.append(f"gradient of {name}")
    return bad
