"""One seed for everything that draws at random in this process; samples have generators of their own."""

import os
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def set_deterministic(wanted: bool) -> None:
    """Whether only such algorithms are used as give the same bits each time. To be called before a GPU is used."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is none of them
    torch.use_deterministic_algorithms(wanted)


def random_state(device: torch.device) -> dict:
    """What the generators of this process will draw next, as tensors and plain numbers: for a checkpoint."""
    numpy = np.random.get_state(legacy=False)
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            **numpy,
            "state": {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64))},
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict, device: torch.device) -> None:
    """Draw on from what `random_state` gave; on another kind of device, that device's generator stays as it is."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy = state["numpy"]
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].numpy().astype(np.uint32)}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
