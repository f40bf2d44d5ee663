import argparse
import pickle

import pytest
import safetensors.torch
import torch

from detector.models.state_dict import is_file_name, load_strictly, read_file, read_state_dict
from detector.utils.errors import InputError

STATE = {"a.weight": torch.arange(3.0), "b.bias": torch.ones(2)}


def read_back(contents, path):
    torch.save(contents, path)
    return read_state_dict(path)


@pytest.mark.parametrize("key", ["model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_wrapped_state_dict(key, prefix, tmp_path):
    wrapped = {prefix + name: tensor for name, tensor in STATE.items()}
    beside = {"epoch": 3, "optimizer": {"state": [torch.zeros(1)]}, "note": "x"}
    for contents in ({key: wrapped, **beside}, wrapped):
        found = read_back(contents, tmp_path / "w.pth")
        assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_prefix_that_not_all_names_have_is_kept(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_back(state, tmp_path / "w.pth").keys() == state.keys()


def test_the_command_line_that_torchvisions_scripts_save_is_no_code(tmp_path):
    args = argparse.Namespace(lr=0.01, data_path="/data", opts=[1, None])
    assert read_back({"model": STATE, "args": args}, tmp_path / "w.pth").keys() == STATE.keys()


def test_safetensors(tmp_path):
    safetensors.torch.save_file(
        {f"module.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "w.safetensors"
    )
    assert read_state_dict(tmp_path / "w.safetensors").keys() == STATE.keys()


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("pickled code was executed",))


@pytest.mark.parametrize(
    "contents", [{"weights": Harmful()}, {"model": STATE, "args": argparse.Namespace(x=Harmful())}]
)
def test_pickled_code_is_refused(contents, tmp_path):
    torch.save(contents, tmp_path / "harmful.pth")
    with pytest.raises(InputError, match=r"harmful\.pth: not a file of plain tensors; refused"):
        read_file(tmp_path / "harmful.pth")


@pytest.mark.parametrize("contents", [Harmful(), {"model": STATE["a.weight"].numpy(), "__author__": "Detectron2"}])
def test_a_pickle_is_to_be_saved_anew(contents, tmp_path):
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps(contents))
    assert is_file_name(path.name)
    with pytest.raises(InputError, match=r"model_final\.pkl: a pickle.*refused.*torch\.save"):
        read_file(path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 torn"])
def test_unreadable_files(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("contents", [[1, 2], {"epoch": 3}, {}, {"model": {}}, {1: torch.zeros(1)}, {"model": "x"}])
def test_other_contents(contents, tmp_path):
    with pytest.raises(InputError, match=r"w\.pth: not a state dict"):
        read_back(contents, tmp_path / "w.pth")


def test_another_architecture_is_named_and_nothing_is_loaded():
    layer = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    given = {
        "0.weight": torch.zeros(2),
        "0.bias": torch.zeros(3),
        "1": torch.zeros(1),
        "0.running_mean": torch.zeros(2),
    }
    with pytest.raises(InputError) as error:
        load_strictly(layer, given, source="w.pth")
    assert str(error.value) == (
        "w.pth: another architecture than the configured one, in 3 tensors: "
        "0.bias (the model's: (2,), the file's: (3,)); 0.running_var (the model's: (2,), the file's: none); "
        "1 (the model's: none, the file's: (1,))"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_step_counter_may_be_missing_but_is_a_number():
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    state = norm.state_dict()
    load_strictly(norm, {name: tensor for name, tensor in state.items() if "num" not in name}, source="a.pt")
    with pytest.raises(InputError, match=r"num_batches_tracked \(the model's: \(\), the file's: \(2,\)\)"):
        load_strictly(norm, {**state, "0.num_batches_tracked": torch.zeros(2)}, source="a.pt")
