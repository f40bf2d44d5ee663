"""Folders that cannot be written to, and going on when a file cannot be written."""

import errno
from pathlib import Path

import pytest

from detector.utils.disk import check_writable, warn_if_unwritable
from detector.utils.errors import InputError


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(Path())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*: cannot be written to \(Not a directory\)"):
        check_writable(tmp_path / "file" / below)
    (tmp_path / "folder").mkdir()
    for number, said in ((errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only file system")):

        def refuse(dir, number=number, said=said):
            raise OSError(number, said, str(dir))

        monkeypatch.setattr("detector.utils.disk.TemporaryFile", refuse)
        with pytest.raises(InputError, match=rf"folder.*: cannot be written to \({said}\); make it writable, or name"):
            check_writable(tmp_path / "folder" / below)


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
