import random

import numpy as np
import torch

from detector.utils.randomness import random_state, seed_everything, set_random_state


def test_restored_generators_draw_the_same_numbers(tmp_path):
    def draws() -> list[float]:
        return [random.gauss(0, 1), np.random.normal(), torch.randn(()).item(), random.random(), np.random.rand()]

    seed_everything(3)
    draws()  # Python and NumPy keep a second normal number, which must be restored
    torch.save(random_state(torch.device("cpu")), tmp_path / "random.pt")
    expected = draws()
    assert draws() != expected
    set_random_state(torch.load(tmp_path / "random.pt", weights_only=True), torch.device("cpu"))
    assert draws() == expected
