"""The confusion matrix of a detector, used with a threshold for each class."""

from __future__ import annotations

import numpy as np

from detector.evaluation.metrics.matching import IOU_THRESHOLDS, Matching


def confusion_matrix(matching: Matching, thresholds: np.ndarray) -> np.ndarray:
    """(K+1, K+1) int64 counts: row = class of the object, column = class of the detection.

    The last row and column are the background: detections of no object, and objects without a detection.

    thresholds: (K,); detections below the threshold of their class are left out, and so are those that find crowds.
    An object is paired first with the detection that finds it (same class, IoU 0.5 or more). The other objects and
    detections are paired by falling IoU, down to 0.5, whatever their classes.
    """
    detections, data, pairs = matching.detections, matching.data, matching.pairs
    background = len(data.class_names)
    used = (detections.scores >= thresholds[detections.labels]) & ~matching.ignored
    partner = np.where(used, matching.object_of, -1)
    taken = data.iscrowd.copy()
    taken[partner[partner >= 0]] = True
    order = np.argsort(-pairs.iou, kind="stable")
    order = order[(pairs.iou[order] >= IOU_THRESHOLDS[0]) & used[pairs.detections[order]]]
    for detection, box in zip(pairs.detections[order].tolist(), pairs.objects[order].tolist(), strict=True):
        if partner[detection] < 0 and not taken[box]:
            partner[detection], taken[box] = box, True
    class_of_object = np.where(partner[used] >= 0, data.labels[partner[used]], background)
    counts = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(counts, (class_of_object, detections.labels[used]), 1)
    np.add.at(counts, (data.labels[~taken], background), 1)
    return counts
