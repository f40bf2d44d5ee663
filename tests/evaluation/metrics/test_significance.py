"""Chance raises as many false alarms as it may, in simulated comparisons of what does not differ; and by hand."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from detector.evaluation.metrics.significance import Chance, SeedFigures, Variances, holm, variances_of

BLOCKS, FAMILIES, CLASSES, IMAGES = 20, 100, 40, 30  # with 2000 families 5 % are 5 +- 0.5
# Standard deviations of a figure: by the seed; by the images, one seed apart from another; by the images, one entry
# apart from the other.
WORLDS = {
    "images alone": (0.0, 1.0, 1.0),
    "seeds alone": (1.0, 0.0, 0.0),
    "as much by images": (1.0, 1.0, 1.0),
    "more by images": (0.5, 0.5, 1.0),
}
UNLIKE = "one class by seeds, the next by images"
WORLDS[UNLIKE] = tuple(np.resize(np.float32(sds), (CLASSES, 1, 1)) for sds in ((1, 0), (0, 0.5), (0, 1)))


def block(world: str, rng: np.random.Generator) -> list[SeedFigures]:
    """Two entries with FAMILIES x CLASSES figures, none of which truly differs.

    There are as many resamples as images: so their variance has as many degrees of freedom as that of a bootstrap.
    """
    seed_sd, own_sd, entry_sd = WORLDS[world]

    def normal(seeds: int, sets: int) -> np.ndarray:
        return rng.standard_normal((FAMILIES, CLASSES, seeds, sets), dtype=np.float32)

    hard, made = 3 * normal(1, 1 + IMAGES), []  # by the images at hand, and by each resample, apart from them
    for _ in range(2):
        figures = hard + np.float32(0.5**0.5) * entry_sd * normal(1, 1 + IMAGES) + own_sd * normal(5, 1 + IMAGES)
        figures[..., 1:] += figures[..., :1]
        figures += seed_sd * normal(5, 1)
        made.append(SeedFigures(figures[..., 0], figures[..., 1:], IMAGES))
    return made


@cache
def compared(world: str) -> dict[int, tuple[np.ndarray, Variances]]:
    """Number of seeds → (families, CLASSES) differences of entries of so many, with their variances."""
    rng, found = np.random.default_rng(0), {1: [], 2: [], 3: [], 5: []}
    for _ in range(BLOCKS):
        entries = block(world, rng)
        for seeds, own in found.items():
            ours, theirs = [SeedFigures(e.values[..., :seeds], e.resampled[..., :seeds, :], IMAGES) for e in entries]
            variances = variances_of(ours, theirs)
            own.append((ours.value - theirs.value, variances.parts, variances.degrees))
    joined = {seeds: [np.concatenate(parts) for parts in zip(*own, strict=True)] for seeds, own in found.items()}
    return {seeds: (difference, Variances(*variances)) for seeds, (difference, *variances) in joined.items()}


def in_families(world: str, seeds: int, classes: int) -> tuple[np.ndarray, Chance]:
    """The differences (..., classes), as many as are judged together, and their chance."""
    difference, variances = compared(world)[seeds]
    parts, degrees = [each.reshape(-1, classes, each.shape[-1]) for each in (variances.parts, variances.degrees)]
    return difference.reshape(-1, classes), Variances(parts, degrees).chance()


def more_than_chance(world: str, seeds: int, truth: float = 0) -> float:
    """The share of figures, each judged alone, whose difference looks like more than chance."""
    difference, chance = in_families(world, seeds, 1)
    low, high = chance.interval(difference + truth)
    return float(((low > 0) | (high < 0)).mean())


def alarms(world: str, seeds: int, classes: int, fall: float = 0) -> float:
    """The share of families with a class that seems to have fallen. The first one has truly fallen."""
    difference, chance = in_families(world, seeds, classes)
    fallen = difference - fall * (np.arange(classes) == 0)
    return float((holm(chance.p_of_fall(fallen)) <= 0.05).any(axis=-1).mean())


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("world", ["as much by images", "more by images"])
def test_five_of_a_hundred_figures_seem_to_differ(world, seeds):
    assert 0.03 <= more_than_chance(world, seeds) <= 0.07


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_fewer_where_the_images_do_not_matter(seeds):
    """Welch's test is cautious with two or three seeds."""
    assert 0.02 <= more_than_chance("seeds alone", seeds) <= 0.05


