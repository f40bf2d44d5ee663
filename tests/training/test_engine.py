"""One epoch: what it yields, that accumulation is exact, and that a loss that is not finite leaves no trace."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from detector.config.model import NeckConfig
from detector.losses.assigners.atss import ATSSAssigner
from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.assigners.tal import TaskAlignedAssigner
from detector.losses.class_statistics import ClassStatistics
from detector.losses.classification.adaptive_focal import AdaptiveFocal
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.criterion import Criterion
from detector.models.anchors import AnchorGenerator
from detector.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from detector.models.head import Head
from detector.models.necks import build_neck
from detector.models.norm import norm_layer
from detector.models.retinanet import RetinaNet
from detector.training.engine import train_one_epoch
from detector.utils.errors import InputError


class SmallBackbone(Backbone):
    """One strided convolution a level, each with its norm: a step takes milliseconds."""

    channels, stride, mean, std = [8, 8, 8], 32, IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, norm: str) -> None:
        super().__init__()
        norm_of = norm_layer(norm, eps=1e-5)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 8, 3, stride=stride, padding=1, bias=False), norm_of(8), nn.ReLU())
            for channels, stride in ((3, 8), (8, 2), (8, 2))
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        c3 = self.levels[0](images)
        c4 = self.levels[1](c3)
        return {"0": c3, "1": c4, "2": self.levels[2](c4)}


def small_model(norm: str = "group") -> RetinaNet:
    torch.manual_seed(0)
    backbone = SmallBackbone(norm)
    anchors = AnchorGenerator(base_size=16, scales=1, ratios=[1.0])
    head = Head(8, anchors_per_cell=1, num_classes=3, depth=1, width=8, norm="none", prior=0.01)
    neck = build_neck(backbone.channels, NeckConfig(channels=8))
    return RetinaNet(backbone=backbone, neck=neck, head=head, anchors=anchors)


def images_and_targets() -> tuple[torch.Tensor, list[dict]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes = [
        [[2.0, 2, 30, 34], [20, 20, 60, 50]],
        [[5, 5, 21, 22]],
        [],
        [[0, 0, 16, 16], [1, 0, 17, 18], [40, 3, 60, 22]],
    ]
    targets = [
        {
            "boxes": torch.tensor(b).view(-1, 4).float(),
            "labels": torch.arange(len(b)) % 3,
            "image_id": 100 + i,
            "size": (64, 64),
        }
        for i, b in enumerate(boxes)
    ]
    return images, targets


def train(model: nn.Module, batches: list, criterion: Criterion | None = None, **options) -> list[dict]:
    """One epoch of SGD with lr 1 and no momentum: the weights move by exactly the gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    criterion = criterion or Criterion(assigner=MaxIoUAssigner())
    steps = train_one_epoch(
        model, criterion, batches, optimizer, schedule, scaler, device=torch.device("cpu"), autocast=None, **options
    )
    return list(steps)


def task_aligned() -> Criterion:
    return Criterion(assigner=TaskAlignedAssigner(), classification=QualityFocal(), box="giou")


