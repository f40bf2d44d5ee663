"""Batches are a pure function of (seed, epoch), and contain every image once, or as often as its weight says."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from detector.data.coco import read_coco
from detector.data.loader import DetectionDataset, train_loader
from detector.data.sampler import BatchSampler, expected_draws, systematic_counts


def _images(batches):
    return [[index for _, index, _ in batch] for batch in batches]


def _flat(batches):
    return [index for batch in _images(batches) for index in batch]


def test_in_order():
    sampler = BatchSampler(5, 2, seed=0, shuffle=False)
    assert sampler.batches(0) == [[(0, 0, 0), (0, 1, 0)], [(0, 2, 0), (0, 3, 0)], [(0, 4, 0)]]
    assert len(sampler) == 3


def test_every_image_once_in_an_order_of_seed_and_epoch():
    sampler = BatchSampler(23, 4, seed=7)
    assert len(sampler.batches(0)) == len(sampler) == 6
    assert sorted(_flat(sampler.batches(3))) == list(range(23))
    assert sampler.batches(3) == BatchSampler(23, 4, seed=7).batches(3)
    assert sampler.batches(3) != sampler.batches(4)
    assert sampler.batches(3) != BatchSampler(23, 4, seed=8).batches(3)


def test_a_negative_seed_is_a_seed():
    assert sorted(_flat(BatchSampler(5, 2, seed=-1).batches(0))) == [0, 1, 2, 3, 4]


def test_iteration_starts_where_it_is_told_to():
    sampler = BatchSampler(10, 3, seed=1)
    sampler.set_position(2, 1)
    batches = list(sampler)
    assert batches == sampler.batches(2)[1:]
    assert {epoch for batch in batches for epoch, _, _ in batch} == {2}
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert len(sampler) == 4


def test_batches_are_of_one_orientation_but_for_the_leftovers():
    ratios = np.array([0.5, 2.0] * 11)  # 11 lying, 11 upright
    batches = BatchSampler(22, 4, seed=0, aspect_ratios=ratios).batches(0)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 2]
    assert all(len({index % 2 for index in batch}) == 1 for batch in _images(batches)[:4])
    assert sorted(_flat(batches)) == list(range(22))


@pytest.mark.parametrize("grouped", [False, True])
def test_processes_share_the_images_and_take_as_many_steps(grouped):
    ratios = np.arange(22) % 3 if grouped else None
    ranks = [BatchSampler(22, 2, 5, aspect_ratios=ratios, rank=rank, world_size=4) for rank in range(4)]
    batches = [sampler.batches(1) for sampler in ranks]
    assert {len(b) for b in batches} == {len(sampler) for sampler in ranks} == {3}
    assert [[len(batch) for batch in b] for b in batches] == [[2, 2, 2]] * 4
    seen = [index for b in batches for index in _flat(b)]
    assert set(seen) == set(range(22))
    assert len(seen) == 24


def test_fewer_images_than_processes():
    batches = [BatchSampler(1, 2, 0, rank=rank, world_size=3).batches(0) for rank in range(3)]
    assert [_images(b) for b in batches] == [[[0]], [[0]], [[0]]]


def test_no_images():
    assert BatchSampler(0, 2, 0).batches(0) == []


def test_the_order_without_weights_is_that_of_trainings_begun_before_there_were_any():
    ratios = np.array([0.5, 2, 2, 0.5, 0.5, 2, 2])
    assert _images(BatchSampler(7, 3, seed=5).batches(2)) == [[0, 4, 5], [3, 1, 2], [6]]
    second = BatchSampler(7, 2, seed=5, aspect_ratios=ratios, rank=1, world_size=2)
    assert _images(second.batches(2)) == [[1, 6], [4, 0]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_equal_weights_are_no_weights(shuffle):
    plain, weighted = (BatchSampler(50, 4, 3, shuffle=shuffle, weights=w) for w in (None, np.full(50, 0.3)))
    assert [weighted.batches(epoch) for epoch in range(5)] == [plain.batches(epoch) for epoch in range(5)]


def test_expected_draws():
    assert expected_draws([2, 0, 1, 1]).tolist() == [2, 0, 1, 1]
    assert expected_draws([3, 1]).tolist() == [1.5, 0.5]


def test_every_epoch_is_as_long_and_each_image_comes_its_expectation_rounded_down_or_up():
    weights = np.random.default_rng(0).lognormal(sigma=1.5, size=101)
    weights[:9] = 0
    expected = weights / weights.sum() * 101
    sampler = BatchSampler(101, 8, seed=1, weights=weights)
    for epoch in range(200):
        counts = np.bincount(_flat(sampler.batches(epoch)), minlength=101)
        assert counts.sum() == 101
        assert (np.abs(counts - expected) < 1).all()
        assert not counts[:9].any()


def test_the_sum_over_many_epochs_is_the_expectation():
    weights = np.repeat([1.0, 4.5, 2.2], [150, 20, 30])
    sampler = BatchSampler(200, 16, seed=2, weights=weights)
    total = sum(np.bincount(sampler.draws(epoch), minlength=200) for epoch in range(1000))
    groups = [total[:150].sum(), total[150:170].sum(), total[170:].sum()]  # expected: 200 * weight / 306 a draw
    assert groups == pytest.approx([98039.2, 58823.5, 43137.3], rel=0.01)
    assert total == pytest.approx(expected_draws(weights) * 1000, rel=0.1)  # each image


def test_which_images_are_rounded_up_does_not_depend_on_their_neighbours():
    together = Counter()
    for seed in range(2000):
        counts = systematic_counts(np.array([0.5, 0.5, 0.5, 0.5, 3]), np.random.default_rng(seed))
        together[tuple(np.flatnonzero(counts[:4]).tolist())] += 1
        assert counts[4] == 3
    # in the order of the file it would always be the first and third, or the second and fourth
    assert set(together) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert min(together.values()) > 2000 / 6 * 0.8


def test_images_of_one_weight_come_as_often_in_every_epoch():
    weights = np.tile([1.0, 4.5, 2.2, 1.0], 50)
    sampler = BatchSampler(200, 16, seed=2, weights=weights)
    for group in ([1.0], [4.5], [2.2]):
        images = np.isin(weights, group)
        totals = {int(images[sampler.draws(epoch)].sum()) for epoch in range(100)}
        expected = 200 * weights[images].sum() / weights.sum()
        assert totals == {math.floor(expected), math.ceil(expected)}


def test_the_total_survives_every_rounding():
    class Offset:  # the greatest and smallest there are
        def __init__(self, u):
            self.u = u

        def permutation(self, size):
            return np.arange(size)

        def random(self):
            return self.u

    for u in (0.0, 1e-16, 1 - 2**-53):
        for expected in ([0.1] * 10, [0.7] * 10, [1 / 3] * 3000, [2.0, 1.0, 0.0]):
            draws = np.asarray(expected) * len(expected) / sum(expected)
            counts = systematic_counts(draws, Offset(u))
            assert counts.sum() == len(draws) and counts.min() >= 0
            assert not counts[draws == 0].any()


def test_repeats_are_counted_through_the_epoch():
    sampler = BatchSampler(6, 2, seed=4, weights=[10, 1, 1, 1, 1, 1])
    for epoch in range(10):
        seen = Counter()
        for position in (position for batch in sampler.batches(epoch) for position in batch):
            assert position == (epoch, position[1], seen[position[1]])
            seen[position[1]] += 1
        assert seen[0] == 4 and max(seen.values()) == 4


def test_processes_share_the_draws():
    weights = np.random.default_rng(0).lognormal(size=22)
    ranks = [BatchSampler(22, 2, 5, rank=rank, world_size=4, weights=weights).batches(1) for rank in range(4)]
    assert [[len(batch) for batch in batches] for batches in ranks] == [[2, 2, 2]] * 4
    seen = Counter(position for batches in ranks for batch in batches for position in batch)
    whole = Counter(position for batch in BatchSampler(22, 22, 5, weights=weights).batches(1) for position in batch)
    assert set(seen) == set(whole) and len(whole) == 22
    assert seen.total() == 24  # filled up with two draws of the beginning


def test_repeated_images_are_batched_by_orientation():
    ratios = np.array([0.5, 2.0] * 11)
    weights = np.where(ratios > 1, 5, 1)
    batches = _images(BatchSampler(22, 4, 0, aspect_ratios=ratios, weights=weights).batches(0))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 2]
    assert all(len({index % 2 for index in batch}) == 1 for batch in batches[:4])
    assert sum(index % 2 for batch in batches for index in batch) in (18, 19)  # 22 * 5 / 6 = 18.3


class _SeedRecorder:
    """A transform that changes nothing, and keeps the seeds it is given."""

    image_size = 64

    def __init__(self):
        self.seeds = []

    def __call__(self, image, boxes, labels, seed):
        self.seeds.append(seed)
        return image, boxes, labels


def test_a_first_draw_has_the_seed_that_it_had_before_there_were_repeats(coco, split_of):
    transform = _SeedRecorder()
    dataset = DetectionDataset(read_coco(split_of(coco, images=True)), transform, seed=3)
    for position in ((4, 1), (4, 1, 0), (4, 1, 1), (4, 1, 2)):
        dataset[position]
    before = 3833255778399125166  # of (3, 4, 1)
    assert transform.seeds[:2] == [before, before]
    assert len(set(transform.seeds)) == 3


def _batches(data, workers, epochs=(0, 1), start=0):
    loader = train_loader(
        data, image_size=64, transforms="strong", batch_size=2, workers=workers, seed=3, weights=[8, 1, 1, 1, 1]
    )
    batches = []
    for epoch in epochs:
        loader.set_position(epoch, start)
        batches += list(loader)
    return batches


def _equal(some, others):
    return len(some) == len(others) and all(
        torch.equal(images, other_images)
        and [t["image_id"] for t in targets] == [t["image_id"] for t in other_targets]
        and all(torch.equal(t["boxes"], o["boxes"]) for t, o in zip(targets, other_targets, strict=True))
        for (images, targets), (other_images, other_targets) in zip(some, others, strict=True)
    )


@pytest.fixture
def five_images(coco, split_of):
    coco["images"] = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(5)]
    for annotation in coco["annotations"]:
        annotation["image_id"] = 0
    return read_coco(split_of(coco, images=True))


def test_batches_with_repeats_are_the_same_for_any_number_of_workers_and_after_resuming(five_images):
    batches = _batches(five_images, 0)
    assert len(batches) == 6
    assert _equal(batches, _batches(five_images, 1)) and _equal(batches, _batches(five_images, 2))
    assert _equal(batches[4:], _batches(five_images, 2, epochs=[1], start=1))


def test_repeats_of_an_epoch_are_augmented_differently(five_images):
    samples = [
        (image, target)
        for images, targets in _batches(five_images, 0, epochs=[0])
        for image, target in zip(images, targets, strict=True)
        if target["image_id"] == 0
    ]
    assert len(samples) in (3, 4)  # 5 * 8 / 12 = 3.3
    for i, (image, target) in enumerate(samples):
        for other, other_target in samples[:i]:
            assert not torch.equal(image, other) or not torch.equal(target["boxes"], other_target["boxes"])
