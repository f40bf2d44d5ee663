"""How often to draw each image, relative to the others, so that rare classes are seen more often.

All functions look at what is trained on: crowds are left out. I images, K classes; class c is in n_c of the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from detector.data.coco import CocoData
from detector.data.sampler import expected_draws
from detector.utils.errors import InputError
from detector.utils.nearest import lookup
from detector.utils.text import counted

MAX_AUTO_FACTOR = 10  # what LVIS's threshold of 0.001 gives a class that one in 100,000 images has

Threshold = float | Literal["auto"]


def image_weights(data: CocoData, sampling: str, threshold: Threshold = "auto") -> tuple[np.ndarray, list[str]]:
    """Weights (I,) float64 > 0 for BatchSampler, and sentences for the log on what was chosen and what it does.

    sampling: a key of SAMPLING. `uniform` gives ones.
    threshold: of the repeat factors; `auto` is `auto_threshold`.

    Raises InputError where there is no such method or no object.
    """
    weights, sentences = lookup(SAMPLING, sampling, "data.sampling")(data, threshold)
    if sampling == "uniform":
        return weights, sentences
    draws = expected_draws(weights)
    summary = (
        f"data.sampling {sampling}: an epoch stays {counted(len(data), 'image')}; on average an image comes "
        f"{draws.min():.2f} to {draws.max():.2f} times in it"
    )
    return weights, [*sentences, summary]


def uniform(data: CocoData, threshold: Threshold) -> tuple[np.ndarray, list[str]]:
    """Every image is drawn equally often."""
    return np.ones(len(data)), _unused("uniform", threshold)


def repeat_factor(data: CocoData, threshold: Threshold) -> tuple[np.ndarray, list[str]]:
    """Repeat factor sampling (LVIS, arXiv 1908.03195, appendix B)."""
    return _repeat_by(data, image_frequencies(data), threshold)


def instance_repeat_factor(data: CocoData, threshold: Threshold) -> tuple[np.ndarray, list[str]]:
    """Instance-aware repeat factor sampling, IRFS (arXiv 2305.08069)."""
    return _repeat_by(data, instance_aware_frequencies(data), threshold)


def class_aware(data: CocoData, threshold: Threshold) -> tuple[np.ndarray, list[str]]:
    """See `class_aware_weights`."""
    _require_objects(data)
    return class_aware_weights(data), _unused("class_aware", threshold)


# `data.sampling` → weights (I,) and sentences. A method that has no use for the threshold says so where one is given.
SAMPLING: dict[str, Callable[[CocoData, Threshold], tuple[np.ndarray, list[str]]]] = {
    "uniform": uniform,
    "repeat_factor": repeat_factor,
    "instance_repeat_factor": instance_repeat_factor,
    "class_aware": class_aware,
}


def image_frequencies(data: CocoData) -> np.ndarray:
    """(K,) float64: the fraction of the images that have the class, n_c / I (LVIS, arXiv 1908.03195, appendix B)."""
    _, labels = image_class_pairs(data)
    return np.bincount(labels, minlength=len(data.class_names)) / len(data)


def instance_aware_frequencies(data: CocoData) -> np.ndarray:
    """(K,) float64: geometric mean of the class's fraction of the images and its fraction of the objects.

    Used by IRFS (arXiv 2305.08069): of two classes in equally many images, the one with fewer objects is rarer.
    """
    counts = data.class_counts()
    return np.sqrt(image_frequencies(data) * (counts / max(counts.sum(), 1)))


def repeat_factors(frequencies: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) float64: r_c = max(1, sqrt(threshold / f_c)) (LVIS, appendix B); 1 for a class without objects."""
    present = frequencies > 0
    return np.where(present, np.sqrt(np.maximum(threshold / np.where(present, frequencies, 1), 1)), 1.0)


def repeat_weights(data: CocoData, factors: np.ndarray) -> np.ndarray:
    """(I,) float64: the greatest of the factors (K,) of the image's classes (LVIS, appendix B); 1 without objects."""
    images, labels = image_class_pairs(data)
    weights = np.ones(len(data))
    np.maximum.at(weights, images, factors[labels])
    return weights


