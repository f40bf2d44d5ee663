"""That sampling, mixing and pasting reach the batches of a training, the same for any number of workers; what is
refused."""

import json

import numpy as np
import pytest
import torch

from detector.config.file import load_config
from detector.config.model import ModelConfig
from detector.data.resampling import image_weights
from detector.models.build import build_model, build_without_memory
from detector.training import setup
from detector.training.auto.batch_size import BatchSize
from detector.training.setup import build_loader, check_deterministic, prepare, read_training_data
from detector.utils.errors import InputError

DARK, LIGHT = 0, 1  # labels: the categories in the order of their ids, 3 and 7


@pytest.fixture
def loaded(tiny_config):
    """The training split of the tiny dataset, its loader for overrides, and the log's lines."""

    def load(*overrides: str):
        config = load_config(tiny_config, [*overrides, "train.batch_size=2", "augment.transforms=none"])
        train, _ = read_training_data(config)
        return train, *build_loader(config, train)

    return load


def labels_of_epochs(loader, epochs: int) -> np.ndarray:
    """How many objects of each class some epochs show."""
    counts = np.zeros(2, int)
    for epoch in range(epochs):
        loader.set_position(epoch, 0)
        for _, targets in loader:
            counts += np.bincount(torch.cat([target["labels"] for target in targets]), minlength=2)
    return counts


def test_the_sampler_draws_by_the_weights(loaded):
    """All images but the one without objects are alike; with a threshold of 1 they are drawn more often than that."""
    train, loader, _, _ = loaded("data.sampling=repeat_factor", "data.repeat_threshold=1.0", "data.workers=0")
    weights, _ = image_weights(train, "repeat_factor", 1.0)
    assert weights.max() > 1.05 * weights.min()
    expected = weights / weights.sum() * len(train)
    seen = np.zeros(len(train))
    for epoch in range(200):
        loader.set_position(epoch, 0)
        for _, targets in loader:
            for target in targets:
                seen[train.image_ids.tolist().index(target["image_id"])] += 1
    np.testing.assert_allclose(seen / 200, expected, atol=0.1)
    assert seen[0] / 200 < 0.98  # the image without objects


def test_one_setting_turns_an_advised_sampling_off(loaded):
    *_, lines = loaded("data.sampling=uniform", "data.repeat_threshold=0.4")
    assert "data.repeat_threshold 0.4 is not used by data.sampling uniform" in lines[0]


def test_pasted_objects_are_in_the_batches(loaded, tiny_dataset):
    """One dark object and five light ones: two more an epoch are an equal share."""
    file = tiny_dataset.parent / "train.json"
    coco = json.loads(file.read_text())
    dark = next(one for one in coco["annotations"] if one["category_id"] == 3)
    coco["annotations"] = [one for one in coco["annotations"] if one["category_id"] == 7 or one is dark]
    file.write_text(json.dumps(coco))
    _, plain, _, _ = loaded("data.workers=0")
    assert labels_of_epochs(plain, 20).tolist() == [20, 100]
    _, loader, _, lines = loaded("data.workers=0", "augment.paste={classes: [dark], occlusion: 1.0}")
    assert any("pasting: 0.33 objects an image" in line for line in lines)
    seen = labels_of_epochs(loader, 20)
    assert abs(seen[DARK] - 60) < 20 and seen[LIGHT] == 100  # three standard deviations of a Poisson variable


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_no_worker(loaded, workers):
    mixed = ("augment.mosaic=0.5", "augment.mixup=0.5", "augment.paste={classes: [dark]}", "augment.close=0")
    mixed = (*mixed, "data.sampling=class_aware")
    _, alone, _, _ = loaded(*mixed, "data.workers=0")
    _, shared, _, _ = loaded(*mixed, f"data.workers={workers}")
    _, plain, _, _ = loaded("data.workers=0")
    for loader in (alone, shared, plain):
        loader.set_position(1, 0)
    changed = False
    for (images, targets), (others, same), (raw, _) in zip(alone, shared, plain, strict=True):
        assert torch.equal(images, others)
        for target, other in zip(targets, same, strict=True):
            assert torch.equal(target["boxes"], other["boxes"]) and torch.equal(target["labels"], other["labels"])
        changed |= not torch.equal(images, raw)
    assert changed


def test_what_has_no_deterministic_gradient_on_a_gpu_is_refused():
    settings = {"backbone": {"name": "resnet18", "weights": None, "norm": "batch"}, "neck": {"channels": 8}}
    for name in ("none", "light", "dyhead"):
        model = build_without_memory(ModelConfig.model_validate({**settings, "attention": {"name": name}}), 2)
        check_deterministic(model, torch.device("cpu"))
        if name != "dyhead":
            check_deterministic(model, torch.device("cuda"))
    with pytest.raises(InputError, match="train.deterministic: .* set model.attention.name to light or none"):
        check_deterministic(model, torch.device("cuda"))


