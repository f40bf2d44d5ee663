"""Pasting objects of rare classes into training images, with nothing but boxes.

After Cut, Paste and Learn (arXiv 1708.01642: faded edges, so that the detector does not learn the seam) and Simple
Copy-Paste (arXiv 2012.07177: no model of where objects belong); both cut along masks, this along boxes.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.data.mixing.paste_bank import covered_parts, crop_windows, pasted_per_epoch, rare_bank
from detector.data.transforms import Sample, resize
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

RARE = 0.5  # a class with less than this part of an equal share of all boxes is rare
MAX_SIDE = 0.5  # a pasted object's side is at most this part of the image's
TRIES = 20  # places drawn for an object, of which the one that hides the fewest others is taken
MIN_CLONE = 8  # pixels: OpenCV's seamless clone keeps two at each edge of the image, and of less it leaves nothing


class Paster:
    """Pastes crops of rare objects of `data` into its images; a function of its arguments and the generator given.

    The number of objects pasted into an image is drawn from a Poisson distribution, so that some images stay as they
    are; how many of a class that makes an epoch, see `pasted_per_epoch`. Every crop of a class is as likely.

    Args:
        data: the training split; crops come from nowhere else.
        The rest: see PasteConfig.

    Raises InputError when one of `classes` is not in the data.
    """

    def __init__(
        self,
        data: CocoData,
        *,
        classes: str | list[str],
        per_image: float,
        max_factor: float,
        context: float,
        scale: list[float],
        flip: bool,
        occlusion: float,
        blend: str,
    ):
        self.data, self.context, self.scale, self.flip = data, context, scale, flip
        self.occlusion = occlusion
        self.blend, self.opaque = (_clone, _whole) if blend == "clone" else (_feather, _half_faded)
        self.counts = data.class_counts()
        self.chosen, level = _rare_classes(self.counts, classes, data.class_names)
        self.bank = rare_bank(data, self.chosen, context)
        self.crops = np.bincount(self.bank.labels, minlength=len(self.counts))
        most = self.crops * max_factor
        self.expected = pasted_per_epoch(self.counts, most, level, per_image * len(data))  # (K,) an epoch, on average
        self.rate = self.expected.sum() / len(data)
        self.cumulative = np.cumsum((self.expected / self.crops.clip(1))[self.bank.labels])  # (E,) of each crop

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """image (H,W,3) uint8 RGB, boxes (M,4) float32 xyxy in its pixels, labels (M,) int64 → the same three: what is
        pasted comes last, and objects of which crops cover more than `occlusion` (their parts added up) are left out.

        The arrays given stay as they are. Raises InputError for an image file that cannot be read.
        """
        number = rng.poisson(self.rate)
        if number == 0:
            return image, boxes, labels
        image, covered = image.copy(), np.zeros(len(boxes))
        for _ in range(number):
            entry = int(np.searchsorted(self.cumulative, rng.uniform(0, self.cumulative[-1]), side="right"))
            patch, box = self._patch(entry, image.shape[:2], rng)
            place = self._place(patch, box, image.shape[:2], (boxes, labels, covered), rng)
            if place is None:
                continue
            self.blend(image, patch, box, place)
            covered = np.append(covered + covered_parts(self.opaque(patch, box) + np.tile(place, 2), boxes)[0], 0)
            boxes = np.concatenate([boxes, (box + np.tile(place, 2)).astype(np.float32)])
            labels = np.append(labels, self.bank.labels[entry])
        keep = covered <= self.occlusion
        return image, boxes[keep], labels[keep]

    def lines(self) -> list[str]:
        """The expected number of objects pasted of each class, as a table for the log; or why there is none."""
        names = self.data.class_names
        if not len(self.chosen):
            return ["pasting: no class has less than half an equal share of the boxes, so nothing is pasted"]
        without = [names[k] for k in self.chosen if not self.crops[k]]
        lines = [f"pasting: no good crop of {', '.join(without)}, so none is pasted"] if without else []
        shown = [k for k in self.chosen[np.argsort(-self.counts[self.chosen], kind="stable")] if self.expected[k] > 0]
        if not shown:
            return lines or ["pasting: the chosen classes have an equal share of the boxes, so nothing is pasted"]
        width = max(len("class"), *(len(names[k]) for k in shown))
        lines += [
            f"pasting: {self.rate:.2f} objects an image on average; in an epoch of {len(self.data)} images, each once:"
        ]
        lines += [f" {'class':<{width}}  own boxes  good crops  pasted  together"]
        return lines + [
            f" {names[k]:<{width}}  {self.counts[k]:>9d}  {self.crops[k]:>10d}  {self.expected[k]:>6.0f}"
            f"  {self.counts[k] + self.expected[k]:>8.0f}"
            for k in shown
        ]

    def _patch(self, entry: int, size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A crop of the bank, resized for an image of `size` (h, w) and perhaps mirrored: (h,w,3) uint8, and the box
        (1,4) float64 xyxy of the object in it."""
        index, boxes = int(self.bank.images[entry]), self.bank.boxes[entry : entry + 1].astype(np.float64)
        source = (int(self.data.heights[index]), int(self.data.widths[index]))
        x1, y1, x2, y2 = crop_windows(boxes, source, self.context)[0].tolist()
        crop = read_image(self.data.images_dir / self.data.file_name(index), source)[y1:y2, x1:x2]
        box = boxes - [x1, y1, x1, y1]
        # long sides are fed at one length: so, but for the draw, the object is fed as large as in its own image
        factor = max(size) / max(source) * math.exp(rng.uniform(*np.log(self.scale)))
        width, height = (box[0, 2:] - box[0, :2]).tolist()
        factor = min(factor, MAX_SIDE * size[1] / width, MAX_SIDE * size[0] / height)
        out = [max(1, round(side * factor)) for side in crop.shape[:2]]
        box = box * np.tile([out[1] / crop.shape[1], out[0] / crop.shape[0]], 2)
        patch = resize(crop, (out[0], out[1]))
        if self.flip and rng.random() < 0.5:
            patch, box = patch[:, ::-1], np.stack([out[1] - box[:, 2], box[:, 1], out[1] - box[:, 0], box[:, 3]], 1)
        return patch, box

    def _place(
        self,
        patch: np.ndarray,
        box: np.ndarray,
        size: tuple[int, int],
        there: tuple[np.ndarray, np.ndarray, np.ndarray],
        rng: np.random.Generator,
    ) -> np.ndarray | None:
        """Where (x, y) in an image of `size` (h, w) the patch's corner goes: (2,) int64, such that the whole box is
        inside; its margin may not be.

        there: boxes (M,4), labels (M,) and the covered parts (M,) of the objects in the image.
        Of TRIES places the first one that hides no object is taken, else the first that hides the fewest. None when
        each would hide an object of a class that is itself pasted, or the box does not fit.
        """
        low, high = np.ceil(-box[0, :2]), np.floor(np.subtract(size[::-1], box[0, 2:]))
        if (high < low).any():
            return None
        places = rng.integers(low.astype(int), high.astype(int) + 1, (TRIES, 2))
        boxes, labels, covered = there
        after = covered + covered_parts(self.opaque(patch, box) + np.tile(places, 2), boxes)
        hides = (after > self.occlusion) & (covered <= self.occlusion)  # (TRIES,M)
        allowed = ~hides[:, self.expected[labels] > 0].any(axis=1)
        cost = np.where(allowed, hides.sum(axis=1), np.inf)
        best = int(cost.argmin())
        return places[best] if allowed[best] else None


