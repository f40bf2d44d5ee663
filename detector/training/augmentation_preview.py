"""Training images as mixing makes them at first, with the boxes that it added drawn, for tools/show_augment.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detector.config.schema import Config
from detector.data.mixing.mixer import build_mixer
from detector.data.resampling import image_weights
from detector.data.sample import read_sample
from detector.data.split import read_split
from detector.evaluation.report.draw import draw_boxes
from detector.inference.config_check import check_config
from detector.training.auto import imbalance
from detector.utils.console import console


def mixed_images(config: Config, width: int) -> Iterator[np.ndarray]:
    """The training images that mixing changes, (H, width, 3) uint8 RGB, in random order. Prints what is mixed.

    Raises InputError where the training split cannot be read.
    """
    check_config(config)
    data = read_split(config, "train", check_images=config.data.bad_images == "error")
    chosen = imbalance.choose(config, data)
    config = imbalance.apply(config, chosen)
    weights, _ = image_weights(data, config.data.sampling, config.data.repeat_threshold)
    mixer = build_mixer(config, data, weights)
    for line in [*(chosen.lines() if chosen else []), *mixer.lines()]:
        console.print(line)
    for index in np.random.default_rng(config.seed).permutation(len(data)).tolist():
        sample = read_sample(data, index)
        image, boxes, labels = mixer.apply(*sample, np.random.default_rng((config.seed, index)), epoch=0)
        if image is not sample[0]:
            added = ~(boxes[:, None] == sample[1][None]).all(axis=2).any(axis=1)
            names = [data.class_names[k] for k in labels[added]]
            yield draw_boxes(image, boxes[added], labels[added], names, width=width)
