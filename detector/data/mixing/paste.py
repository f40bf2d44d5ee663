"""Pasting objects of rare classes into training images, with boxes only.

After Cut, Paste and Learn (arXiv 1708.01642: edges fade, so that the detector does not learn the seam) and Simple
Copy-Paste (arXiv 2012.07177: objects are placed at random). Both cut along masks, this along boxes, so a crop brings
some of its surroundings. It goes where they fit: to about the height in the image that it has in its own, and of random
places there to one that looks like the crop's edge.
"""

from __future__ import annotations

import math

import numpy as np

from detector.config.data import ShortLong
from detector.data.coco import CocoData
from detector.data.mixing.blend import clone, cloned_region, feather, feathered_region
from detector.data.mixing.paste_bank import crop_windows, pasted_per_epoch, rare_bank, rare_classes
from detector.data.sample import Sample, read_image_of
from detector.data.transforms import resize
from detector.ops.box_arrays import coverage
from detector.utils.text import counted

MAX_SIDE = 0.5  # greatest side of a pasted object, as a fraction of the image's
TRIES = 20  # random places for an object; see `_place` for the one that is taken
HEIGHT = 0.1  # how much higher or lower an object may stand than in its own image, as a fraction of the height
EDGE_PIXELS = 64  # of a crop's edge that are compared with the image


