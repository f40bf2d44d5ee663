"""What is saved in the background, and what becomes of it where the disk is full."""

import errno
import threading
from pathlib import Path

import pytest
import torch

from detector import checkpoint
from detector.config.file import load_config
from detector.data.split import read_split
from detector.training.directory import RunDirectory
from detector.training.log import RunLog
from detector.training.saver import Saver, copied
from detector.utils.errors import RunError


@pytest.fixture
def saver(tiny_config, tmp_path):
    config = load_config(tiny_config)
    directory = RunDirectory(tmp_path / "run")
    log = directory.open_log()
    saver = Saver(directory, log, config, *(read_split(config, name) for name in ("train", "val")))
    yield saver
    saver.close()
    log.close()


@pytest.fixture
def full_disk(monkeypatch):
    """A set of names of checkpoints that the disk has no room for."""

    def save(path: Path, state: dict, keep: int = 0) -> None:
        if path.name in names:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, state, keep)

    names, real = set(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save)
    return names


def test_a_checkpoint_is_of_the_moment_it_was_begun(saver, tmp_path, monkeypatch):
    may_go_on = threading.Event()
    monkeypatch.setattr(RunLog, "flush", lambda log: may_go_on.wait())
    weight = torch.zeros(3, 4, 5, 6).to(memory_format=torch.channels_last)
    saver.save_last({"model": {"weight": weight}})
    weight += 1
    file = tmp_path / "run/checkpoints/last.pt"
    assert not file.exists()
    may_go_on.set()
    assert saver.wait()
    found = checkpoint.load(file)
    assert found["model"]["weight"].sum() == 0 and found["model"]["weight"].stride() == weight.stride()
    assert (found["class_names"], found["category_ids"], found["num_images"]) == (["dark", "light"], [3, 7], 6)


def test_a_full_disk_is_reported_once_and_the_next_checkpoint_is_written(saver, full_disk, tmp_path, capsys):
    full_disk.add("last.pt")
    saver.save_last({"model": {}})
    assert not saver.wait() and saver.wait()
    assert capsys.readouterr().out.count("could not be saved (No space left on device)") == 1
    full_disk.clear()
    saver.save_last({"model": {}})
    assert saver.wait() and (tmp_path / "run/checkpoints/last.pt").exists()


def test_the_best_checkpoint_waits_in_memory_for_room(saver, full_disk, tmp_path):
    weight, written = torch.zeros(2), []
    full_disk.add("best.pt")
    saver.remember_best({"model": {"weight": weight}}, lambda: written.append("figures"))
    saver.save_best()
    weight += 1  # the training goes on
    full_disk.clear()
    saver.save_best()
    best = tmp_path / "run/checkpoints/best.pt"
    assert checkpoint.load(best)["model"]["weight"].sum() == 0 and written == ["figures"]
    best.unlink()
    saver.save_best()
    assert not best.exists()  # once is enough


def test_the_end_of_a_training_must_be_saved(saver, full_disk):
    saver.finish({"model": {}})
    full_disk.add("last.pt")
    saver.save_last({"model": {}})
    with pytest.raises(RunError, match="the last checkpoint could not be saved, see above; make room"):
        saver.finish({"model": {}})
    full_disk.symmetric_difference_update({"last.pt", "best.pt"})
    saver.remember_best({"model": {}}, lambda: None)
    with pytest.raises(RunError, match="the best checkpoint or its figures could not be saved"):
        saver.finish({"model": {}})


def test_copies_share_no_tensor():
    tensor = torch.zeros(2)
    state = {"a": [tensor, (tensor, 3)], "b": "text"}
    copy = copied(state)
    tensor += 1
    assert copy["a"][0].sum() == 0 and copy["a"][1][0].sum() == 0 and copy["a"][1][1] == 3 and copy["b"] == "text"
