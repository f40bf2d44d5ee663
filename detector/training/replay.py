"""A step whose loss or gradient was not finite: kept in a file, and done again to see where that begins.

python tools/train.py --replay runs/my/bad_batch.pt
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detector import checkpoint
from detector.config.file import validate
from detector.config.schema import Config
from detector.inference.detect import Batch, split_into_micro_batches
from detector.losses.criterion import set_class_weights
from detector.models import freeze
from detector.models.build import build_model
from detector.models.limits import check_buildable
from detector.training.bad_step import BadStep, Rollback, culprits, losses_by_image
from detector.training.forward import forward
from detector.training.setup import build_training
from detector.training.state import Run, Training
from detector.utils.console import console
from detector.utils.device import resolve_device
from detector.utils.errors import InputError
from detector.utils.text import counted, shortened
from detector.utils.untrusted.torch_file import is_parameter

FORMAT = "bad batch 3"


def write(run: Run, bad: BadStep) -> bool:
    """Write the step `bad`, and the state of the training before it, to the run's bad_batch.pt.

    Returns whether there was room: a full disk is no reason to end a training.
    """
    path, training = run.directory.bad_batch, run.training
    cuda = run.device.type == "cuda"
    state = {
        "replay": FORMAT,
        "config": run.config.model_dump(),
        "class_names": run.train.class_names,
        "class_counts": run.shown.tolist(),
        "frozen": run.frozen,
        "epoch": run.progress.epoch,
        "step": run.progress.step,
        "autocast": run.autocast,
        "model": training.model.state_dict(),
        "criterion": training.criterion.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(run.device) if cuda else None,
        "parts": bad.parts,
        "image_ids": bad.image_ids,
        "batches": bad.batches,
        "micro_batches": bad.micro_batches,
    }
    try:
        checkpoint.save(path, state)
    except OSError as problem:
        run.log.say(f"warning: {path} could not be written ({problem.strerror})")
        return False
    return True


def replay(path: str | Path) -> None:
    """Do the step in the file `path` again, on this machine's device, and print its images, their losses and where the
    first value arises that is not finite. Raises InputError for another file."""
    state = checkpoint.read(Path(path))
    if not isinstance(state, dict) or state.get("replay") != FORMAT:
        raise InputError(f"{path}: not a bad batch that a training has left; those are called bad_batch.pt")
    device = resolve_device("auto")
    try:
        _check(state)
        config = validate(state["config"], str(path))
        check_buildable(config, len(state["class_names"]), state["model"], source=str(path))
        training = _rebuild(state, config, device)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        raise InputError(f"{path}: damaged: not a bad batch as this version writes it") from None
    autocast = state["autocast"] if device.type != "cpu" or state["autocast"] is not torch.float16 else None
    console.print(
        f"step {state['step']}, in epoch {state['epoch'] + 1}, of {config.output_dir}: {' and '.join(state['parts'])} "
        f"not finite on {shortened([f'image {i}' for i in state['image_ids']])}; again on {device}, "
        f"{str(autocast or torch.float32).removeprefix('torch.')}"
    )
    for line in [*_broken_tensors(training.model), *_broken_boxes(state["batches"])]:
        console.print(line)
    for line in _first_not_finite(training, state, autocast):
        console.print(line)


def _first_not_finite(training: Training, state: dict[str, Any], autocast: torch.dtype | None) -> Iterator[str]:
    """Do the step again. Lines on each image's losses, then on where the first value arises that is not finite: in a
    module, in a loss, or in a gradient."""
    model, criterion, device = training.model, training.criterion, training.device
    rollback = Rollback(model, criterion, device)
    batches = list(split_into_micro_batches(state["batches"], state["micro_batches"]))
    bad: list[str] = []
    with torch.no_grad(), _watched(model) as places:
        for images, targets in batches:
            outputs = forward(model, images, targets, device, autocast)
            for target, losses in zip(targets, losses_by_image(criterion, outputs, targets), strict=True):
                yield f"image {target['image_id']}: {_figures(losses)}; {counted(len(target['boxes']), 'box')}"
                bad += [name for name, loss in losses.items() if not loss.isfinite() and name not in bad]
    if places:
        yield f"first not finite: {places[0]}"
    elif bad:
        yield f"first not finite: {' and '.join(bad)}; all outputs of the model are finite"
    else:
        rollback.restore()
        found = culprits(model, criterion, batches, device=device, autocast=autocast)
        for image_id, names in found.items():
            yield f"image {image_id}: {' and '.join(names)} not finite"
        if not found:
            yield "every value is finite here; on another device or in another precision it was not"


def _check(state: dict[str, Any]) -> None:
    """Raises ValueError, or another error of reading it, for a file that `write` did not write."""
    lists = ("image_ids", "parts", "batches", "class_names", "class_counts", "frozen")
    if not all(type(state[key]) is list for key in lists):
        raise ValueError("not lists")
    numbers = [state["step"], state["epoch"], state["micro_batches"], *state["image_ids"], *state["class_counts"]]
    names = state["class_names"]
    sound = (
        all(type(number) is int for number in numbers)
        and state["micro_batches"] >= 1
        and all(type(name) is str for name in [*names, *state["parts"], *state["frozen"]])
        and state["autocast"] in (None, torch.float16, torch.bfloat16)
        and all(is_parameter(*item) for part in ("model", "criterion") for item in state[part].items())
        and all(_is_batch(images, targets, len(names)) for images, targets in state["batches"])
    )
    if not sound:
        raise ValueError("not as it was written")


def _is_batch(images: torch.Tensor, targets: list[dict], num_classes: int) -> bool:
    if not is_parameter("", images) or images.dtype != torch.uint8 or images.shape[:2] != (len(targets), 3):
        return False
    return images.numel() > 0 and images.dim() == 4 and all(
        is_parameter("", target["boxes"]) and is_parameter("", target["labels"])
        and target["boxes"].shape == (len(target["labels"]), 4) and target["boxes"].dtype == torch.float32
        and target["labels"].dim() == 1 and target["labels"].dtype == torch.int64
        and bool(((target["labels"] >= 0) & (target["labels"] < num_classes)).all())
        and all(type(side) is int and 1 <= side <= most
                for side, most in zip(target["size"], images.shape[2:], strict=True))
        and type(target["image_id"]) is int
        for target in targets
    )  # fmt: skip


def _rebuild(state: dict[str, Any], config: Config, device: torch.device) -> Training:
    """Model, criterion and random generators as they were before the step."""
    names = state["class_names"]
    model = build_model(config.model, len(names), pretrained=False)
    model.load_state_dict(state["model"])
    training = build_training(
        config,
        model,
        state["frozen"],
        class_names=names,
        shown=np.array(state["class_counts"]),
        batches=1,
        total_steps=1,
        device=device,
    )
    freeze.set_frozen(model, state["frozen"], config.train.unfreeze, epoch=state["epoch"] + 1)
    training.criterion.load_state_dict(state["criterion"])
    deferred = state["epoch"] < config.deferred_epochs
    set_class_weights(training.criterion, config.loss, np.array(state["class_counts"]), deferred=deferred)
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"], device)
    model.train()
    return training


def _broken_tensors(model: nn.Module) -> Iterator[str]:
    for name, values in model.state_dict().items():
        if count := int((~values.isfinite()).sum()):
            yield f"{name}: not finite: {count} of its {counted(values.numel(), 'value')}"


def _broken_boxes(batches: list[Batch]) -> Iterator[str]:
    for target in (target for _, targets in batches for target in targets):
        boxes = target["boxes"]
        for box in boxes[~((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1))].tolist():
            yield f"image {target['image_id']}: a box without area or not finite, as fed: {box} (x1, y1, x2, y2)"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list that grows, while the model runs, by each module whose output is not finite, in the order of computing."""
    places: list[str] = []

    def look(name: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        if not _finite(output):
            kind = type(module).__name__
            inputs_are = "finite" if _finite(inputs) else "not finite"
            weights_are = "finite" if _finite(list(module.state_dict().values())) else "not finite"
            places.append(
                f"output of {name or 'the model'} ({kind}); its input is {inputs_are}, its weights are {weights_are}"
            )

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in model.named_modules()]
    try:
        yield places
    finally:
        for hook in hooks:
            hook.remove()


def _finite(values: Any) -> bool:
    """Whether a tensor, or all tensors in nested lists, tuples and dicts, are finite."""
    if isinstance(values, torch.Tensor):
        return bool(values.isfinite().all())
    if isinstance(values, dict):
        values = list(values.values())
    return all(map(_finite, values)) if isinstance(values, (list, tuple)) else True


def _figures(losses: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {loss.item():.6g}" for name, loss in losses.items())
