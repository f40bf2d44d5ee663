"""Going on when a file cannot be written."""

import pytest

from detector.utils.disk import warn_if_unwritable


def test_a_full_disk_becomes_a_warning():
    warnings = []
    with warn_if_unwritable("the report", warnings.append), open("/dev/full", "w") as file:
        file.write("x")
        file.flush()
    assert warnings == ["warning: the report could not be written: No space left on device"]


def test_nothing_else_is_passed_over():
    with pytest.raises(KeyError), warn_if_unwritable("the report", pytest.fail):
        raise KeyError
    with warn_if_unwritable("the report", pytest.fail):
        pass
