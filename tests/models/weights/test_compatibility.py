import pytest
import torch
import torchvision

from detector.models.weights import compatibility
from detector.models.weights.compatibility import check_backbone
from detector.models.weights.layouts import Weights, recognised
from detector.models.weights.transfer import transfer
from detector.utils.errors import InputError


def network(name):
    return recognised(torchvision.models.get_model(name, weights=None).state_dict(), "w.pth")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet50", "these are the weights of model.backbone.name=resnet50; first that differ: "
                     "backbone.body.layer1.0.conv1.weight (the model's: (64, 64, 3, 3), the file's: (64, 64, 1, 1)); "),
        ("mobilenet_v3_large", "these are the weights of model.backbone.name=mobilenet_v3_large; first that differ: "
                               "backbone.body.conv1.weight (the model's: (64, 3, 7, 7), the file's: none); "),
        ("squeezenet1_1", "it is no checkpoint of this project, no RetinaNet in torchvision's or detectron2's layout, "
                          "no ImageNet network with the backbone's names, as it has features.0.weight, "
                          "features.0.bias, features.3.squeeze.weight and "),
    ],
)  # fmt: skip
def test_another_network_is_refused_and_named(name, hint, small_model):
    model = small_model(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        transfer(model, network(name), ["a", "b"])
    assert str(error.value).startswith("w.pth: another backbone than the configured one: ")
    assert hint in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_larger_sister_is_another_network(small_model):
    """Though more than a half of each is the other's: ResNet-34 is ResNet-18 with more blocks."""
    with pytest.raises(InputError) as error:
        transfer(small_model(2), network("resnet34"), ["a", "b"])
    assert str(error.value).startswith(
        "w.pth: another backbone than the configured one: 100% of the model's and 53% of the file's fits; these are "
        "the weights of model.backbone.name=resnet34; first that differ: backbone.body.layer1.2.conv1.weight "
        "(the model's: none, the file's: (64, 64, 3, 3)); "
    )


def test_a_network_with_a_part_missing_is_warned_of(small_model):
    state = torchvision.models.resnet18(weights=None).state_dict()
    part = {name: tensor for name, tensor in state.items() if "layer4.1.conv2" not in name}
    (warning,) = transfer(small_model(2), recognised(part, "w.pth"), ["a", "b"]).warnings
    assert warning.startswith(
        "79% of the backbone is loaded, 100% of the file's; first that differ: backbone.body.layer4.1.conv2.weight "
        "(the model's: (512, 512, 3, 3), the file's: none)"
    )


def body(**tensors):
    return {f"backbone.body.{name}": torch.zeros(numbers) for name, numbers in tensors.items()}


WEIGHTS = Weights("w.pth", "", {})


@pytest.mark.parametrize(
    ("own", "given", "fits"),
    [
        ({"a": 50, "b": 50}, {"a": 50}, True),
        ({"a": 49, "b": 51}, {"a": 49}, False),
        ({"a": 50}, {"a": 50, "b": 50}, True),
        ({"a": 49}, {"a": 49, "b": 51}, False),
        ({"a": 60, "b": 40}, {"a": 61, "b": 40}, False),
        ({"a": 50}, {}, False),
    ],
)
def test_half_of_the_numbers_must_fit_on_both_sides(own, given, fits, monkeypatch):
    monkeypatch.setattr(compatibility, "BACKBONES", {})  # building them all takes a while
    own, given = body(**own), {**body(**given), "head.other": torch.zeros(1000)}
    if fits:
        assert len(check_backbone(own, given, WEIGHTS)) == 1
    else:
        with pytest.raises(InputError, match="w.pth: another backbone"):
            check_backbone(own, given, WEIGHTS)


def test_integers_do_not_count(monkeypatch):
    monkeypatch.setattr(compatibility, "BACKBONES", {})
    own = body(a=1)
    (warning,) = check_backbone(own, own | {"backbone.body.i": torch.zeros(9, dtype=torch.int64)}, WEIGHTS)
    assert warning.startswith("100% of the backbone is loaded, 100% of the file's")


def test_norms_of_another_kind(small_model):
    group = {"name": "resnet18", "weights": None, "norm": "group"}
    batch = recognised(small_model(2).state_dict(), "b.pth")
    with pytest.raises(
        InputError, match=r"b\.pth: its backbone has running statistics; set model\.backbone\.norm to frozen,"
    ):
        transfer(small_model(2, backbone=group), batch, ["a", "b"])
    with pytest.raises(InputError, match=r"g\.pth: its backbone has no running statistics; .* to group"):
        transfer(small_model(2), recognised(small_model(2, backbone=group).state_dict(), "g.pth"), ["a", "b"])
