"""The comparison of nested values sees every difference."""

import copy

import pytest
import torch

from detector.training.resume_proof.differences import unequal


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.update(a=2), [".a is 1 and 2"]),
        (lambda state: state.pop("a"), [".a is only in one"]),
        (lambda state: state["b"][1].mul_(-1), [".b[1] has other bits"]),  # -0 is not 0
        (lambda state: state["b"].append(3), [".b is "]),
        (lambda state: state.update(c=0), [".c is nan and 0"]),
        (lambda state: None, []),
    ],
)
def test_where_two_values_differ(change, expected):
    state = {"a": 1, "b": [2, torch.zeros(2)], "c": float("nan")}
    other = copy.deepcopy(state)
    change(other)
    found = list(unequal(state, other))
    assert len(found) == len(expected) and all(a.startswith(b) for a, b in zip(found, expected, strict=True))
