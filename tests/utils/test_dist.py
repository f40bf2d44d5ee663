"""Sums over processes: in a single one, and over two on the CPU."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detector.utils.dist import sum_across_processes, world_size


def test_a_single_process_gets_its_own_value():
    assert world_size() == 1
    assert sum_across_processes(torch.tensor(3.0)).item() == 3


def _check_on_rank(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    value = torch.tensor([1.0, 2 * rank])
    assert world_size() == 2
    assert sum_across_processes(value).tolist() == [2, 2]
    assert value.tolist() == [1, 2 * rank]  # the argument is left alone
    dist.destroy_process_group()


def test_every_process_gets_the_sum(tmp_path):
    # forked, because a spawned process would import torch anew
    mp.start_processes(_check_on_rank, args=(str(tmp_path / "store"),), nprocs=2, start_method="fork")
