"""Which image size to train at: large enough for the smallest objects, small enough for the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.coco import CocoData

MULTIPLE = 32  # pixels: batches are padded to multiples of this
ENOUGH = 10  # boxes: the median size of a class with fewer does not count


@dataclass(frozen=True)
class _Device:
    """What images are resized for; all in pixels but `enlarge`."""

    name: str
    object_side: int  # wanted for the median object of the class with the smallest objects
    least: int  # long sides of the image to choose from
    most: int
    enlarge: float  # greatest factor; it shows nothing new, but suits weights trained on larger objects


CPU = _Device("a CPU", object_side=20, least=256, most=512, enlarge=1)
GPU = _Device("a GPU", object_side=32, least=800, most=1344, enlarge=2)


def choose_image_size(train: CocoData, gpu: bool) -> tuple[dict[str, int], str]:
    """data.image_size as {short, long} in pixels, and the reason for it."""
    device = GPU if gpu else CPU
    sides = np.stack([train.heights, train.widths])
    long = float(np.median(sides.max(axis=0)))
    shape = float(np.median(sides.min(axis=0) / sides.max(axis=0)))
    name, median = _smallest_class(train)
    most = min(device.most, long * device.enlarge)
    wanted = device.least if name is None else long * device.object_side / median
    side = round(min(max(wanted, device.least), most) / MULTIPLE) * MULTIPLE
    side = min(max(MULTIPLE, side), max(MULTIPLE, round(most)))
    size = {"short": max(1, round(side * shape)), "long": side}
    if name is None:
        return size, f"there is no object to choose by, and {device.least} px take little time"
    why = f"{name} has the smallest objects, {median:.0f} px in images of {long:.0f}: at this size "
    return size, f"{why}{median * side / long:.0f} px{_compared(wanted, most, device)}"


def _compared(wanted: float, most: float, device: _Device) -> str:
    """End of the reason: why the objects get fewer or more pixels than wanted, if they do. All in pixels."""
    if wanted > most:
        limit = "the images have no more" if most < device.most else f"{device.most} is the most for {device.name}"
        return f", fewer than the {device.object_side} wanted ({limit})"
    if wanted < device.least:
        return f", more than the {device.object_side} wanted ({device.least} px take little time)"
    return ""


def _smallest_class(train: CocoData) -> tuple[str | None, float]:
    """The class whose median object is the smallest, and that median of sqrt(w * h) in pixels of the file."""
    sides = np.sqrt(train.boxes[:, 2] * train.boxes[:, 3])
    counts = train.class_counts()
    enough = max(1, min(ENOUGH, int(counts.max())))
    medians = {
        k: float(np.median(sides[(train.labels == k) & ~train.iscrowd]))
        for k in np.flatnonzero(counts >= enough).tolist()
    }
    if not medians:
        return None, 0.0
    smallest = min(medians, key=lambda k: medians[k])
    return train.class_names[smallest], medians[smallest]
