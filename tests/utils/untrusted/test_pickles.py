"""What a pickle would build is told from its operations."""

import io
import pickle
from collections import OrderedDict

import pytest

from detector.utils.untrusted.pickles import max_values_and_names


def measured(*values, limit=10**9):
    return max_values_and_names([io.BytesIO(pickle.dumps(value, protocol=2)) for value in values], limit)


def test_nested_values_are_counted():
    assert measured(5) == (1, set())
    assert measured((5, 6)) == (3, set())
    assert measured(((5, 6), 7)) == (5, set())
    assert measured(5, (5, 6), 7)[0] == 3  # the largest of several pickles


def test_a_value_counts_wherever_it_stands():
    value = 0.5
    for _ in range(20):
        value = (value, value)
    assert measured(value)[0] == 2**21 - 1
    assert measured(value, limit=1000)[0] == 1000


def test_names():
    assert measured(OrderedDict)[1] == {"collections OrderedDict"}
    assert measured("os system")[1] == set()


@pytest.mark.parametrize("damaged", [b"", b"\x80\x02", b"\x80\x02h\x05.", b"\x80\x02\x85.", b"\x80\x02(\x85."])
def test_damaged(damaged):
    with pytest.raises((ValueError, IndexError, KeyError, TypeError)):
        max_values_and_names([io.BytesIO(damaged)], 10)
