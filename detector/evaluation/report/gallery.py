"""The pictures of a report: the worst misses and false positives of each class, and labels to look at again."""

from __future__ import annotations

import numpy as np

from detector.data.image import read_image
from detector.evaluation.metrics.confusion import pair_all
from detector.evaluation.metrics.matching import Matching
from detector.ops.box_arrays import iou_xyxy
from detector.pages.outlines import Box, Outline
from detector.pages.pictures import Card, take_pictures

MAX_CARDS = 88  # misses and false positives, of all classes
OF_A_KIND = 6  # misses of a class, and as many false positives
SUSPECTS = 16  # of each kind
SAME_PLACE = 0.5  # IoU from which on two detections show one thing, so that one picture is enough
OBJECT, DETECTION, OTHER = "#ffd400", "#ff2e88", "#ffffff"  # colours of boxes
THICK, THIN = 3, 2  # lines of the case itself, and of what is near
SHOWN = 3  # detections near a missed object


class Gallery:
    """Chooses cases from a matching at IoU 0.5 and makes a card of each.

    thresholds: (K,) float, the score from which on a detection of the class counts.
    """

    def __init__(self, matching: Matching, thresholds: np.ndarray):
        self.matching, self.thresholds = matching, thresholds
        self.data, self.detections = matching.data, matching.detections
        self.objects = self.data.boxes.astype(np.float64, copy=True)  # (B, 4) xyxy
        self.objects[:, 2:] += self.objects[:, :2]
        self.box_images = self.data.box_images
        self.used, partner = pair_all(matching, thresholds)  # (n,)
        self.taken_by = np.full(len(self.objects), -1)  # (B,) the detection that the confusion matrix pairs with it
        self.taken_by[partner[partner >= 0]] = np.flatnonzero(partner >= 0)
        self.wrong = (matching.object_of < 0) & ~matching.ignored  # (n,)

    def misses(self, label: int, limit: int) -> list[Card[int]]:
        """Objects of a class without a detection above its threshold: those with the lowest score first, and of these
        the large ones."""
        found_by = self.matching.found_by
        score = np.where(found_by >= 0, self.detections.scores[found_by] if len(self.detections.scores) else 0, -1.0)
        missed = (self.data.labels == label) & ~self.data.iscrowd & (score < self.thresholds[label])
        boxes = np.flatnonzero(missed)
        boxes = boxes[np.lexsort((-self.data.areas[boxes], score[boxes]))][:limit]
        return [self._object_card(b) for b in boxes.tolist()]

    def false_positives(self, label: int, limit: int) -> list[Card[int]]:
        """Detections of a class above its threshold that find no object, the highest scores first."""
        false = self.wrong & self.used & (self.detections.labels == label)
        return [self._detection_card(d) for d in self._highest_scores(false, limit)]

    def unlabelled(self, limit: int = SUSPECTS) -> list[Card[int]]:
        """Detections above their threshold that overlap no object, the highest scores first. Perhaps somebody forgot to
        label an object."""
        alone = self.wrong & self.used
        alone[self.matching.pairs.detections] = False
        return [self._detection_card(d) for d in self._highest_scores(alone, limit)]

    def never_found(self, limit: int = SUSPECTS) -> list[Card[int]]:
        """Objects that no detection of their class finds. Perhaps the label is wrong.

        First those on which another class is detected, by its score; then the large ones.
        """
        missed = np.flatnonzero((self.matching.found_by < 0) & ~self.data.iscrowd)
        other_score = np.zeros(len(self.objects))  # of the best detection of another class on each object
        pairs = self.matching.pairs
        on_object = (pairs.iou >= 0.5) & (self.detections.labels[pairs.detections] != self.data.labels[pairs.objects])
        np.maximum.at(other_score, pairs.objects[on_object], self.detections.scores[pairs.detections[on_object]])
        boxes = missed[np.lexsort((-self.data.areas[missed], -other_score[missed]))][:limit]
        return [self._object_card(b) for b in boxes.tolist()]

    def read(self, image: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises InputError."""
        data = self.data
        size = int(data.heights[image]), int(data.widths[image])
        return read_image(data.images_dir / data.file_name(image), size)

    def _highest_scores(self, mask: np.ndarray, limit: int) -> list[int]:
        """The detections of a mask (n,) with the highest scores, one of those in the same place."""
        images, boxes = self.detections.images, self.detections.boxes
        chosen: list[int] = []
        candidates = np.flatnonzero(mask)
        for d in candidates[np.argsort(-self.detections.scores[candidates], kind="stable")].tolist():
            in_image = [c for c in chosen if images[c] == images[d]]
            if (iou_xyxy(boxes[in_image], boxes[d]) < SAME_PLACE).all():
                chosen.append(d)
            if len(chosen) == limit:
                break
        return chosen

    def _object_card(self, b: int) -> Card:
        data, detections, pairs = self.data, self.detections, self.matching.pairs
        near = pairs.detections[pairs.objects == b]
        near = near[np.argsort(detections.scores[near], kind="stable")][-SHOWN:]  # the highest score last, on top
        outlines = [
            Outline(_box(detections.boxes[d]), DETECTION, THIN, label=self._described(d)) for d in near.tolist()
        ]
        box, image = _box(self.objects[b]), int(self.box_images[b])
        width, height = data.boxes[b, 2:]
        title = f"{data.class_names[data.labels[b]]}, {width:.0f} × {height:.0f} px"
        shown = f" Detections shown: {', '.join(map(self._described, near[::-1].tolist()))}." if len(near) else ""
        text = f"{self._why_missed(b)}.{shown} {data.file_name(image)}, annotation {data.annotation_ids[b]}"
        outlines.append(Outline(box, OBJECT, THICK))
        return Card(title, text, image, outlines, around=box, tag="missed", tone="warn")

    def _detection_card(self, d: int) -> Card:
        data, detections = self.data, self.detections
        image = int(detections.images[d])
        beside = self.matching.pairs.objects[self.matching.pairs.detections == d]
        outlines = [
            Outline(_box(self.objects[b]), OTHER, THIN, data.class_names[data.labels[b]] if b in beside else "")
            for b in range(data.first[image], data.first[image + 1])
        ]
        box = _box(detections.boxes[d])
        outlines.append(Outline(box, DETECTION, THICK))
        text = f"{self._why_wrong(d)}. {data.file_name(image)}"
        return Card(self._described(d), text, image, outlines, around=box, tag="false positive", tone="bad")

    def _described(self, d: int) -> str:
        """Class and score of a detection."""
        return f"{self.data.class_names[self.detections.labels[d]]} {self.detections.scores[d]:.2f}"

    def _why_missed(self, b: int) -> str:
        detections, pairs, label = self.detections, self.matching.pairs, self.data.labels[b]
        finder, taker = self.matching.found_by[b], self.taken_by[b]
        if taker >= 0 and taker != finder:
            return f"taken for {self._described(taker)}"
        if finder >= 0:
            score, threshold = detections.scores[finder], self.thresholds[label]
            return f"found with a score of {score:.2f}, below the threshold {threshold:.2f}"
        on_object = pairs.objects == b
        near, iou = pairs.detections[on_object], pairs.iou[on_object]
        same_class = detections.labels[near] == label
        others = near[~same_class & (iou >= 0.5)]
        if len(others):
            best = others[np.argmax(detections.scores[others])]
            why = "is another object's" if self.used[best] else "is below its threshold"
            return f"nothing found here: {self._described(best)} {why}"
        if same_class.any():
            best = np.argmax(np.where(same_class, detections.scores[near], -1))
            return f"found in the wrong place: IoU {iou[best]:.2f}, score {detections.scores[near[best]]:.2f}"
        return "nothing found here"

    def _why_wrong(self, d: int) -> str:
        data, pairs = self.data, self.matching.pairs
        of_detection = (pairs.detections == d) & ~data.iscrowd[pairs.objects]
        objects, iou = pairs.objects[of_detection], pairs.iou[of_detection]
        if not len(objects):
            return "nothing is labelled here"
        same_class = data.labels[objects] == self.detections.labels[d]
        best = np.argmax(np.where(same_class, iou, -1))
        if same_class.any() and iou[best] >= 0.5:
            return "a second box on an object already found"
        if same_class.any() and not ((iou >= 0.5) & ~same_class).any():
            return f"in the wrong place: IoU {iou[best]:.2f} with the object"
        best = np.argmax(np.where(same_class, -1, iou))
        name = data.class_names[data.labels[objects[best]]]
        return f"labelled {name}" if iou[best] >= 0.5 else f"beside {name} (IoU {iou[best]:.2f})"


def _box(xyxy: np.ndarray) -> Box:
    x1, y1, x2, y2 = xyxy.tolist()
    return x1, y1, x2, y2


def galleries(matching: Matching, per_class: dict[str, dict], rare_first: list[str]) -> dict:
    """The cards of a report, with their pictures: {classes: [{name, group, cards}], unlabelled, never_found: cards}.

    per_class: of `analyse`. rare_first: the class names, the rarest first; of many classes the commonest are left out.
    """
    names = matching.data.class_names
    gallery = Gallery(matching, np.array([per_class[name]["threshold"] for name in names]))
    limit = min(OF_A_KIND, max(2, MAX_CARDS // (2 * len(names))))
    label_of = {name: label for label, name in enumerate(names)}
    classes: list[dict] = []
    all_cards: list[Card[int]] = []
    for name in rare_first:
        label = label_of[name]
        cards = gallery.misses(label, limit) + gallery.false_positives(label, limit)
        if cards and len(all_cards) + len(cards) <= MAX_CARDS:
            classes.append({"name": name, "group": per_class[name]["group"], "cards": cards})
            all_cards += cards
    unlabelled, never_found = gallery.unlabelled(), gallery.never_found()
    take_pictures([*all_cards, *unlabelled, *never_found], gallery.read)
    return {"classes": classes, "unlabelled": unlabelled, "never_found": never_found}