class TestAnchorRule:
    """What model.anchors.rule auto becomes, and that the model is built so."""

    @pytest.fixture
    def rule(self, tiny_config, tmp_path):
        """Overrides → the rule in the configuration of a new run, that of its model, and the log's lines."""
        model = build_model(load_config(tiny_config).model, 2)
        torch.save(model.state_dict(), tmp_path / "torchvisions.pth")

        def rule(*overrides: str):
            prepared = prepare(load_config(tiny_config, list(overrides)))
            return prepared.config.model.anchors.rule, prepared.training.model.anchors.rule, "\n".join(prepared.notes)

        return rule

    def test_from_scratch(self, rule):
        assert rule()[:2] == ("exact", "exact")
        assert rule("model.anchors.rule=torchvision")[:2] == ("torchvision", "torchvision")

    def test_from_torchvisions_layout(self, rule):
        *rules, notes = rule("model.weights=torchvisions.pth")
        assert rules == ["torchvision", "torchvision"]
        assert "model.anchors.rule: torchvision" in notes and "boxes are shifted" not in notes

    def test_a_rule_that_is_given_is_kept_and_the_log_warns(self, rule):
        *rules, notes = rule("model.weights=torchvisions.pth", "model.anchors.rule=exact")
        assert rules == ["exact", "exact"]
        assert "warning: it was trained with model.anchors.rule torchvision, not exact: boxes are shifted" in notes


@pytest.mark.parametrize("workers", [0, 1])
def test_mosaic_and_mixup_end_before_the_training(loaded, workers):
    """The workers live through all epochs: each learns of the epoch by the positions that it is sent."""
    settings = ("train.epochs=4", f"data.workers={workers}")
    _, mixed, _, lines = loaded("augment.mosaic=1", "augment.mixup=1", "augment.close=0.5", *settings)
    _, plain, _, _ = loaded(*settings)
    assert lines == ["mosaic: 100% of the images up to epoch 2", "mixup: 100% of the images up to epoch 2"]
    same = []
    for epoch in range(4):
        for loader in (mixed, plain):
            loader.set_position(epoch, 0)
        pairs = [torch.equal(images, raw) for (images, _), (raw, _) in zip(mixed, plain, strict=True)]
        assert all(pairs) or not any(pairs)
        same.append(all(pairs))
    assert same == [False, False, True, True]


@pytest.mark.parametrize("workers", [0, 2])
def test_short_sides_do_not_depend_on_workers_or_on_where_an_epoch_is_resumed(loaded, workers):
    settings = ("data.image_size={short: [24, 48], long: 64}",)
    train, alone, _, _ = loaded(*settings, "data.workers=0")
    _, resumed, _, _ = loaded(*settings, f"data.workers={workers}")
    shorts = []
    for epoch in range(3):
        alone.set_position(epoch, 0)
        resumed.set_position(epoch, 1)
        whole = list(alone)
        for (images, targets), (others, same) in zip(whole[1:], resumed, strict=True):
            assert torch.equal(images, others) and [t["size"] for t in targets] == [t["size"] for t in same]
        shorts += [min(target["size"]) for _, targets in whole for target in targets]
    assert len(set(shorts)) > 10 and min(shorts) >= 24 and max(shorts) <= 48
    assert len(shorts) == 3 * len(train)


def test_the_learning_rate_is_that_of_the_batch_which_auto_chose(tiny_config, monkeypatch):
    monkeypatch.setattr(setup, "choose_batch_size", lambda *_: BatchSize(4, "figures", "limit"))
    prepared = prepare(load_config(tiny_config, ["train.batch_size=auto", "train.schedule=constant"]))
    settings, groups = prepared.config.train, prepared.training.optimizer.param_groups
    assert (settings.batch_size, settings.lr, settings.weight_decay) == (4, 1e-3, 0.05)
    assert {group["initial_lr"] for group in groups} == {5e-4}  # 1e-3 times the square root of 4 / 16
    assert {group["weight_decay"] for group in groups} == {0, 0.05}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), None),
        (("loss.classification=cross_entropy",), "loss.alpha auto: positives weigh 0.75 and negatives 0.25, best for"),
        (("loss.classification=cross_entropy", "loss.alpha=0.25"), None),
        (("loss.gamma=0.5",), "loss.alpha auto: positives weigh 0.5 and negatives 0.5, best for focal's gamma of 0.5"),
    ],
)
def test_an_alpha_that_auto_chose_is_noted(tiny_config, overrides, said):
    notes = [note for note in prepare(load_config(tiny_config, overrides)).notes if "loss.alpha" in note]
    assert [note.startswith(said) for note in notes] == ([True] if said else [])