@pytest.mark.parametrize(
    "norm, criterion",
    [
        ("frozen", None),
        ("group", None),
        ("group", Criterion(assigner=ATSSAssigner())),
        ("group", task_aligned()),
    ],
)
def test_accumulated_single_images_are_one_batch(norm, criterion):
    images, targets = images_and_targets()
    start, whole, parts = (small_model(norm).double() for _ in range(3))
    (one,) = train(whole, [(images, targets)], criterion)
    (four,) = train(parts, [(images[i : i + 1], targets[i : i + 1]) for i in range(4)], criterion, accumulate=4)
    for name in ("loss", "loss_cls", "loss_box", "positives", "grad_norm", "images"):
        assert four[name] == pytest.approx(one[name], rel=1e-6), name
    assert (one["batches"], four["batches"]) == (1, 4)
    moved = 0
    for a, b, c in zip(start.parameters(), whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(c - a, b - a, rtol=1e-6, atol=1e-9)
        moved += (b - a).abs().sum().item()
    assert moved > 0


def test_soft_targets_divide_the_step_by_their_sum():
    images, targets = images_and_targets()
    model, criterion = small_model(), task_aligned()
    sizes = [target["size"] for target in targets]
    losses = criterion(model(images, sizes), targets)
    (record,) = train(model, [(images, targets)], criterion)
    assert 1 < losses["normaliser"] < losses["num_positives"] == record["positives"]
    for name in ("loss_cls", "loss_box"):
        assert record[name] == pytest.approx((losses[name] / losses["normaliser"]).item(), rel=1e-5)


def one_positive() -> tuple[torch.Tensor, list[dict]]:
    """Two images, one of which has a single object and one anchor that is positive for it."""
    images, targets = images_and_targets()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    single = {"boxes": targets[0]["boxes"][:1], "labels": torch.tensor([1])}
    return images[:2], [targets[0] | single, targets[1] | empty]


def _step_of_rank(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2)
    images, targets = one_positive()
    model = small_model().double()
    (record,) = train(model, [(images[rank : rank + 1], targets[rank : rank + 1])])
    torch.save({"positives": record["positives"], "model": model.state_dict()}, f"{directory}/{rank}.pt")
    dist.destroy_process_group()


def test_fewer_positives_than_processes_are_divided_as_in_one(tmp_path):
    """The average of what two processes do, one of them without an object, is what one does with both images."""
    mp.start_processes(_step_of_rank, args=(str(tmp_path),), nprocs=2, start_method="fork")  # spawn imports torch anew
    start, alone = small_model().double(), small_model().double()
    (record,) = train(alone, [one_positive()])
    assert record["positives"] == 1
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [rank["positives"] for rank in ranks] == [1, 1]
    before, after = start.state_dict(), alone.state_dict()
    for name in dict(start.named_parameters()):
        moved = sum(rank["model"][name] - before[name] for rank in ranks) / 2
        torch.testing.assert_close(moved, after[name] - before[name], rtol=1e-6, atol=1e-9)


def test_the_last_incomplete_group_also_steps():
    images, targets = images_and_targets()
    records = train(small_model(), [(images[i : i + 1], targets[i : i + 1]) for i in range(4)], accumulate=3)
    assert [(r["images"], r["batches"]) for r in records] == [(3, 3), (1, 4)]


def test_an_epoch_resumed_in_its_middle_ends_like_the_whole():
    images, targets = images_and_targets()

    class Rest(list):  # as Loader: iterates over what is left, its length is the whole epoch's
        def __len__(self):
            return 4

    rest = Rest([(images[3:], targets[3:])])
    records = train(small_model(), rest, accumulate=3, start=3)
    assert [(r["images"], r["batches"]) for r in records] == [(1, 4)]


def test_a_step_that_does_not_fit_is_done_in_parts_with_the_same_gradient(little_memory):
    images, targets = images_and_targets()
    start, whole, parts = (small_model().double() for _ in range(3))
    # the first batch of the step has given its gradient when the second runs out of memory
    batches = [(images[:1], targets[:1]), (images[1:], targets[1:])]
    (one,) = train(whole, batches, accumulate=2)
    model = little_memory(parts, limit=1)
    (split,) = train(model, batches, accumulate=2)
    assert model.seen == [1, 3, 1, 2, 1, 1, 1, 1]
    assert (one.pop("micro_batches"), split.pop("micro_batches")) == (1, 4)
    for name in ("loss", "loss_cls", "loss_box", "positives", "grad_norm", "images"):
        assert split[name] == pytest.approx(one[name], rel=1e-6), name
    for a, b, c in zip(start.parameters(), whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(c - a, b - a, rtol=1e-6, atol=1e-9)


def test_later_steps_stay_in_parts(little_memory):
    images, targets = images_and_targets()
    model = little_memory(small_model(), limit=2)
    records = train(model, [(images, targets)] * 2)
    assert model.seen == [4, 2, 2, 2, 2] and [r["micro_batches"] for r in records] == [2, 2]


def test_a_single_image_that_does_not_fit_is_an_error(little_memory):
    images, targets = images_and_targets()
    with pytest.raises(InputError, match="does not hold one image of 64x64 px; lower data.image_size"):
        train(little_memory(small_model(), limit=0), [(images, targets)])


def test_gradient_is_clipped():
    images, targets = images_and_targets()
    before, model = small_model(), small_model()
    (record,) = train(model, [(images, targets)], clip_norm=1e-3)
    assert record["grad_norm"] > 1e-3
    moved = [(b - a).flatten() for a, b in zip(before.parameters(), model.parameters(), strict=True)]
    assert torch.cat(moved).norm().item() == pytest.approx(1e-3, rel=1e-2)


def state_of(*parts) -> list[torch.Tensor]:
    return [value.clone() for part in parts for value in part.state_dict().values()]


class Planted(nn.Module):
    """A model whose output or gradient is not finite for images with a white corner, as long as it is `on`."""

    def __init__(self, model: nn.Module, where: str):
        super().__init__()
        self.model, self.where, self.on = model, where, False

    def forward(self, images, sizes):
        chosen = (images[:, 0, 0, 0] == 255).nonzero().flatten()
        outputs = self.model(images + torch.rand(()) * 0, sizes)  # draws, as dropout would
        if self.on and self.where == "loss":
            outputs["deltas"][chosen] = math.inf
        if self.on and self.where == "gradient":  # sqrt(0) is finite, its slope is not
            outputs["logits"][chosen] += (outputs["logits"][chosen] * 0).abs().sqrt()
        return outputs


@pytest.mark.parametrize(
    ("where", "micro_batches", "parts"),
    [("loss", 1, ["loss_box"]), ("loss", 2, ["loss_box"]), ("gradient", 1, ["gradient of loss_cls"])],
)
@pytest.mark.parametrize("assigner", [MaxIoUAssigner, ATSSAssigner, TaskAlignedAssigner])
def test_a_step_that_is_not_finite_is_named_and_leaves_no_trace(where, micro_batches, parts, assigner):
    images, targets = images_and_targets()
    images[:, 0, 0, 0] = torch.tensor([0, 255, 0, 255])
    model = Planted(small_model("batch"), where)
    criterion = Criterion(assigner=assigner(), classification=AdaptiveFocal(), statistics=ClassStatistics(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    options = {"device": torch.device("cpu"), "autocast": None, "micro_batches": micro_batches}
    steps = train_one_epoch(model, criterion, [(images, targets)] * 3, optimizer, schedule, scaler, **options)
    assert next(steps)["bad"] is None
    before, random, momentum = state_of(model, criterion), torch.get_rng_state(), str(optimizer.state_dict()["state"])
    model.on = True
    record = next(steps)
    assert record["bad"].image_ids == [101, 103] and record["bad"].parts == parts
    assert "loss" not in record and record["images"] == 4 and record["image_ids"] == [100, 101, 102, 103]
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(model, criterion), strict=True))
    assert torch.equal(random, torch.get_rng_state()) and momentum == str(optimizer.state_dict()["state"])
    model.on = False
    last = next(steps)
    assert last["bad"] is None and last["lr"] == 0.25e-3  # the schedule counts every step
    assert not all(torch.equal(a, b) for a, b in zip(before, state_of(model, criterion), strict=True))


def test_broken_weights_blame_every_image_with_an_object():
    images, targets = images_and_targets()
    model = small_model()
    model.head.regression_head.bbox_reg.bias.data.fill_(float("nan"))
    targets[2] = targets[2] | {"boxes": torch.zeros(0, 4)}  # no object, so no loss_box to be wrong
    (record,) = train(model, [(images, targets)])
    assert record["bad"].image_ids == [100, 101, 103] and record["bad"].parts == ["loss_box"]


class Half(Planted):
    """Whose outputs, and so their gradients, go through half precision, as under autocast on a GPU."""

    def forward(self, images, sizes):
        outputs = super().forward(images, sizes)
        return outputs | {key: outputs[key].half().float() for key in ("logits", "deltas")}


def scaled(model: nn.Module, init_scale: float, **options):
    """An endless training in which only half precision's scaler is unusual; and the scaler."""
    images, targets = images_and_targets()
    images[:, 0, 0, 0] = torch.tensor([0, 255, 0, 255])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, **options)
    steps = train_one_epoch(
        model, Criterion(assigner=MaxIoUAssigner()), [(images, targets)] * 100, optimizer, schedule, scaler,
        device=torch.device("cpu"), autocast=None,
    )  # fmt: skip
    return steps, scaler


def test_a_gradient_too_large_for_half_precision_is_the_scalers_affair():
    """Steps are skipped until the scale suits; none is bad."""
    model = Half(small_model(), "")
    before = state_of(model)
    steps, scaler = scaled(model, init_scale=2.0**24)
    scales = []
    for record in steps:
        assert record["bad"] is None
        scales.append(scaler.get_scale())
        if math.isfinite(record["grad_norm"]):
            break
        assert all(torch.equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    assert len(scales) > 2 and scales[:2] == [2.0**23, 2.0**22] and scales[-1] > 1
    assert math.isfinite(record["grad_norm"])
    assert not all(torch.equal(a, b) for a, b in zip(before, state_of(model), strict=True))


def test_a_gradient_that_is_nan_at_every_scale_is_a_bad_step():
    """Scaling less does not mend it: once the scale is 1 it is named, every time, and the scale stays."""
    model = Half(small_model("batch"), "gradient")
    steps, scaler = scaled(model, init_scale=8.0)
    assert next(steps)["bad"] is None and scaler.get_scale() == 8.0
    model.on = True
    skipped = [next(steps) for _ in range(3)]
    assert all(record["bad"] is None and not math.isfinite(record["grad_norm"]) for record in skipped)
    assert scaler.get_scale() == 1.0
    parameters = [p.clone() for p in model.parameters()]
    before = state_of(model)
    for record in (next(steps) for _ in range(4)):
        assert record["bad"].image_ids == [101, 103] and record["bad"].parts == ["gradient of loss_cls"]
        assert scaler.get_scale() == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    model.on = False
    record = next(steps)
    assert record["bad"] is None and math.isfinite(record["grad_norm"])
    assert not all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))


