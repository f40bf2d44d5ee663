"""How the batch size is chosen: by hand-computed figures, and once from a real measurement."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from detector.config.data import ShortLong
from detector.config.file import load_config
from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.training.auto import batch_size
from detector.training.auto.batch_size import choose, choose_batch_size, largest_fed_size
from detector.utils.errors import InputError

MIB = 2**20
PEAKS = {1: 100 * MIB, 2: 120 * MIB, 4: 160 * MIB}  # 20 an image on top of 80


@pytest.fixture
def config(tiny_config):
    return load_config(tiny_config)


@pytest.fixture
def train(tiny_dataset):
    return read_coco(load_descriptor(tiny_dataset).split("train"))


@pytest.mark.parametrize(
    ("mib", "size", "held"),
    [
        (125, 1, 1),  # room: 100
        (149, 1, 1),  # 119.2
        (150, 2, 2),  # 120
        (200, 4, 4),  # 160
        (299, 4, 7),  # 239.2
        (300, 8, 8),  # 240 = 80 + 8 x 20
        (899, 16, 31),  # 719.2
        (900, 32, 32),
    ],
)
def test_memory_decides(mib, size, held):
    chosen = choose(PEAKS, mib * MIB, num_images=10_000)
    assert chosen.size == size
    assert f"an image takes 20 MiB on top of 80 MiB, and 80% of the {mib} MiB available hold {held};" in chosen.line()
    assert chosen.line().startswith(f"batch_size auto: {size} image{'s' if size > 1 else ''} (")
    assert "the largest power of two that fits" in chosen.line()


@pytest.mark.parametrize(("accumulate", "size"), [(1, 64), (2, 32), (3, 16), (64, 1), (100, 1)])
def test_the_learning_rate_decides(accumulate, size):
    chosen = choose(PEAKS, 100_000 * MIB, num_images=10_000, accumulate=accumulate)
    assert chosen.size == size
    assert "the learning rate is not scaled to steps of more than 64" in chosen.line()


@pytest.mark.parametrize(
    ("num_images", "accumulate", "size"), [(6, 1, 1), (14, 1, 1), (15, 1, 2), (205, 1, 16), (205, 4, 4), (448, 1, 32)]
)
def test_a_small_dataset_decides(num_images, accumulate, size):
    chosen = choose(PEAKS, 3_000 * MIB, num_images, accumulate)
    assert chosen.size == size
    assert f"more would make fewer than 8 steps of the {num_images} images of an epoch" in chosen.line()


def test_what_did_not_fit_when_tried_is_not_chosen_whatever_the_line_says():
    chosen = choose({1: 100 * MIB, 2: 120 * MIB}, 1_000 * MIB, num_images=10_000)
    assert chosen.size == 2
    assert "2 took 120 MiB of the 1000 MiB available, more did not fit; the largest power of two" in chosen.line()
    assert choose({1: 100 * MIB, 2: 120 * MIB}, 130 * MIB, num_images=10_000).size == 1


@pytest.mark.parametrize("peaks", [{}, {1: 100 * MIB}, PEAKS])
def test_not_even_one_image_fits(peaks):
    with pytest.raises(InputError, match=r"a step of one image .* 80% of the 120 MiB available; try a smaller data."):
        choose(peaks, 120 * MIB, num_images=10_000)


def test_more_memory_never_gives_a_smaller_batch():
    sizes = [choose(PEAKS, mib * MIB, num_images=10_000).size for mib in range(125, 2_000)]
    assert sizes == sorted(sizes)
    assert set(sizes) == {1, 2, 4, 8, 16, 32, 64}


def test_a_model_whose_memory_does_not_grow():
    assert choose({1: MIB, 2: MIB, 4: MIB}, 10 * MIB, num_images=10_000).size == 64


def test_largest_fed_size(config, train):
    assert largest_fed_size(config, train) == (64, 64)
    config = config.changed({"data.image_size": ShortLong(short=24, long=40)})
    assert largest_fed_size(config, train) == (24, 32)  # of 48x64
    config = config.changed({"data.image_size": ShortLong(short=[12, 24], long=40)})
    assert largest_fed_size(config, train) == (24, 32)  # whatever is drawn
    turned = dataclasses.replace(train, heights=train.heights.copy(), widths=train.widths.copy())
    turned.heights[2], turned.widths[2] = 64, 48
    assert largest_fed_size(config, turned) == (32, 32)  # one batch may have both
    config = config.changed({"augment.transforms": [{"name": "RandomRotate90"}]})
    assert largest_fed_size(config, train) == (40, 40)


def test_unknown_memory_asks_for_a_number(config, train, monkeypatch):
    monkeypatch.setattr(batch_size, "available_memory", lambda device: None)
    with pytest.raises(InputError, match="of cpu is not known here; give a number"):
        choose_batch_size(config, train, torch.device("cpu"))


def test_a_real_measurement_changes_nothing_here(config, train, capsys):
    config = config.changed({"train.batch_size": "auto"})
    train = dataclasses.replace(train, image_ids=np.arange(10_000))  # so that it is not the data which decide
    before = config.model_dump(), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    chosen = choose_batch_size(config, train, torch.device("cpu"))
    assert chosen.size in (1, 2, 4, 8, 16, 32, 64)
    assert chosen.line().startswith(f"batch_size auto: {chosen.size} image") and "available" in chosen.line()
    assert "measuring" in capsys.readouterr().out
    after = config.model_dump(), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[1], after[1]) and before[::2] == after[::2] and before[3] == after[3]
