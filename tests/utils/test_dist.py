"""The loss normaliser over several processes: two of them, on the CPU."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.classification.focal import Focal
from detector.losses.criterion import Criterion
from detector.utils.dist import mean_across_processes, world_size


def test_alone_it_is_the_identity():
    assert world_size() == 1
    assert mean_across_processes(torch.tensor(3.0)).item() == 3


def _losses_of_rank(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    outputs = {"logits": torch.zeros(1, 2, 1), "deltas": torch.zeros(1, 2, 4), "anchors": anchors}
    boxes = anchors[: 2 * rank]  # no object for the first process, two for the second
    targets = [{"boxes": boxes.clone(), "labels": torch.zeros(len(boxes), dtype=torch.int64)}]
    losses = Criterion(assigner=MaxIoUAssigner(), classification=Focal(alpha=None, gamma=0))(outputs, targets)
    assert losses["num_positives"].item() == 2 * rank
    normaliser = mean_across_processes(losses["num_positives"]).clamp(min=1)
    assert normaliser.item() == 1  # two in all, shared by two processes
    assert abs((losses["loss_cls"] / normaliser).item() - 2 * 0.693147) < 1e-5
    dist.destroy_process_group()


def test_positives_of_the_global_batch(tmp_path):
    mp.spawn(_losses_of_rank, args=(str(tmp_path / "store"),), nprocs=2)