def test_the_scale_grows_again_after_bad_steps():
    model = Half(small_model(), "gradient")
    steps, scaler = scaled(model, init_scale=1.0, growth_interval=2)
    model.on = True
    assert [next(steps)["bad"] is not None for _ in range(3)] == [True] * 3 and scaler.get_scale() == 1.0
    model.on = False
    assert [next(steps)["bad"] for _ in range(4)] == [None] * 4 and scaler.get_scale() == 4.0


HALVES = ("classification_head", "regression_head")


@pytest.mark.parametrize(
    ("frozen", "where", "parts"),
    [
        ("regression_head", "loss", ["loss_box"]),  # the half is frozen; the pyramid below it would get its gradient
        ("classification_head", "loss", ["loss_box"]),
        ("regression_head", "gradient", ["gradient of loss_cls"]),
        ("classification_head", "gradient", ["gradient of loss_cls"]),
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_a_frozen_half_of_the_head(frozen, where, parts, below):
    """Whatever of it is not finite is named where it reaches a weight that is trained, and stops no good step.

    below: the backbone and the pyramid are frozen, too, so that the half's loss has no gradient at all.
    """
    images, targets = images_and_targets()
    images[:, 0, 0, 0] = torch.tensor([0, 255, 0, 255])
    model = Planted(small_model(), where)
    model.requires_grad_(not below)
    for half in HALVES:
        getattr(model.model.head, half).requires_grad_(half != frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    before, of_trained = state_of(model), [p.detach().clone() for p in trained]
    model.on = True
    (record,) = train(model, [(images, targets)])
    if below and where == "gradient" and frozen == "classification_head":  # where it would be, nothing is trained
        assert record["bad"] is None and math.isfinite(record["grad_norm"])
    else:
        assert record["bad"].image_ids == [101, 103] and record["bad"].parts == parts
        assert all(torch.equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    model.on = False
    (record,) = train(model, [(images, targets)])
    assert record["bad"] is None and math.isfinite(record["grad_norm"])
    assert not all(torch.equal(a, b) for a, b in zip(of_trained, trained, strict=True))
