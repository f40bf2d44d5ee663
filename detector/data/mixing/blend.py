"""How a pasted crop joins the image: with fading edges, or by Poisson editing.

In all functions: image (H,W,3) uint8; patch (h,w,3) uint8, the crop; box (1,4) float64 xyxy, the object in the patch;
place (2,) int64, x and y of the patch's corner in the image. Parts of the patch may lie outside the image.
"""

from __future__ import annotations

import cv2
import numpy as np

KEPT = 0.7  # least part of an object's contrast that a clone must keep: below, it is a smudge with a label
MIN_CLONE = 8  # pixels a side: OpenCV's seamless clone keeps 2 at each edge of the image, so little of less is cloned


def feather(image: np.ndarray, patch: np.ndarray, box: np.ndarray, place: np.ndarray) -> None:
    """Put the patch into the image, in place: opaque inside its box, fading linearly towards its edges."""
    under, over, (x, y) = _overlap(image, patch, place)
    (x1, y1, x2, y2), (h, w) = box[0].tolist(), patch.shape[:2]
    rows, columns = _ramp(h, y1, y2)[y : y + len(over)], _ramp(w, x1, x2)[x : x + over.shape[1]]
    alpha = np.minimum(rows[:, None], columns[None])[:, :, None]
    under[:] = np.rint(under + alpha * (over.astype(np.float32) - under))


def clone(image: np.ndarray, patch: np.ndarray, box: np.ndarray, place: np.ndarray) -> None:
    """Put the patch into the image, in place, with its gradients but the image's colours at its edges.

    Poisson Image Editing, Pérez et al. 2003. Overlaps of fewer than MIN_CLONE pixels a side are feathered, and so are
    objects of which the clone keeps less than KEPT of the contrast: bright or dark surroundings saturate its colours.
    """
    under, over, corner = _overlap(image, patch, place)
    h, w = over.shape[:2]
    if min(h, w) < MIN_CLONE:
        return feather(image, patch, box, place)
    mask = np.zeros((h, w), np.uint8)
    mask[1:-1, 1:-1] = 255  # with a rim of 1 on all sides, what OpenCV centres is the whole patch
    cloned = cv2.seamlessClone(np.ascontiguousarray(over), under.copy(), mask, (w // 2, h // 2), cv2.NORMAL_CLONE)
    x1, y1, x2, y2 = np.rint(box[0] - np.tile(corner, 2)).astype(int).clip(0).tolist()
    if _contrast_kept(over[y1:y2, x1:x2], cloned[y1:y2, x1:x2]) < KEPT:
        return feather(image, patch, box, place)
    under[:] = cloned


def feathered_region(patch: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(1,4) xyxy in the patch: where `feather` shows more of the patch than of the image, half-way to the edge."""
    return (box + cloned_region(patch, box)) / 2


def cloned_region(patch: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(1,4) xyxy in the patch: all of it, since `clone` keeps no detail of the image under it."""
    h, w = patch.shape[:2]
    return np.array([[0, 0, w, h]])


def _contrast_kept(before: np.ndarray, after: np.ndarray) -> float:
    """The slope of the least-squares line from the pixels (h,w,3) before to those after: 1 = all contrast is kept, 0 =
    none. 1 where there was none."""
    x = before.astype(np.float64) - before.mean((0, 1))
    y = after.astype(np.float64) - after.mean((0, 1))
    return float((x * y).sum() / (x * x).sum()) if x.any() else 1.0


def _overlap(image: np.ndarray, patch: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the overlap in the image and in the patch, and the corner (x, y) of the latter in the patch."""
    x, y = start = np.maximum(-place, 0)
    under = image[place[1] + y : place[1] + patch.shape[0], place[0] + x : place[0] + patch.shape[1]]
    return under, patch[y : y + under.shape[0], x : x + under.shape[1]], start


def _ramp(side: int, low: float, high: float) -> np.ndarray:
    """(side,) float32: 1 at pixels in [low, high], falling linearly to 0 at both ends of the side."""
    centres = np.arange(side) + 0.5
    nearer = np.minimum(centres / max(low, 1e-6), (side - centres) / max(side - high, 1e-6))
    return nearer.clip(0, 1).astype(np.float32)
