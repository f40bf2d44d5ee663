"""Batches are a pure function of (seed, epoch), and contain every image once."""

import numpy as np
import pytest

from detector.data.sampler import BatchSampler


def _flat(batches):
    return [index for batch in batches for index in batch]


def test_in_order():
    sampler = BatchSampler(5, 2, seed=0, shuffle=False)
    assert sampler.batches(0) == [[0, 1], [2, 3], [4]]
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
    expected = [[(2, index) for index in batch] for batch in sampler.batches(2)[1:]]
    assert list(sampler) == expected
    assert len(sampler) == 4


def test_batches_are_of_one_orientation_but_for_the_leftovers():
    ratios = np.array([0.5, 2.0] * 11)  # 11 lying, 11 upright
    batches = BatchSampler(22, 4, seed=0, aspect_ratios=ratios).batches(0)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 2]
    assert all(len({index % 2 for index in batch}) == 1 for batch in batches[:4])
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
    assert batches == [[[0]], [[0]], [[0]]]


def test_no_images():
    assert BatchSampler(0, 2, 0).batches(0) == []
