"""A step whose loss or gradient was not finite, kept in a file, and done again to see where that begins.

python tools/train.py --replay runs/my/bad_batch.pt
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detector import checkpoint
from detector.config.file import validate
from detector.config.schema import Config
from detector.inference.detect import Batch, parts
from detector.losses.class_statistics import ClassStatistics
from detector.losses.criterion import build_criterion
from detector.models import freeze
from detector.models.build import build_model, check_buildable
from detector.training.bad_step import BadStep, Rollback, culprits, forward, own_losses
from detector.training.state import Run, Training
from detector.utils.console import console
from detector.utils.device import resolve_device
from detector.utils.errors import InputError
from detector.utils.names import shortened
from detector.utils.untrusted.torch_file import is_parameter

FORMAT = "bad batch 1"


def write(run: Run, training: Training, bad: BadStep) -> bool:
    """Write the step `bad`, with the state of the training that it left as it was, to the run's bad_batch.pt.

    Returns whether that was possible: a full disk does not end a training for the sake of this file.
    """
    path = run.directory.bad_batch
    cuda = run.device.type == "cuda"
    state = {
        "replay": FORMAT,
        "config": run.config.model_dump(),
        "class_names": run.train.class_names,
        "class_counts": run.train.class_counts().tolist(),
        "frozen": run.frozen,
        "epoch": training.progress.epoch,
        "step": training.progress.step,
        "autocast": run.autocast,
        "model": training.model.state_dict(),
        "criterion": training.criterion.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(run.device) if cuda else None,
        "parts": bad.parts,
        "image_ids": bad.image_ids,
        "batches": bad.batches,
        "split": bad.split,
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
        model, criterion = _rebuild(state, config, device)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        raise InputError(f"{path}: damaged: not a bad batch as this version writes it") from None
    autocast = state["autocast"] if device.type != "cpu" or state["autocast"] is not torch.float16 else None
    say = console.print
    say(
        f"step {state['step']}, in epoch {state['epoch'] + 1}, of {config.output_dir}: {' and '.join(state['parts'])} "
        f"not finite on {shortened([f'image {i}' for i in state['image_ids']])}; again on {device}, "
        f"{str(autocast or torch.float32).removeprefix('torch.')}"
    )
    for line in [*_broken_tensors(model), *_broken_boxes(state["batches"])]:
        say(line)
    rollback = Rollback(model, criterion, device)
    batches = list(parts(state["batches"], state["split"]))
    with torch.no_grad(), _watched(model) as places:
        bad = {}
        for images, targets in batches:
            outputs = forward(model, images, targets, device, autocast)
            for target, losses in zip(targets, own_losses(criterion, outputs, targets), strict=True):
                say(f"image {target['image_id']}: {_figures(losses)}; {len(target['boxes'])} boxes")
                bad |= {name: None for name, loss in losses.items() if not loss.isfinite()}
    if places:
        say(f"first not finite: {places[0]}")
    elif bad:
        say(f"first not finite: {' and '.join(bad)}; all that the model puts out is finite")
    else:
        rollback.undo()
        found = culprits(model, criterion, batches, device=device, autocast=autocast)
        lines = [f"image {image_id}: {' and '.join(names)} not finite" for image_id, names in found.items()]
        say("\n".join(lines) or "every value is finite here; what was not may be of another device or precision")


def _check(state: dict) -> None:
    """Raises ValueError, or what comes of it, where a file has not what `write` wrote."""
    lists = ("image_ids", "parts", "batches", "class_names", "class_counts", "frozen")
    if not all(type(state[key]) is list for key in lists):
        raise ValueError("not lists")
    numbers = [state["step"], state["epoch"], state["split"], *state["image_ids"], *state["class_counts"]]
    names = state["class_names"]
    sound = (
        all(type(number) is int for number in numbers)
        and state["split"] >= 1
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


def _rebuild(state: dict, config: Config, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Model and criterion as they were before the step, and so the random generators."""
    names = state["class_names"]
    model = build_model(config.model, len(names), pretrained=False)
    model.load_state_dict(state["model"])
    freeze.set_frozen(model, state["frozen"], config.train.unfreeze, epoch=state["epoch"] + 1)
    criterion = build_criterion(config.loss, np.array(state["class_counts"]), names, ClassStatistics(len(names)))
    criterion.load_state_dict(state["criterion"])
    model.to(device, memory_format=torch.channels_last if config.train.channels_last else torch.contiguous_format)
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"], device)
    return model.train(), criterion.to(device)


def _broken_tensors(model: nn.Module) -> Iterator[str]:
    for name, values in model.state_dict().items():
        if count := int((~values.isfinite()).sum()):
            yield f"{name}: {count} of its {values.numel()} values are not finite"


def _broken_boxes(batches: list[Batch]) -> Iterator[str]:
    for target in (target for _, targets in batches for target in targets):
        boxes = target["boxes"]
        for box in boxes[~((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1))].tolist():
            yield f"image {target['image_id']}: a box without area or not finite, as fed: {box} (x1, y1, x2, y2)"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list that gets, while the model runs, each module whose output is not finite, in the order of computing."""
    places: list[str] = []

    def look(name: str, module: nn.Module, inputs: tuple, output) -> None:
        if not _finite(output):
            kind = type(module).__name__
            inputs_are = "finite" if _finite(inputs) else "not"
            weights_are = "finite" if _finite(list(module.state_dict().values())) else "not"
            places.append(
                f"output of {name or 'the model'} ({kind}); its input is {inputs_are}, its weights {weights_are}"
            )

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in model.named_modules()]
    try:
        yield places
    finally:
        for hook in hooks:
            hook.remove()


def _finite(values) -> bool:
    """Of a tensor, or of all tensors in nested lists, tuples and dicts."""
    if isinstance(values, torch.Tensor):
        return bool(values.isfinite().all())
    if isinstance(values, dict):
        values = list(values.values())
    return all(map(_finite, values)) if isinstance(values, (list, tuple)) else True


def _figures(losses: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {loss.item():.6g}" for name, loss in losses.items())