@pytest.mark.parametrize("classes", [1, 5, 10, 40])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("world", ["seeds alone", "as much by images", "more by images", UNLIKE])
def test_five_of_a_hundred_comparisons_raise_an_alarm_whatever_the_number_of_classes(world, seeds, classes):
    """At most seven do, and at least three, but where the lesser degrees of freedom are cautious: with two seeds, or
    where seeds are all the chance of a class."""
    cautious = seeds == 2 or world in ("seeds alone", UNLIKE)
    assert (0 if cautious else 0.03) <= alarms(world, seeds, classes) <= 0.07


def test_one_seed_counts_the_images_and_not_the_seeds():
    assert 0.03 <= more_than_chance("images alone", 1) <= 0.07
    assert all(0.03 <= alarms("images alone", 1, classes) <= 0.07 for classes in (1, 5, 10, 40))
    assert more_than_chance("as much by images", 1) > 0.1  # which is why the page says that it does not


def test_real_differences_are_found_the_more_the_seeds():
    found = [more_than_chance("as much by images", seeds, truth=4) for seeds in (2, 3, 5)]
    assert found[0] > 0.35 and found[1] > 0.55 and found[2] > 0.75
    assert alarms("as much by images", 3, 1, fall=5) > 0.9 and alarms("as much by images", 3, 10, fall=8) > 0.85


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("world", ["as much by images", "more by images"])
def test_what_images_do_to_one_seed_counts_once(world, seeds):
    difference, variances = compared(world)[seeds]
    assert (variances.error**2).mean() == pytest.approx(difference.var(), rel=0.02)


def test_without_the_images_it_is_the_test_of_welch():
    ours, theirs = np.array([0.41, 0.44, 0.42]), np.array([0.39, 0.36])
    variances = variances_of(*(SeedFigures(v, np.zeros((len(v), 9)), 50) for v in (ours, theirs)))
    chance = Variances(variances.parts[None], variances.degrees[None]).chance()
    welch = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = chance.interval(ours.mean() - theirs.mean())
    assert chance.degrees == pytest.approx([welch.df]) and (low, high) == pytest.approx(welch.confidence_interval())
    fall = stats.ttest_ind(ours, theirs, equal_var=False, alternative="less").pvalue
    assert chance.p_of_fall(ours.mean() - theirs.mean()) == pytest.approx([fall])


def test_parts_by_hand():
    ours = SeedFigures(np.array([0.4, 0.6]), np.array([[0.1, 0.3, 0.2, 0.6], [0.3, 0.5, 0.0, 0.4]]), 5)
    theirs = SeedFigures(np.array([0.3]), np.array([[0.0, 0.1, 0.0, 0.1]]), 5)
    variances = variances_of(ours, theirs)
    # the mean moves by 0.2, 0.4, 0.1, 0.5, less the other's: 0.2, 0.3, 0.1, 0.4, with variance 0.0125; each seed stands
    # 0.1 off it, to and fro, with variance 0.01: both, divided by n - 1 and by n, are 0.01
    assert variances.parts == pytest.approx([(0.0125 - 0.01) * 5 / 4, 0.02 / 2])
    assert variances.degrees.tolist() == [4, 1]
    alone = variances_of(theirs)
    assert alone.parts == pytest.approx([0.0025 * 5 / 4]) and alone.degrees.tolist() == [4]


def test_the_lesser_of_own_and_shared_degrees_of_freedom():
    variances = Variances(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([[8, 1], [8, 1]]))
    chance = variances.chance()
    shared, own = 1 / (25 / 64 / 8 + 9 / 64), 1 / (1 / 4 / 8 + 1 / 4)  # mean shares: 5/8 and 3/8; of the second: halves
    assert chance.degrees == pytest.approx([shared, own]) and chance.error == pytest.approx([2, 2**0.5])
    assert shared < 1 / (9 / 16 / 8 + 1 / 16)  # the first one's own


def test_without_chance_any_fall_is_certain():
    certain = Chance(0.0, 19)
    assert certain.interval(-0.2) == (-0.2, -0.2)
    assert [certain.p_of_fall(by) for by in (-0.2, 0.2)] == [0, 1]


def test_holm():
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([[0.3, 0.9], [0.001, 0.04]])) == pytest.approx(np.array([[0.6, 0.9], [0.002, 0.04]]))
    assert holm(np.array([0.7, 0.6])).tolist() == [1, 1] and holm(np.array([])).tolist() == []
