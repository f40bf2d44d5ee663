"""What `imbalance: auto` chooses for balanced data and for two kinds of rare classes, and what it leaves alone."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from detector.config.file import dump, validate
from detector.data.coco import CocoData, read_coco
from detector.data.descriptor import load_descriptor
from detector.losses.class_alpha import effective_number
from detector.training.auto.imbalance import apply, as_chosen, choose
from detector.utils.errors import InputError


def _data(*images: dict[str, int], side: int = 20) -> CocoData:
    """A dataset of images with so many boxes of each class, none touching another."""
    names = sorted({name for image in images for name in image})
    labels = [[names.index(name) for name, number in image.items() for _ in range(number)] for image in images]
    corners = [[(10 + 2 * side * (k % 20), 10 + 2 * side * (k // 20)) for k in range(len(image))] for image in labels]
    corners = np.array([corner for image in corners for corner in image], float)
    boxes = np.concatenate([corners, np.full_like(corners, side)], axis=1)
    number = len(images)
    return CocoData(
        class_names=names,
        category_ids=np.arange(len(names)),
        images_dir=Path("none"),
        image_ids=np.arange(number),
        heights=np.full(number, 1000, np.int32),
        widths=np.full(number, 1000, np.int32),
        names=b"",
        name_offsets=np.zeros(number + 1, np.int64),
        first=np.cumsum([0, *map(len, labels)]),
        boxes=boxes,
        areas=np.full(len(boxes), float(side**2)),
        labels=np.array([label for image in labels for label in image], np.int32),
        iscrowd=np.zeros(len(boxes), bool),
        annotation_ids=np.arange(len(boxes)),
    )


def _config(text: str = "imbalance: auto"):
    return validate({"data": {"dataset": "none.yaml"}, **yaml.safe_load(text)}, "test")


def _changes(config) -> dict:
    """Dotted path → value of what differs from the defaults."""
    default = _config("{}").model_dump()
    return {
        f"{section}.{key}": value
        for section in ("data", "loss", "augment")
        for key, value in config.model_dump()[section].items()
        if value != default[section][key]
    }


APART = [{"common": 10}] * 20 + [{"rare": 1}]  # the rare class has images of its own
TOGETHER = [{"common": 12, "rare": 1}] * 120  # resampling cannot raise it
BOTH = [{"common": 12, "rare": 1}] * 20


def _resolved(text, data):
    """The resolved configuration, and the lines on it."""
    config = _config(text)
    chosen = choose(config, data)
    return apply(config, chosen), "\n".join(chosen.lines())


def test_balanced_data_is_left_alone_with_a_reason():
    config, line = _resolved("imbalance: auto", _data(*[{"a": 10, "b": 1}] * 5))
    assert _changes(config) == {} and config.imbalance == "none"
    assert "plain focal loss" in line and "the rarest class, b (5 boxes)" in line and "the commonest, a (50)" in line


WEIGHTED = {"loss.alpha": "effective_number", "loss.defer_alpha": 0.5}


def test_rare_classes_in_images_of_their_own_are_sampled_and_pasted_too():
    config, lines = _resolved("imbalance: auto", _data(*APART))
    changes = _changes(config)
    paste = changes.pop("augment.paste")
    # frequencies 20/21 and 1/21; the median is 10.5/21; factor of the rare class sqrt(10.5) = 3.24
    assert changes == {**WEIGHTED, "data.sampling": "repeat_factor", "data.repeat_threshold": 0.5}
    assert "shows the rare classes 3.2 times as often, relative to common" in lines
    assert (paste["classes"], paste["blend"]) == (["rare"], "clone") and "augment.paste rare: fewer" in lines


def test_the_choice_is_data_with_a_reason_for_each_setting():
    chosen = choose(_config(), _data(*APART))
    assert (chosen.commonest, chosen.rarest, chosen.tail) == (("common", 200), ("rare", 1), ["rare"])
    assert [list(decision.settings) for decision in chosen.decisions] == [
        ["data.sampling", "data.repeat_threshold"],
        ["augment.paste"],
        ["loss.alpha", "loss.effective_beta", "loss.defer_alpha"],
    ]
    assert all(decision.reason for decision in chosen.decisions)
    assert chosen.settings["data.repeat_threshold"] == 0.5


def test_weights_come_from_what_an_epoch_shows():
    """20 images of 5 common boxes, one of 9 rare ones: drawn 3.24 times as often, and one pasted an image."""
    data = _data(*[{"common": 5}] * 20, {"rare": 9})
    draws = 21 / (20 + 10.5**0.5)  # of an image without a repeat factor
    chosen = choose(_config(), data)
    np.testing.assert_allclose(chosen.shown, [100 * draws, 9 * 10.5**0.5 * draws + 21], rtol=1e-4)
    alpha = 0.25 * effective_number(chosen.shown, 0.999)[1]
    assert 0.4 < alpha < 0.6 and f"positives weigh 0.25 to {alpha:.2f}" in chosen.decisions[-1].reason
    alone = choose(_config("imbalance: {sampling: false, paste: false}"), data)
    assert alone.shown.tolist() == [100, 9] and "positives weigh 0.25 to 0.75" in alone.decisions[-1].reason


def test_the_commonest_class_is_told_what_it_pays():
    chosen = choose(_config(), _data(*APART))
    assert chosen.lines()[-1].startswith("  what common pays: an epoch shows it 0.90 times as often")
    kept = choose(_config("imbalance: {loss: false}"), _data(*TOGETHER))
    assert kept.lines()[-1].startswith("  what common pays: an epoch shows it 1.00 times as often")


def test_a_choice_may_be_left_out():
    config, lines = _resolved("imbalance: {loss: false, paste: false}", _data(*APART))
    assert _changes(config) == {"data.sampling": "repeat_factor", "data.repeat_threshold": 0.5}
    assert "loss stays" in lines and "augment.paste stays off" in lines


def test_rare_classes_beside_common_ones_are_weighted():
    config, lines = _resolved("imbalance: auto", _data(*TOGETHER))
    assert _changes(config) == WEIGHTED
    assert "1.0 times as often" in lines and "100% of the images have common" in lines
    assert "no pasting: every class has 100 boxes or more" in lines


def test_few_boxes_are_pasted_where_there_are_crops():
    config, _ = _resolved("imbalance: auto", _data(*BOTH))
    changes = _changes(config)
    assert changes.pop("augment.paste")["classes"] == ["rare"] and changes == WEIGHTED
    config, lines = _resolved("imbalance: auto", _data(*BOTH, side=4))
    assert config.augment.paste is None and "no good crop of rare" in lines


@pytest.mark.parametrize("imbalance", ["auto", "{}"])
def test_what_is_given_is_kept(imbalance):
    given = "data: {dataset: none.yaml, sampling: uniform}\nloss: {alpha: 0.5}\naugment: {paste: null}"
    config, lines = _resolved(f"imbalance: {imbalance}\n{given}", _data(*APART))
    assert _changes(config) == {"loss.alpha": 0.5}
    assert (
        "data.sampling stays uniform, as configured" in lines
        and "loss stays" in lines
        and "augment.paste stays off" in lines
    )


def test_weights_tell_counts_apart_in_large_data_too():
    """With the default beta, classes of 6000 and of a million boxes would weigh the same."""
    data = _data(*[{"common": 10}] * 3000, *[{"rare": 1}] * 2000)
    config, lines = _resolved("imbalance: {sampling: false, paste: false}", data)
    assert config.loss.effective_beta == 0.9999
    expected = 0.25 * effective_number(np.array([30000, 2000]), 0.9999)  # common, rare
    assert f"positives weigh {expected[0]:.2f} to {expected[1]:.2f}" in lines and expected[1] == 0.75
    assert effective_number(np.array([30000, 2000]), 0.999)[1] < 1.2


def test_the_commonest_class_has_the_alpha_of_gamma():
    config, lines = _resolved("imbalance: {sampling: false, paste: false}\nloss: {gamma: 0.5}", _data(*TOGETHER))
    assert _changes(config) == {**WEIGHTED, "loss.gamma": 0.5}
    assert "positives weigh 0.50 to 1.50, the rarer in an epoch the more; all 0.5 until 50%" in lines


def test_quality_focal_is_weighted_too_and_a_loss_that_balances_classes_is_not():
    only_loss = "imbalance: {sampling: false, paste: false}\nloss: "
    config, lines = _resolved(only_loss + "{classification: quality_focal}", _data(*TOGETHER))
    assert _changes(config) == {**WEIGHTED, "loss.classification": "quality_focal"}
    assert "positives weigh 1.00 to 3.00, the rarer in an epoch the more; all 1 until 50%" in lines
    config, lines = _resolved(only_loss + "{classification: equalized_focal}", _data(*TOGETHER))
    assert _changes(config) == {"loss.classification": "equalized_focal"}
    assert "loss stays as configured: equalized_focal takes no weights by class" in lines


def test_a_gamma_list_of_another_length_is_an_error_before_anything_is_multiplied():
    with pytest.raises(InputError, match=r"loss.gamma has 3 values, but the data has 2 classes \(common, rare\)"):
        choose(_config("{imbalance: auto, data: {dataset: none.yaml}, loss: {gamma: [1.0, 2.0, 2.0]}}"), _data(*BOTH))


def test_none_chooses_nothing():
    config = _config("imbalance: none")
    assert choose(config, None) is None and apply(config, None) is config


def test_the_choices_are_ordinary_settings():
    config, _ = _resolved("imbalance: auto", _data(*APART))
    again = validate(yaml.safe_load(dump(config)), "dumped")
    assert again == config and again.imbalance == "none"
    assert choose(again, _data(*TOGETHER)) is None


def test_a_resumed_run_takes_over_what_was_chosen():
    begun, _ = _resolved("imbalance: auto", _data(*APART))
    assert as_chosen(_config("imbalance: auto"), begun) == begun
    assert as_chosen(_config("imbalance: {paste: false}"), begun).augment.paste is None
    plain = _config("imbalance: none")
    assert as_chosen(plain, begun) is plain


def test_shapes_and_blood_cells_need_different_things(real_data):
    """Red cells stand in nearly every image of BCCD: to repeat images repeats them."""
    bccd = real_data("bccd") / "bccd.yaml"
    descriptor = load_descriptor(bccd)
    config, _ = _resolved("imbalance: auto", read_coco(descriptor.split("train"), bad="drop"))
    assert _changes(config) == WEIGHTED
