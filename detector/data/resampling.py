"""How often to draw each image, relative to the others, so that rare classes are seen more: weights from the labels.

All functions look at what is trained on: crowds are left out. I images, K classes; class c is in n_c of the images.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from detector.data.coco import CocoData
from detector.data.sampler import expected_draws
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

METHODS = ("uniform", "repeat_factor", "instance_repeat_factor", "class_aware")
MAX_AUTO_FACTOR = 10  # what LVIS's threshold of 0.001 gives a class that one in 100,000 images has


def image_weights(
    data: CocoData, sampling: str, threshold: float | Literal["auto"] = "auto"
) -> tuple[np.ndarray, list[str]]:
    """Weights (I,) float64 > 0 for BatchSampler, and sentences for the log on what was chosen and what it does.

    sampling: one of METHODS. `uniform` gives ones, and no sentence.
    threshold: of the repeat factors; the others have no use for it. `auto` is `auto_threshold`.

    Raises InputError where there is no object, or no such method.
    """
    if sampling not in METHODS:
        raise InputError(f"data.sampling: {sampling!r} is no way to sample; {did_you_mean(sampling, METHODS)}")
    if sampling == "uniform":
        return np.ones(len(data)), []
    if data.class_counts().sum() == 0:
        raise InputError(f"data.sampling: {sampling} goes by the classes of the objects, and there is no object")
    sentences = []
    if sampling == "class_aware":
        weights = class_aware_weights(data)
    else:
        frequencies = image_frequencies(data) if sampling == "repeat_factor" else instance_aware_frequencies(data)
        chosen, why = auto_threshold(frequencies) if threshold == "auto" else (threshold, None)
        weights = repeat_weights(data, repeat_factors(frequencies, chosen))
        sentences.append(_about_threshold(data, frequencies, chosen, why))
    draws = expected_draws(weights)
    sentences.append(
        f"data.sampling {sampling}: an epoch stays {len(data)} images; on average an image comes {draws.min():.2f} to "
        f"{draws.max():.2f} times in it"
    )
    return weights, sentences


def image_frequencies(data: CocoData) -> np.ndarray:
    """(K,) float64: the share of the images that have the class, n_c / I (LVIS, arXiv 1908.03195, appendix B)."""
    _, labels = image_class_pairs(data)
    return np.bincount(labels, minlength=len(data.class_names)) / len(data)


def instance_aware_frequencies(data: CocoData) -> np.ndarray:
    """(K,) float64: geometric mean of the class's share of the images and its share of the objects.

    Instance-aware repeat factor sampling, IRFS (arXiv 2305.08069): of two classes in as many images, that with fewer
    objects is the rarer one.
    """
    counts = data.class_counts()
    return np.sqrt(image_frequencies(data) * (counts / max(counts.sum(), 1)))


def repeat_factors(frequencies: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) float64: r_c = max(1, sqrt(threshold / f_c)) (LVIS, appendix B); 1 for a class that has no object."""
    present = frequencies > 0
    return np.where(present, np.sqrt(np.maximum(threshold / np.where(present, frequencies, 1), 1)), 1.0)


def repeat_weights(data: CocoData, factors: np.ndarray) -> np.ndarray:
    """(I,) float64: the greatest factor among the image's classes (LVIS, appendix B), 1 without objects."""
    images, labels = image_class_pairs(data)
    weights = np.ones(len(data))
    np.maximum.at(weights, images, factors[labels])
    return weights


def class_aware_weights(data: CocoData) -> np.ndarray:
    """(I,) float64, sum I: a class is drawn, each alike, then one of the images that have it, each alike.

    An image with objects of classes C weighs sum over C of (I - E) / (K' n_c), where K' classes have objects. The E
    images without objects belong to no class and weigh 1: their share of an epoch stays what it is in the data, since
    they are what teaches the background. An image with several classes comes for each of them, so that common classes
    that stand beside rare ones still come more often than those.
    """
    images, labels = image_class_pairs(data)
    have = np.bincount(labels, minlength=len(data.class_names))
    with_objects = np.bincount(images, minlength=len(data)) > 0
    share = with_objects.sum() / ((have > 0).sum() * np.maximum(have, 1))
    return np.where(with_objects, np.bincount(images, share[labels], minlength=len(data)), 1.0)


def auto_threshold(frequencies: np.ndarray) -> tuple[float, str]:
    """A threshold for `repeat_factors` from the data, and the reason for it in words.

    It is the median of the frequencies of the classes that have objects, so that the rarer half of the classes is
    repeated whatever the size of the data, and little where all are about as frequent; but no more than gives the
    rarest class a factor of MAX_AUTO_FACTOR, lest its few images fill the epochs. LVIS's own 0.001 fits its 100,000
    images and 1,200 classes; among hundreds of images and ten classes hardly any class is as rare as that.

    frequencies: (K,), some of them > 0.
    """
    present = frequencies[frequencies > 0]
    median, most = float(np.median(present)), float(MAX_AUTO_FACTOR**2 * present.min())
    if median <= most:
        return median, "the median class's frequency"
    return most, f"at the median class's, {median:.3g}, the rarest would repeat more than {MAX_AUTO_FACTOR} times"


def image_class_pairs(data: CocoData) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels (P,) int64: every class of every image, once."""
    classes = len(data.class_names)
    return np.divmod(np.unique((data.box_images * classes + data.labels)[~data.iscrowd]), classes)


def _about_threshold(data: CocoData, frequencies: np.ndarray, threshold: float, why: str | None) -> str:
    """What the threshold does to the rarest class. why: the reason `auto` gave for it; None = it was given."""
    rarest = int(np.argmin(np.where(frequencies > 0, frequencies, np.inf)))
    name, frequency = data.class_names[rarest], frequencies[rarest]
    said = f"data.repeat_threshold {threshold:.3g}" + (f" (auto: {why})" if why else "")
    if frequency >= threshold and not why:
        auto, _ = auto_threshold(frequencies)
        return (
            f"warning: {said} repeats nothing: even the rarest class, {name}, has a frequency of {frequency:.3g}; "
            f"auto would be {auto:.3g}"
        )
    factor = repeat_factors(frequencies, threshold)[rarest]
    return (
        f"{said}: the rarest class, {name}, with a frequency of {frequency:.3g}, gets a repeat factor of {factor:.2f}"
    )