def class_aware_weights(data: CocoData) -> np.ndarray:
    """(I,) float64, sum I: draw a class uniformly, then an image with that class uniformly.

    An image with objects of classes C weighs sum over C of (I - E) / (K' n_c), where K' classes have objects. The E
    images without objects belong to no class and weigh 1: they teach the background, so their share of an epoch stays
    what it is in the data. An image is drawn for each of its classes, so a
    common class is still drawn more often than the rare classes beside it.
    """
    images, labels = image_class_pairs(data)
    have = np.bincount(labels, minlength=len(data.class_names))
    with_objects = np.bincount(images, minlength=len(data)) > 0
    share = with_objects.sum() / ((have > 0).sum() * np.maximum(have, 1))
    return np.where(with_objects, np.bincount(images, share[labels], minlength=len(data)), 1.0)


def auto_threshold(frequencies: np.ndarray) -> tuple[float, str]:
    """A threshold for `repeat_factors` from the data, and the reason for it in words.

    It is the median frequency of the classes that have objects: the rarer half of the classes is repeated, whatever
    the size of the data, and little where all classes are about equally frequent. It is lowered where the rarest class
    would get a factor above MAX_AUTO_FACTOR, since its few images would fill the epochs. LVIS's own 0.001 fits its
    100,000 images and 1,200 classes; among hundreds of images and ten classes hardly any class is that rare.

    frequencies: (K,), some of them > 0.
    """
    present = frequencies[frequencies > 0]
    median, most = float(np.median(present)), float(MAX_AUTO_FACTOR**2 * present.min())
    if median <= most:
        return median, "the median class's frequency"
    return most, f"at the median class's, {median:.3g}, the rarest would repeat more than {MAX_AUTO_FACTOR} times"


def image_class_pairs(data: CocoData) -> tuple[np.ndarray, np.ndarray]:
    """Images (P,) and labels (P,), both int64: every class of every image, once."""
    classes = len(data.class_names)
    return np.divmod(np.unique((data.box_images * classes + data.labels)[~data.iscrowd]), classes)


def _repeat_by(data: CocoData, frequencies: np.ndarray, threshold: Threshold) -> tuple[np.ndarray, list[str]]:
    """Weights from repeat factors for `frequencies` (K,), and a sentence on the threshold."""
    _require_objects(data)
    value, reason = auto_threshold(frequencies) if threshold == "auto" else (threshold, None)
    weights = repeat_weights(data, repeat_factors(frequencies, value))
    return weights, [_describe_threshold(data, frequencies, value, reason)]


def _describe_threshold(data: CocoData, frequencies: np.ndarray, threshold: float, reason: str | None) -> str:
    """What the threshold does to the rarest class. reason: why `auto` chose it; None = the user gave it."""
    rarest = int(np.argmin(np.where(frequencies > 0, frequencies, np.inf)))
    name, frequency = data.class_names[rarest], frequencies[rarest]
    setting = f"data.repeat_threshold {threshold:.3g}" + (f" (auto: {reason})" if reason else "")
    if frequency >= threshold and not reason:
        auto, _ = auto_threshold(frequencies)
        return (
            f"warning: {setting} repeats nothing: even the rarest class, {name}, has a frequency of {frequency:.3g}; "
            f"auto would be {auto:.3g}"
        )
    factor = repeat_factors(frequencies, threshold)[rarest]
    return (
        f"{setting}: the rarest class, {name}, has a frequency of {frequency:.3g} and a repeat factor of {factor:.2f}"
    )


def _require_objects(data: CocoData) -> None:
    if data.class_counts().sum() == 0:
        raise InputError("data.sampling: the data has no object to sample by; use uniform")


def _unused(sampling: str, threshold: Threshold) -> list[str]:
    """A sentence where a threshold is given that the method does not use: one setting turns the sampling off."""
    if threshold == "auto":
        return []
    return [
        f"data.repeat_threshold {threshold:.3g} is not used by data.sampling {sampling}, only by repeat_factor and "
        "instance_repeat_factor"
    ]
