"""The figures of each class, against loops over every (anchor, class) pair; state, sampling and several processes."""

import json
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from detector.losses import class_statistics
from detector.losses.assigners.assignment import BACKGROUND, IGNORED
from detector.losses.class_statistics import FIGURES, ClassStatistics
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal

NAMES = ["disc", "ring", "star"]


def a_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """logits (2, 30, 3), classes (2, 30): every kind of anchor, none of class 2."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 30, 3, generator=generator), torch.randint(-2, 2, (2, 30), generator=generator)


def terms(logits: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss by class (K,) and gradient of plain binary cross entropy, with a gradient on ignored anchors too."""
    x = logits.clone().requires_grad_()
    target = F.one_hot(classes.clamp(min=0), x.shape[-1]) * (classes >= 0)[..., None]
    loss = F.binary_cross_entropy_with_logits(x, target.to(x.dtype), reduction="none").flatten(0, -2).sum(0)
    loss.sum().backward()
    return loss.detach(), x.grad


def add(statistics: ClassStatistics, logits: torch.Tensor, classes: torch.Tensor, everything: bool = True) -> None:
    loss, gradient = terms(logits, classes)
    positive = classes >= 0
    statistics.add_positives(logits[positive], classes[positive], gradient[positive])
    if everything:
        statistics.add_all(logits, classes, loss, gradient)


def expected(batches: list, sampled: list[int]) -> dict:
    """The same figures, one pair at a time, in float64."""
    sums = {name: dict.fromkeys(("n", "pull", "push", "score", "loss", "away", "m"), 0.0) for name in NAMES}
    for i, (logits, classes) in enumerate(batches):
        loss, gradient = terms(logits.double(), classes)
        for k, name in enumerate(NAMES):
            own = sums[name]
            own["loss"] += loss[k].item() * (i in sampled)
            for x, g, c in zip(logits[..., k].flatten(), gradient[..., k].flatten(), classes.flatten(), strict=True):
                score = 1 / (1 + math.exp(-x.item()))
                if c == k:
                    own["n"] += 1
                    own["pull"] += abs(g.item())
                    own["score"] += score
                elif c != IGNORED and i in sampled:
                    own["push"] += abs(g.item())
                if c == BACKGROUND and i in sampled:
                    own["away"] += score
                    own["m"] += 1
    total = sum(own["loss"] for own in sums.values())
    return {
        name: {
            "positives": own["n"],
            "loss_share": own["loss"] / total,
            "gradient_ratio": own["pull"] / len(batches) / (own["push"] / len(sampled)) if own["n"] else None,
            "score_positive": own["score"] / own["n"] if own["n"] else None,
            "score_background": own["away"] / own["m"],
        }
        for name, own in sums.items()
    }


def assert_same(summary: dict, reference: dict) -> None:
    for name in NAMES:
        assert list(summary[name]) == list(FIGURES)
        for figure, value in reference[name].items():
            assert summary[name][figure] == (None if value is None else pytest.approx(value, rel=1e-5)), (name, figure)


@pytest.mark.parametrize("chunk", [6, 1 << 22])  # two anchors at a time, all at once
def test_every_batch_looked_at(monkeypatch, chunk):
    monkeypatch.setattr(class_statistics, "CHUNK", chunk)
    batches = [a_batch(0), a_batch(1)]
    statistics = ClassStatistics(3)
    for batch in batches:
        add(statistics, *batch)
    summary = statistics.summary(NAMES)
    assert (summary["batches"], summary["sampled_batches"]) == (2, 2)
    assert_same(summary["per_class"], expected(batches, [0, 1]))