class Paster:
    """Pastes crops of rare objects of `data` into its images. It keeps no state.

    The number of objects pasted into an image is drawn from a Poisson distribution, so some images stay as they are.
    How many objects of a class are pasted per epoch: see `pasted_per_epoch`. All crops of a class are equally likely.

    Args:
        data: the training split; crops come from nowhere else.
        drawn: (K,) boxes of each class that an epoch shows without pasting (see `exposure`); None: each once.
        image_size: to which images are resized, see `rare_bank`; None: they are not.
        The rest: see PasteConfig.

    Raises InputError when one of `classes` is not in the data.
    """

    def __init__(
        self,
        data: CocoData,
        *,
        drawn: np.ndarray | None = None,
        image_size: int | ShortLong | None = None,
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
        self.blend, self.opaque = (clone, cloned_region) if blend == "clone" else (feather, feathered_region)
        self.counts = data.class_counts()
        self.drawn = self.counts if drawn is None else drawn
        self.chosen, level = rare_classes(self.counts, classes, data.class_names)
        self.bank = rare_bank(data, self.chosen, context, image_size)
        self.crops = np.bincount(self.bank.labels, minlength=len(self.counts))  # (K,)
        most = self.crops * max_factor
        self.expected = pasted_per_epoch(self.drawn, most, level, per_image * len(data))  # (K,) mean per epoch
        self.rate = self.expected.sum() / len(data)
        self.cumulative = np.cumsum((self.expected / self.crops.clip(1))[self.bank.labels])  # (E,) of each crop

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """See `Mixer.apply`. Pasted objects come last; objects of which pasting covers more than `occlusion` are left
        out. The coverage by several crops is added up.
        """
        number = rng.poisson(self.rate)
        if number == 0:
            return image, boxes, labels
        image, covered = image.copy(), np.zeros(len(boxes))
        for _ in range(number):
            entry = int(np.searchsorted(self.cumulative, rng.uniform(0, self.cumulative[-1]), side="right"))
            patch, box = self._patch(entry, image.shape[:2], rng)
            place = self._place(patch, box, self.bank.heights[entry], image, (boxes, labels, covered), rng)
            if place is None:
                continue
            self.blend(image, patch, box, place)
            covered = np.append(covered + coverage(self.opaque(patch, box) + np.tile(place, 2), boxes)[0], 0)
            boxes = np.concatenate([boxes, (box + np.tile(place, 2)).astype(np.float32)])
            labels = np.append(labels, self.bank.labels[entry])
        keep = covered <= self.occlusion
        return image, boxes[keep], labels[keep]

    def lines(self) -> list[str]:
        """A table of the expected number of pasted objects of each class; or the reason why there are none."""
        names = self.data.class_names
        if not len(self.chosen):
            return ["pasting: no class has less than half an equal share of the boxes, so nothing is pasted"]
        without = [names[k] for k in self.chosen if not self.crops[k]]
        lines = [f"pasting: no good crop of {', '.join(without)}, so none is pasted"] if without else []
        shown = [k for k in self.chosen[np.argsort(-self.counts[self.chosen], kind="stable")] if self.expected[k] > 0]
        if not shown:
            return lines or ["pasting: an epoch shows the chosen classes often enough, so nothing is pasted"]
        width = max(len("class"), *(len(names[k]) for k in shown))
        return [
            *lines,
            f"pasting: {self.rate:.2f} objects an image on average; in an epoch of {counted(len(self.data), 'image')}:",
            f" {'class':<{width}}  own boxes  good crops  drawn  pasted  together",
            *(
                f" {names[k]:<{width}}  {self.counts[k]:>9d}  {self.crops[k]:>10d}  {self.drawn[k]:>5.0f}"
                f"  {self.expected[k]:>6.0f}  {self.drawn[k] + self.expected[k]:>8.0f}"
                for k in shown
            ),
        ]

    def _patch(self, entry: int, size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Crop number `entry` of the bank, resized for an image of `size` (h, w) and perhaps mirrored.

        Returns the patch (h,w,3) uint8 and the box (1,4) float64 xyxy of the object in it.
        """
        index, boxes = int(self.bank.images[entry]), self.bank.boxes[entry : entry + 1].astype(np.float64)
        source = self.data.size(index)
        x1, y1, x2, y2 = crop_windows(boxes, source, self.context)[0].tolist()
        crop = read_image_of(self.data, index)[y1:y2, x1:x2]
        box = boxes - [x1, y1, x1, y1]
        # All long sides are resized to one length, so with this factor the object is fed as large as in its own image.
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
        height: float,
        image: np.ndarray,
        objects: tuple[np.ndarray, np.ndarray, np.ndarray],
        rng: np.random.Generator,
    ) -> np.ndarray | None:
        """Where to put the patch's corner in the image (h,w,3): (2,) int64 x, y, with the whole box inside.

        height: of the object's centre in its own image, as a fraction. objects: boxes (M,4), labels (M,) and covered
        fractions (M,) of the objects in the image.
        Of TRIES random places at about that height, those that hide the fewest objects, and of these the one at which
        the image looks most like the patch's edge. None when every place would hide an object of a pasted class, or the
        box does not fit.
        """
        h, w = image.shape[:2]
        low, high = np.ceil(-box[0, :2]).astype(int), np.floor(np.subtract((w, h), box[0, 2:])).astype(int)
        if (high < low).any():
            return None
        centre = (height + rng.uniform(-HEIGHT, HEIGHT, TRIES)) * h
        y = np.rint(centre - box[0, [1, 3]].mean()).astype(int).clip(low[1], high[1])
        places = np.stack([rng.integers(low[0], high[0] + 1, TRIES), y], axis=1)
        boxes, labels, covered = objects
        after = covered + coverage(self.opaque(patch, box) + np.tile(places, 2), boxes)
        hides = (after > self.occlusion) & (covered <= self.occlusion)  # (TRIES,M)
        allowed = ~hides[:, self.expected[labels] > 0].any(axis=1)
        cost = np.where(allowed, hides.sum(axis=1), np.inf)
        best = int(np.lexsort([_differences(patch, image, places), cost])[0])
        return places[best] if allowed[best] else None


def _differences(patch: np.ndarray, image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(T,) mean absolute difference of the patch's edge and the image under it, for the places (T,2) of its corner.

    EDGE_PIXELS of the edge are compared. Outside the image, its nearest pixel stands for it.
    """
    h, w = patch.shape[:2]
    along = np.linspace(0, 1, EDGE_PIXELS // 4)
    sides = [np.stack([along, np.full_like(along, end)], axis=1) for end in (0.0, 1.0)]
    edge = np.concatenate([*sides, *(side[:, ::-1] for side in sides)])  # (P,2) x, y: fractions of the sides
    edge = np.rint(edge * [w - 1, h - 1]).astype(int)
    under = (places[:, None] + edge).clip(0, np.subtract(image.shape[1::-1], 1))  # (T,P,2)
    pixels = image[under[..., 1], under[..., 0]].astype(np.int16) - patch[edge[:, 1], edge[:, 0]]
    return np.abs(pixels).mean(axis=(1, 2))
