"""Groups stay whole, sizes are kept, rare classes are shared out; a repair moves as few images as possible."""

import numpy as np
import pytest

from detector.data.splitting import divide, gather, join_groups, link


def long_tailed(images: int, seed: int = 0) -> np.ndarray:
    """(images, 6) boxes of classes of which the rarest is in 3 % of the images, in clumps as of fish."""
    rng = np.random.default_rng(seed)
    has = rng.random((images, 6)) < np.array([0.8, 0.4, 0.2, 0.1, 0.05, 0.03])
    return has * rng.geometric(0.3, (images, 6))


def test_what_belongs_together_in_any_way_is_one_group():
    patients, alike = np.array([5, 5, 7, 7, 9]), np.array([0, 1, 1, 3, 4])
    assert join_groups(patients, alike).tolist() == [0, 0, 0, 0, 1]
    assert join_groups(np.array([3, 1, 2])).tolist() == [0, 1, 2]
    assert link(np.array([[0, 3], [3, 1]]), 4).tolist() == [0, 0, 1, 0]
    assert link(np.zeros((0, 2), np.int64), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_images_of_their_own_give_exact_sizes_and_even_classes(seed):
    boxes, sizes = long_tailed(500, seed), np.array([350, 100, 50])
    parts = divide(np.arange(500), boxes, sizes, seed)
    assert np.bincount(parts).tolist() == sizes.tolist()
    for values in (boxes, boxes > 0):
        shares = np.array([values[parts == part].sum(axis=0) for part in range(3)]) / values.sum(axis=0)
        assert np.abs(shares - sizes[:, None] / 500).max() < 0.09
        assert np.abs(shares - sizes[:, None] / 500)[:, 0].max() < 0.03  # the class in 80 % of the images


def test_it_is_far_more_even_than_chance():
    boxes, sizes = long_tailed(300), np.array([240, 60])
    rng = np.random.default_rng(1)

    def unevenness(parts):
        return np.abs(boxes[parts == 1].sum(axis=0) / boxes.sum(axis=0) - 0.2).mean()

    chance = np.mean([unevenness(rng.permutation(np.repeat([0, 1], sizes))) for _ in range(50)])
    assert unevenness(divide(np.arange(300), boxes, sizes, 0)) < chance / 3


def test_groups_stay_whole_and_sizes_are_kept_as_well_as_these_allow():
    rng = np.random.default_rng(0)
    groups, boxes = np.repeat(np.arange(60), rng.integers(1, 15, 60)), None
    boxes = long_tailed(len(groups))
    sizes = np.array([len(groups) - 80, 80])
    parts = divide(groups, boxes, sizes, 0)
    assert all(len(set(parts[groups == group])) == 1 for group in range(60))
    assert abs(int((parts == 1).sum()) - 80) <= 7


@pytest.mark.parametrize(("images", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [3, 1, 1])])
def test_a_rare_class_comes_into_as_many_parts_as_it_has_images(images, expected):
    boxes = np.ones((100, 2), np.int64)
    boxes[images:, 1] = 0
    parts = divide(np.arange(100), boxes, np.array([70, 20, 10]), 0)
    assert np.bincount(parts[:images], minlength=3).tolist() == expected


def test_large_images_of_a_class_do_not_all_go_to_the_largest_part():
    boxes = np.r_[np.full(10, 50), np.ones(90, int)][:, None]
    parts = divide(np.arange(100), boxes, np.array([80, 20]), 0)
    assert np.bincount(parts[:10]).tolist() == [8, 2]


def test_a_group_larger_than_the_other_part_goes_to_the_largest():
    groups = np.r_[np.zeros(60, int), np.arange(1, 41)]
    parts = divide(groups, np.ones((100, 1), int), np.array([80, 20]), 0)
    assert set(parts[:60]) == {0} and np.bincount(parts).tolist() == [80, 20]


def test_images_without_objects_fill_up_and_a_seed_gives_the_same_again():
    boxes = np.zeros((50, 3), np.int64)
    boxes[:5] = 1
    parts = [divide(np.arange(50), boxes, np.array([40, 10]), seed) for seed in (0, 0, 1)]
    assert np.bincount(parts[0]).tolist() == [40, 10]
    assert (parts[0] == parts[1]).all() and (parts[0] != parts[2]).any()


def test_folds():
    parts = divide(np.arange(100), long_tailed(100), np.full(5, 20), 0)
    assert np.bincount(parts).tolist() == [20] * 5


def test_a_repair_moves_the_fewer_images_of_each_group():
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    parts = np.array([0, 0, 1, 1, 1, 0, 0, 1])
    assert gather(groups, parts).tolist() == [0, 0, 0, 1, 1, 1, 0, 1]


def test_a_repair_shares_out_what_could_go_either_way():
    groups, parts = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    assert np.bincount(gather(groups, parts)).tolist() == [10, 10]
    sound = np.array([0, 1, 0])
    assert gather(np.array([0, 1, 0]), sound).tolist() == sound.tolist()


def test_a_group_that_fits_nowhere_goes_where_most_room_is():
    parts = divide(np.repeat([0, 1], 6), np.ones((12, 1), int), np.array([8, 4]), 0)
    assert set(parts) == {0, 1}