LOSSES = {
    "focal": Focal(),
    "cross entropy": Focal(alpha=None, gamma=0.0),
    "equalized": EqualizedFocal(3),
    "quality": QualityFocal(),
    "varifocal": Varifocal(),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("no_positives", [False, True])
def test_a_batch_as_each_loss_sees_it(name, no_positives):
    """Positives alone have the gradient that autograd gives them among all anchors, and the loss learns nothing."""
    logits, classes = a_batch(0)
    classes = classes.clamp(max=BACKGROUND) if no_positives else classes
    loss, positive = LOSSES[name].train(), (classes >= 0).nonzero(as_tuple=True)
    state = {key: value.clone() for key, value in loss.state_dict().items()}
    quality = torch.linspace(0.1, 1, len(positive[0])) if loss.needs_quality else None
    observed, reference = ClassStatistics(3), ClassStatistics(3)
    observed.observe(loss, logits, classes, positive, quality, everything=False)
    observed.observe(loss, logits, classes, positive, quality, everything=True)
    assert all(torch.equal(value, state[key]) for key, value in loss.state_dict().items())

    x = logits.clone().requires_grad_()
    gradient = torch.autograd.grad(loss.eval()(x, classes, quality), x)[0]
    for _ in range(2):
        reference.add_positives(logits[positive], classes[positive], gradient[positive])
    reference.add_all(logits, classes, loss.terms(logits, classes, quality)[0], gradient)
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(observed.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_positives_of_every_batch_the_rest_of_some():
    batches = [a_batch(seed) for seed in range(5)]
    statistics = ClassStatistics(3)
    for i, batch in enumerate(batches):
        add(statistics, *batch, everything=i in (0, 3))
    summary = statistics.summary(NAMES)
    assert (summary["batches"], summary["sampled_batches"]) == (5, 2)
    assert_same(summary["per_class"], expected(batches, [0, 3]))


def test_a_class_pulled_as_strongly_as_it_is_pushed():
    logits = torch.zeros(1, 4, 1)  # every gradient of cross entropy is 1/2
    statistics = ClassStatistics(1)
    add(statistics, logits, torch.tensor([[0, 0, BACKGROUND, IGNORED]]))
    figures = statistics.summary(["a"])["per_class"]["a"]
    assert figures == {
        "positives": 2, "loss_share": 1, "gradient_ratio": 2, "score_positive": 0.5, "score_background": 0.5,
    }  # fmt: skip


def test_nothing_seen_is_none_not_zero():
    empty = {"positives": 0} | dict.fromkeys(FIGURES[1:])
    assert ClassStatistics(3).summary(NAMES) == {
        "batches": 0, "sampled_batches": 0, "per_class": dict.fromkeys(NAMES, empty),
    }  # fmt: skip
    statistics = ClassStatistics(3)
    add(statistics, torch.zeros(1, 4, 3), torch.full((1, 4), BACKGROUND))
    summary = statistics.summary(NAMES)
    json.dumps(summary, allow_nan=False)
    figures = summary["per_class"]["star"]
    assert (figures["gradient_ratio"], figures["score_positive"], figures["score_background"]) == (None, None, 0.5)


def test_half_precision_is_summed_in_full():
    logits, classes = a_batch(0)
    statistics = ClassStatistics(3)
    loss, gradient = terms(logits, classes)
    positive = classes >= 0
    half, half_gradient = logits.bfloat16(), gradient.bfloat16()
    for _ in range(40):
        statistics.add_positives(half[positive], classes[positive], half_gradient[positive])
        statistics.add_all(half, classes, loss, half_gradient)
    reference = expected([(logits, classes)], [0])
    for name in NAMES[:2]:
        figures = statistics.summary(NAMES)["per_class"][name]
        assert figures.pop("positives") == 40 * reference[name].pop("positives")
        assert figures == pytest.approx(reference[name], rel=5e-3)


def test_stopped_and_resumed_is_the_same(tmp_path):
    batches = [a_batch(seed) for seed in range(4)]
    whole, before, after = (ClassStatistics(3) for _ in range(3))
    for i, batch in enumerate(batches):
        add(whole, *batch, everything=i % 2 == 0)
    for batch, everything in zip(batches[:2], (True, False), strict=True):
        add(before, *batch, everything)
    torch.save(before.state_dict(), tmp_path / "state.pt")
    after.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for batch, everything in zip(batches[2:], (True, False), strict=True):
        add(after, *batch, everything)
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in whole.state_dict().items())
    assert after.summary(NAMES) == whole.summary(NAMES)


def test_reset_forgets():
    statistics = ClassStatistics(3)
    add(statistics, *a_batch(0))
    statistics.reset()
    assert statistics.summary(NAMES) == ClassStatistics(3).summary(NAMES)


def _one_image(rank: int, store: str, parts: list, alone: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    logits, classes, loss, gradient = parts[rank]
    statistics, positive = ClassStatistics(3), classes >= 0
    statistics.add_positives(logits[positive], classes[positive], gradient[positive])
    statistics.add_all(logits, classes, loss, gradient)
    for name, value in alone.items():
        torch.testing.assert_close(statistics.state_dict()[name], value, rtol=1e-5, atol=0)
    dist.destroy_process_group()


def test_two_processes_with_an_image_each_hold_the_sums_of_both(tmp_path):
    logits, classes = a_batch(0)
    alone = ClassStatistics(3)
    add(alone, logits, classes)
    parts = [(x, c, *terms(x, c)) for x, c in zip(logits.split(1), classes.split(1), strict=True)]
    arguments = (str(tmp_path / "store"), parts, dict(alone.state_dict()))
    mp.start_processes(_one_image, arguments, nprocs=2, start_method="fork")  # spawned, each would load torch anew