def _rare_classes(counts: np.ndarray, classes: str | list[str], names: list[str]) -> tuple[np.ndarray, float]:
    """Labels of the classes to paste, and the number of boxes an epoch to which they are to be filled up."""
    share = counts.sum() / max(1, (counts > 0).sum())
    if classes == "auto":
        return np.flatnonzero((counts < RARE * share) & (counts > 0)), RARE * share
    for name in classes:
        if name not in names:
            raise InputError(f"augment.paste.classes: no class {name!r} in the data; {did_you_mean(name, names)}")
    return np.array(sorted({names.index(name) for name in classes}), np.int64), share


def _half_faded(patch: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(1,4) xyxy: where more of the patch than of the image under it is seen, half-way from the box to the edge."""
    return (box + _whole(patch, box)) / 2


def _whole(patch: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(1,4) xyxy: the patch; a clone hides all that was there."""
    h, w = patch.shape[:2]
    return np.array([[0, 0, w, h]])


def _feather(image: np.ndarray, patch: np.ndarray, box: np.ndarray, place: np.ndarray) -> None:
    """Put the patch into the image with its corner at `place` (x, y): opaque in its box, fading towards its edges."""
    under, over, (x, y) = _overlap(image, patch, place)
    (x1, y1, x2, y2), (h, w) = box[0].tolist(), patch.shape[:2]
    rows, columns = _ramp(h, y1, y2)[y : y + len(over)], _ramp(w, x1, x2)[x : x + over.shape[1]]
    alpha = np.minimum(rows[:, None], columns[None])[:, :, None]
    under[:] = np.rint(under + alpha * (over.astype(np.float32) - under))


def _clone(image: np.ndarray, patch: np.ndarray, box: np.ndarray, place: np.ndarray) -> None:
    """As `_feather`, but what is kept of the patch are its differences between pixels; its colours are those that fit
    the image around it (Poisson Image Editing, Pérez et al. 2003)."""
    under, over, _ = _overlap(image, patch, place)
    h, w = over.shape[:2]
    if min(h, w) < MIN_CLONE:
        return _feather(image, patch, box, place)
    mask = np.zeros((h, w), np.uint8)
    mask[1:-1, 1:-1] = 255  # OpenCV centres what is inside; a rim on all sides makes that the whole
    under[:] = cv2.seamlessClone(np.ascontiguousarray(over), under.copy(), mask, (w // 2, h // 2), cv2.NORMAL_CLONE)


def _overlap(image: np.ndarray, patch: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the part of the image that the patch covers and of the part of the patch in the image, and where (x, y)
    in the patch the latter begins."""
    x, y = start = np.maximum(-place, 0)
    under = image[place[1] + y : place[1] + patch.shape[0], place[0] + x : place[0] + patch.shape[1]]
    return under, patch[y : y + under.shape[0], x : x + under.shape[1]], start


def _ramp(side: int, low: float, high: float) -> np.ndarray:
    """(side,) float32: 1 at pixels in [low, high], falling to 0 at both ends of the side."""
    centres = np.arange(side) + 0.5
    nearer = np.minimum(centres / max(low, 1e-6), (side - centres) / max(side - high, 1e-6))
    return nearer.clip(0, 1).astype(np.float32)
