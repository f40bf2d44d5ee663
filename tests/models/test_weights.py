import urllib.error

import pytest
import torch
import torchvision

from detector.config import ModelConfig
from detector.models.build import build_model
from detector.models.head import prior_bias
from detector.models.weights import BBOX_REG, CLS_LOGITS, COCO_SLOTS, load_detector_weights, load_into, select_classes
from detector.utils.errors import InputError

ANCHORS_PER_CELL = 2


def layout(num_slots, anchors_per_cell=ANCHORS_PER_CELL):
    """The prediction layers of a state dict; every row of the logits holds its own number."""
    rows = torch.arange(float(anchors_per_cell * num_slots))
    return {
        f"{CLS_LOGITS}.weight": rows.view(-1, 1, 1, 1).repeat(1, 4, 3, 3),
        f"{CLS_LOGITS}.bias": rows.clone(),
        f"{BBOX_REG}.weight": torch.zeros(anchors_per_cell * 4, 4, 3, 3),
    }


def test_the_coco_layout_row_by_row():
    assert len(COCO_SLOTS) == 91
    names = ["zebra", "person", "toothbrush"]  # COCO's category ids 24, 1 and 90
    state = layout(91)
    picked, missing = select_classes(state, COCO_SLOTS, names)
    assert missing == []
    expected = [24, 1, 90, 91 + 24, 91 + 1, 91 + 90]
    assert picked[f"{CLS_LOGITS}.bias"].tolist() == expected
    assert picked[f"{CLS_LOGITS}.weight"].shape == (6, 4, 3, 3)
    for row, slot in enumerate(expected):
        assert (picked[f"{CLS_LOGITS}.weight"][row] == slot).all()
    assert picked[f"{BBOX_REG}.weight"] is state[f"{BBOX_REG}.weight"]
    assert len(state[f"{CLS_LOGITS}.bias"]) == 2 * 91


def test_unknown_classes_start_anew():
    state = layout(91, anchors_per_cell=9)
    picked, missing = select_classes(state, COCO_SLOTS, ["gnome", "cat", "N/A"], prior=0.02)
    assert missing == ["gnome", "N/A"]
    bias = picked[f"{CLS_LOGITS}.bias"].view(9, 3)
    torch.testing.assert_close(bias[:, [0, 2]], torch.full((9, 2), prior_bias(0.02)))
    assert bias[:, 1].tolist() == [91 * a + 17 for a in range(9)]
    weight = picked[f"{CLS_LOGITS}.weight"].view(9, 3, -1)
    assert 0.007 < weight[:, [0, 2]].std() < 0.013 and weight[:, [0, 2]].mean().abs() < 0.003


@pytest.mark.parametrize(("num_slots", "names"), [(91, COCO_SLOTS), (80, None), (3, None)])
def test_91_slots_are_cocos(num_slots, names, tmp_path):
    torch.save(layout(num_slots), tmp_path / "w.pth")
    assert load_detector_weights(str(tmp_path / "w.pth"))[1] == names


def small_model(num_classes, **changes):
    settings = {"backbone": {"name": "resnet18", "weights": None}, "fpn": {"channels": 16}, "head": {"width": 16}}
    return build_model(ModelConfig.model_validate({**settings, **changes}), num_classes)


def test_unknown_names_are_taken_in_order_if_their_number_fits(caplog):
    state = small_model(2).state_dict()
    model = small_model(2)
    assert load_into(model, state, None, ["a", "b"], source="own.pth") == []
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert "own.pth: class names unknown" in caplog.text
    with pytest.raises(InputError, match=r"own\.pth: its class names are unknown, and it has 2 classes where.* 3"):
        load_into(small_model(3), state, None, ["a", "b", "c"], source="own.pth")


def test_known_names_are_picked():
    state = small_model(91).state_dict()
    model = small_model(2)
    assert load_into(model, state, COCO_SLOTS, ["dog", "gnome"], source="w") == ["gnome"]
    rows = model.head.classification_head.cls_logits.weight.view(9, 2, -1)
    old = state[f"{CLS_LOGITS}.weight"].view(9, 91, -1)
    assert torch.equal(rows[:, 0], old[:, COCO_SLOTS.index("dog")])


def test_another_architecture_is_named_and_nothing_is_loaded():
    state = small_model(2, head={"width": 24}).state_dict()
    model = small_model(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_into(model, state, None, ["a", "b"], source="wide.pth")
    first = "head.classification_head.conv.0.0.weight (the model's: (16, 16, 3, 3), the file's: (24, 16, 3, 3))"
    assert "wide.pth: another architecture" in str(error.value) and first in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_extra_and_lacking_tensors_are_named():
    state = small_model(2).state_dict()
    state["head.extra"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"head\.extra \(the model's: none, the file's: \(1,\)\)"):
        load_into(small_model(2), state, None, ["a", "b"], source="w")


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("pickled code was executed",))


def test_pickled_code_is_refused(tmp_path):
    torch.save({"weights": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(InputError, match="refused"):
        load_detector_weights(str(tmp_path / "harmful.pth"))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 torn"])
def test_unreadable_files(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_detector_weights(str(tmp_path / name))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"conv1.weight": torch.zeros(1)}])
def test_other_contents(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: not"):
        load_detector_weights(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["RetinaNet_ResNet50_FPN_Weights", "RetinaNet_ResNet50_FPN_V2_Weights.COCO", "v2"])
def test_unknown_names_of_weights(name):
    with pytest.raises(InputError, match=r"valid: RetinaNet_ResNet50_FPN_Weights\.COCO_V1"):
        load_detector_weights(name)


@pytest.mark.parametrize("member", ["COCO_V1", "DEFAULT"])
def test_published_weights(member, monkeypatch):
    urls = []

    def download(url, **kwargs):
        urls.append(url)
        return layout(91)

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    assert load_detector_weights(f"RetinaNet_ResNet50_FPN_V2_Weights.{member}")[1] == COCO_SLOTS
    assert "retinanet_resnet50_fpn_v2_coco" in urls[0]


def test_without_a_network_a_local_file_is_proposed(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"cannot download https.*model\.weights to the local file"):
        load_detector_weights("RetinaNet_ResNet50_FPN_Weights.COCO_V1")
