"""The equalized focal loss's state: what it accumulates, when, across processes, and through a checkpoint."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.classification.equalized_focal import PRIOR_GRADIENT, EqualizedFocal
from detector.losses.criterion import Criterion

K = 3


def batch(seed: int, classes=(-2, K)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 40, K, generator=generator)
    return logits.requires_grad_(), torch.randint(*classes, (2, 40), generator=generator)


def sums_by_autograd(logits, classes, gamma, gamma_b=2.0, alpha=0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """The authors' way: the loss of one-hot targets, autograd's gradient of it, masked and summed."""
    x = logits.detach().double().requires_grad_()
    targets = F.one_hot(classes.clamp(min=0), K) * (classes >= 0)[..., None]
    p = x.sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    weight = torch.where(targets == 1, alpha, 1 - alpha) * gamma / gamma_b
    loss = -weight * (1 - p_t) ** gamma * p_t.log() * (classes != -2)[..., None]
    gradient = torch.autograd.grad(loss.sum(), x)[0].abs()
    return (gradient * targets).sum((0, 1)), (gradient * (1 - targets)).sum((0, 1))


def test_accumulates_the_gradient_of_the_loss_itself():
    loss = EqualizedFocal(K)
    positive, negative = torch.zeros(2, K, dtype=torch.float64)
    for seed in range(3):
        logits, classes = batch(seed)
        gamma = 2 + 8 * (1 - ((positive + PRIOR_GRADIENT) / (negative + PRIOR_GRADIENT)).clamp(0, 1))
        torch.testing.assert_close(loss.gamma.double(), gamma, rtol=1e-5, atol=0)
        more = sums_by_autograd(logits, classes, gamma)
        positive, negative = positive + more[0], negative + more[1]
        loss(logits, classes)
    torch.testing.assert_close(loss.positive_gradient.double(), positive, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.negative_gradient.double(), negative, rtol=1e-5, atol=0)
    assert (loss.gamma > 2).any()


def test_bfloat16_logits_are_summed_in_float32():
    logits, classes = batch(0)
    logits = logits.bfloat16()
    rounded, exact = EqualizedFocal(K), EqualizedFocal(K)
    rounded(logits, classes)
    exact(logits.float(), classes)
    assert torch.equal(rounded.negative_gradient, exact.negative_gradient)
    assert torch.equal(rounded.positive_gradient, exact.positive_gradient)


def test_a_class_not_yet_seen_is_balanced_and_then_moves_slowly():
    loss = EqualizedFocal(K)
    logits, classes = batch(0, classes=(-1, K - 1))
    for _ in range(20):
        loss(logits, classes)
    assert loss.gamma[K - 1] == 2 and loss.negative_gradient[K - 1] == 0
    assert (loss.gamma[: K - 1] > 2).all()
    classes[0, 0] = K - 1
    small = logits.detach() - 2  # little gradient beside the prior's
    loss(small, classes)
    assert 2 < loss.gamma[K - 1] < 6
    for _ in range(300):
        loss(small, classes)
    assert loss.gamma[K - 1] > 6  # and in the end a rare class is a rare class


def test_only_training_moves_the_state():
    loss = EqualizedFocal(K)
    logits, classes = batch(0)
    loss.terms(logits, classes)
    with torch.no_grad():
        loss(logits, classes)
    loss.eval()(logits, classes)
    assert not loss.positive_gradient.any() and not loss.negative_gradient.any()
    loss.train()(logits, classes)
    assert loss.positive_gradient.all() and loss.negative_gradient.all()


def test_goes_on_from_a_checkpoint_as_if_never_stopped():
    whole, stopped = (Criterion(assigner=MaxIoUAssigner(), classification=EqualizedFocal(K)) for _ in range(2))
    for seed in range(2):
        whole.classification(*batch(seed))
        stopped.classification(*batch(seed))
    resumed = Criterion(assigner=MaxIoUAssigner(), classification=EqualizedFocal(K))
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.classification(*batch(2)).item() == whole.classification(*batch(2)).item()
    assert torch.equal(resumed.classification.gamma, whole.classification.gamma)


def test_alphas_by_class_are_settings_and_not_state():
    names = Criterion(assigner=MaxIoUAssigner(), classification=EqualizedFocal(K, alpha=[0.2] * K)).state_dict()
    assert list(names) == ["classification.positive_gradient", "classification.negative_gradient"]


def _state_of_rank(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2)
    loss = EqualizedFocal(K)
    for step in range(2):
        logits, classes = batch(step)
        loss(logits[rank : rank + 1], classes[rank : rank + 1])
    torch.save(loss.state_dict(), f"{directory}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_state_of_one_with_the_whole_batch(tmp_path):
    mp.start_processes(_state_of_rank, args=(str(tmp_path),), nprocs=2, start_method="fork")  # spawn imports torch anew
    alone = EqualizedFocal(K)
    for step in range(2):
        alone(*batch(step))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale, positive, expected", [(0.0, 20, 2.0), (8.0, 20, 6.0), (8.0, 90, 2.0)])
def test_gamma_by_hand(scale, positive, expected):
    loss = EqualizedFocal(1, scale=scale)
    loss.positive_gradient += positive  # with the prior 30 : 60, and 100 : 60, which counts as 1
    loss.negative_gradient += 50
    assert loss.gamma.item() == pytest.approx(expected)
