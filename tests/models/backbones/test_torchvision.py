import urllib.error

import pytest
import safetensors.torch
import torch
import torchvision
import torchvision.models.feature_extraction
from torch import nn

from detector.models.backbones.torchvision import BACKBONES, build_torchvision_backbone
from detector.models.norm import FrozenBatchNorm2d, GroupNorm, group_norm
from detector.utils.errors import InputError


def build(name="resnet18", weights=None, norm="frozen"):
    return build_torchvision_backbone(name, weights=weights, norm=norm, finest_stride=8)


def with_random_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            # small enough for the eps to matter
            nn.init.uniform_(module.running_var, 0.01, 1.0)
    return network.eval()


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_levels(name):
    images = torch.randn(1, 3, 64, 96)
    backbone = build(name).eval()
    features = list(backbone(images).values())
    assert [f.shape[1] for f in features] == backbone.channels
    assert [tuple(f.shape[2:]) for f in features] == [(8, 12), (4, 6), (2, 3)]

    finer = build_torchvision_backbone(name, weights=None, norm="frozen", finest_stride=4).eval()
    finer.load_state_dict(backbone.state_dict())  # C2 has no parameters of its own
    c2, *others = finer(images).values()
    assert finer.channels == [c2.shape[1], *backbone.channels] and c2.shape[2:] == (16, 24)
    assert all(torch.equal(one, other) for one, other in zip(others, features, strict=True))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_reads_a_local_classification_file(name, suffix, tmp_path):
    torch.manual_seed(0)
    network = with_random_statistics(torchvision.models.get_model(name, weights=None, num_classes=7))
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(network.state_dict(), tmp_path / f"w{suffix}")
    images = torch.randn(1, 3, 64, 64)
    trunk = torchvision.models.feature_extraction.create_feature_extractor(
        network, {"features.16" if name.startswith("mobilenet") else "layer4": "c5"}
    )
    expected = trunk(images)["c5"]
    for norm in ("frozen", "batch"):
        backbone = build(name, weights=str(tmp_path / f"w{suffix}"), norm=norm).eval()
        torch.testing.assert_close(backbone(images)["2"], expected, rtol=0, atol=1e-3 * expected.abs().max().item())


def test_frozen_norms_do_not_move():
    backbone = build(norm="frozen").train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    assert len(before) == 4 * 20
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1.0)
    backbone(torch.randn(2, 3, 64, 64))["2"].mean().backward()
    optimizer.step()
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())
    assert not any("bn" in name for name, _ in backbone.named_parameters())


def test_frozen_norm_keeps_dtype_and_layout():
    norm = FrozenBatchNorm2d(8)
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.bfloat16):
        y = norm(x.to(dtype))
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("frozen", FrozenBatchNorm2d),
        ("batch", nn.BatchNorm2d),
        ("sync", nn.SyncBatchNorm),
        ("group", GroupNorm),
    ],
)
def test_norms(norm, kind):
    layers = [m for m in build(norm=norm).modules() if "Norm" in type(m).__name__]
    assert len(layers) == 20 and all(type(layer) is kind for layer in layers)


def test_group_norm_divides_the_channels():
    assert [group_norm(channels).num_groups for channels in (256, 64, 72, 40, 7)] == [32, 32, 8, 8, 1]


@pytest.mark.parametrize(
    ("name", "stem", "stages", "before_stride_8"),
    [
        (
            "resnet18",
            ["conv1", "bn1", "relu", "maxpool"],
            ["layer1", "layer2", "layer3", "layer4"],
            ["stem", "layer1"],
        ),
        ("mobilenet_v3_large", ["0"], [str(i) for i in range(1, 17)], ["stem", "1", "2", "3"]),
    ],
)
def test_stages(name, stem, stages, before_stride_8):
    backbone = build(name)
    assert backbone.stages == {"stem": stem, **{stage: [stage] for stage in stages}}
    assert list(backbone.stages) == ["stem", *stages]
    assert backbone.before_stride_8 == before_stride_8


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
@torch.no_grad()
def test_stride_8_begins_after_before_stride_8(name):
    backbone = build(name).eval()
    x = torch.zeros(1, 3, 64, 64)
    for stage, modules in backbone.stages.items():
        for module in modules:
            x = backbone.get_submodule(module)(x)
        assert (x.shape[-1] > 8) == (stage in backbone.before_stride_8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet5"}, "model.backbone.name: no 'resnet5'; did you mean 'resnet50'?"),
        ({"name": "convnext_tiny"}, "no 'convnext_tiny'; there is: resnet18, .*, timm/<any network of timm>"),
        ({"weights": "IMAGENET"}, "model.backbone.weights: resnet18 has no 'IMAGENET'; valid: IMAGENET1K_V1, DEFAULT"),
        ({"weights": "nowhere/r18.pth"}, "nowhere/r18.pth: no such weights file"),
        ({"weights": "DEFAULT", "norm": "group"}, "model.backbone.norm: group cannot start from weights"),
    ],
)
def test_errors_name_what_is_valid(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_another_architectures_file(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "r34.pth")
    with pytest.raises(InputError, match=r"another architecture.*layer1\.2\.conv1\.weight"):
        build(weights=str(tmp_path / "r34.pth"))


def test_without_a_network_a_local_file_is_proposed(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"cannot download https.*no route.*model\.backbone\.weights.*local file"):
        build(weights="ResNet18_Weights.DEFAULT")
