"""Which pictures the report shows: worst misses and false positives by class, and labels to look at again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.pages.pictures import Card, take

if TYPE_CHECKING:
    from detector.evaluation.metrics.matching import Matching

MOST, OF_A_KIND = 88, 6  # pictures of misses and false positives: in all, and of each kind for a class
SUSPECTS = 16  # of each kind
OBJECT, DETECTION, OTHER = "#ffd400", "#ff2e88", "#ffffff"  # what boxes are drawn in


class Gallery:
    """Chooses from one matching at IoU 0.5.

    thresholds: (K,) float, the score from which a detection of the class counts.
    """

    def __init__(self, matching: Matching, data: CocoData, thresholds: np.ndarray):
        self.matching, self.data, self.thresholds = matching, data, thresholds
        self.found = matching.detections
        self.objects = data.boxes.astype(np.float64, copy=True)
        self.objects[:, 2:] += self.objects[:, :2]
        self.image_of = np.repeat(np.arange(len(data)), np.diff(data.first))
        self.sure = self.found.scores >= thresholds[self.found.labels]
        self.wrong = (matching.object_of < 0) & ~matching.ignored

    def misses(self, label: int, limit: int) -> list[Card]:
        """Objects of a class without a detection above its threshold: those found by nothing, the largest, first."""
        by = self.matching.found_by
        score = np.where(by >= 0, self.found.scores[by] if len(self.found.scores) else 0, -1.0)
        missed = (self.data.labels == label) & ~self.data.iscrowd & (score < self.thresholds[label])
        chosen = np.flatnonzero(missed)
        chosen = chosen[np.lexsort((-self.data.areas[chosen], score[chosen]))][:limit]
        return [self._object_card(b) for b in chosen.tolist()]

    def false_positives(self, label: int, limit: int) -> list[Card]:
        """Detections of a class above its threshold that are no object's, the surest first."""
        return [
            self._detection_card(d) for d in self._ranked(self.wrong & self.sure & (self.found.labels == label), limit)
        ]

    def unlabelled(self, limit: int = SUSPECTS) -> list[Card]:
        """Sure detections where nothing is labelled, the surest first: objects that were perhaps not labelled."""
        alone = self.wrong & self.sure
        alone[self.matching.pairs.detections] = False
        return [self._detection_card(d) for d in self._ranked(alone, limit)]

    def never_found(self, limit: int = SUSPECTS) -> list[Card]:
        """Objects no detection of their class lies on: those where another class does first, the surest of them first;
        then the large ones. Perhaps the label is wrong."""
        missed = np.flatnonzero((self.matching.found_by < 0) & ~self.data.iscrowd)
        rival = np.zeros(len(self.objects))
        pairs = self.matching.pairs
        on_it = (pairs.iou >= 0.5) & (self.found.labels[pairs.detections] != self.data.labels[pairs.objects])
        np.maximum.at(rival, pairs.objects[on_it], self.found.scores[pairs.detections[on_it]])
        chosen = missed[np.lexsort((-self.data.areas[missed], -rival[missed]))][:limit]
        return [self._object_card(b) for b in chosen.tolist()]

    def take(self, cards: list[Card]) -> None:
        """Take the pictures, reading each image once."""
        take(cards, self._read)

    def _read(self, i: int) -> np.ndarray:
        data = self.data
        return read_image(data.images_dir / data.file_name(i), (int(data.heights[i]), int(data.widths[i])))

    def _ranked(self, mask: np.ndarray, limit: int) -> list[int]:
        """The surest detections of a mask, one of those that share a place."""
        chosen: list[int] = []
        candidates = np.flatnonzero(mask)
        for d in candidates[np.argsort(-self.found.scores[candidates], kind="stable")].tolist():
            beside = [c for c in chosen if self.found.images[c] == self.found.images[d]]
            if all(_iou(self.found.boxes[c], self.found.boxes[d]) < 0.5 for c in beside):
                chosen.append(d)
            if len(chosen) == limit:
                break
        return chosen

    def _object_card(self, b: int) -> Card:
        data, found = self.data, self.found
        pairs = self.matching.pairs
        near = pairs.detections[pairs.objects == b]
        near = near[np.argsort(found.scores[near], kind="stable")][-3:]  # the surest last, on top
        boxes = [(tuple(found.boxes[d].tolist()), DETECTION, 3) for d in near.tolist()]
        box = tuple(self.objects[b].tolist())
        width, height = data.boxes[b, 2:]
        title = f"{data.class_names[data.labels[b]]}, {width:.0f} × {height:.0f} px"
        text = f"{self._why_missed(b)}. {self._file(self.image_of[b])}, annotation {data.annotation_ids[b]}"
        return Card(title, text, int(self.image_of[b]), [*boxes, (box, OBJECT, 4)], box, "missed", "warn")

    def _detection_card(self, d: int) -> Card:
        found, data = self.found, self.data
        image = int(found.images[d])
        others = np.arange(data.first[image], data.first[image + 1])
        boxes = [(tuple(self.objects[b].tolist()), OTHER, 2) for b in others.tolist()]
        box = tuple(found.boxes[d].tolist())
        title = f"{data.class_names[found.labels[d]]} {found.scores[d]:.2f}"
        text = f"{self._why_wrong(d)}. {self._file(image)}"
        return Card(title, text, image, [*boxes, (box, DETECTION, 4)], box, "false positive", "bad")

    def _why_missed(self, b: int) -> str:
        found, label = self.found, self.data.labels[b]
        by = self.matching.found_by[b]
        if by >= 0:
            return f"found with a score of {found.scores[by]:.2f}, below the threshold {self.thresholds[label]:.2f}"
        pairs = self.matching.pairs
        mine = pairs.objects == b
        detections, iou = pairs.detections[mine], pairs.iou[mine]
        same = found.labels[detections] == label
        rival = detections[~same & (iou >= 0.5)]
        if len(rival):
            best = rival[np.argmax(found.scores[rival])]
            return f"taken for {self.data.class_names[found.labels[best]]} ({found.scores[best]:.2f})"
        if same.any():
            best = np.argmax(np.where(same, found.scores[detections], -1))
            return f"found in the wrong place: IoU {iou[best]:.2f}, score {found.scores[detections[best]]:.2f}"
        return "nothing found here"

    def _why_wrong(self, d: int) -> str:
        pairs, label = self.matching.pairs, self.found.labels[d]
        mine = (pairs.detections == d) & ~self.data.iscrowd[pairs.objects]
        objects, iou = pairs.objects[mine], pairs.iou[mine]
        if not len(objects):
            return "nothing is labelled here"
        same = self.data.labels[objects] == label
        best = np.argmax(np.where(same, iou, -1))
        if same.any() and iou[best] >= 0.5:
            return "a second box on an object already found"
        if same.any() and not ((iou >= 0.5) & ~same).any():
            return f"in the wrong place: IoU {iou[best]:.2f} with the object"
        best = np.argmax(np.where(same, -1, iou))
        name = self.data.class_names[self.data.labels[objects[best]]]
        return f"labelled {name}" if iou[best] >= 0.5 else f"beside {name} (IoU {iou[best]:.2f})"

    def _file(self, image: int) -> str:
        return self.data.file_name(int(image))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes xyxy."""
    wide, high = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(wide, 0) * max(high, 0)
    return float(shared / max((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared, 1e-9))


def galleries(matching: Matching, data: CocoData, per_class: dict[str, dict], rare_first: list[str]) -> dict:
    """{classes: [{name, group, cards}], unlabelled, never_found: cards} of pictures.

    The rarest classes come first and are shown first; with many classes, the commonest are left out.
    """
    gallery = Gallery(matching, data, np.array([per_class[name]["threshold"] for name in data.class_names]))
    each = min(OF_A_KIND, max(2, MOST // (2 * len(data.class_names))))
    classes, cards = [], []
    for name in rare_first:
        label = data.class_names.index(name)
        own = gallery.misses(label, each) + gallery.false_positives(label, each)
        if own and len(cards) + len(own) <= MOST:
            classes.append((name, own))
            cards += own
    suspects = {"unlabelled": gallery.unlabelled(), "never_found": gallery.never_found()}
    gallery.take([*cards, *suspects["unlabelled"], *suspects["never_found"]])
    groups = {name: per_class[name]["group"] for name in rare_first}
    return {"classes": [{"name": name, "group": groups[name], "cards": own} for name, own in classes], **suspects}
