"""The confusion matrix of a detector at the scores it is used with."""

from __future__ import annotations

import numpy as np

from detector.evaluation.metrics.matching import IOUS, Matching


def confusion_matrix(matching: Matching, thresholds: np.ndarray) -> np.ndarray:
    """(K+1, K+1) int64 counts: row = class of the object, column = class of the detection; the last row and column are
    the background: detections of nothing, and objects that nothing found.

    Detections below the threshold of their class (K,) are left out, and those that find crowds. Objects go first to the
    detections that find them (IoU 0.5, same class); of the others those that overlap most, by 0.5 or more, are pairs.
    """
    detections, data = matching.detections, matching.data
    background = len(data.class_names)
    used = (detections.scores >= thresholds[detections.labels]) & ~matching.ignored
    partner = np.where(used, matching.object_of, -1)
    taken = data.iscrowd.copy()
    taken[partner[partner >= 0]] = True
    pairs = matching.pairs
    order = np.argsort(-pairs.iou, kind="stable")
    order = order[(pairs.iou[order] >= IOUS[0]) & used[pairs.detections[order]]]
    for found, object_ in zip(pairs.detections[order].tolist(), pairs.objects[order].tolist(), strict=True):
        if partner[found] < 0 and not taken[object_]:
            partner[found], taken[object_] = object_, True
    truth = np.where(partner[used] >= 0, data.labels[partner[used]], background)
    counts = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(counts, (truth, detections.labels[used]), 1)
    np.add.at(counts, (data.labels[~taken], background), 1)
    return counts
