"""Files that are replaced completely or not at all."""

import os

import pytest

from detector.utils.atomic import replacing, write_atomically


def test_the_target_of_a_link_is_replaced_and_flushed(tmp_path, monkeypatch):
    file, link = tmp_path / "a.txt", tmp_path / "link"
    link.symlink_to(file)
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_atomically(link, "text \ud800")
    assert link.is_symlink() and file.read_text() == "text ?" and len(synced) == 1


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_contents_and_no_temporary_file(tmp_path, problem):
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(type(problem)), replacing(file) as out:
        out.write(b"aft")
        raise problem
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_the_error_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device.*a.txt"), replacing(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
