"""timm's networks as backbones, beside what timm's own classification networks compute from the same file."""

import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from detector.config.model import ModelConfig
from detector.models import freeze
from detector.models.backbones.timm import build_timm_backbone
from detector.models.build import build_model
from detector.models.norm import FrozenBatchNorm2d, freeze_batch_norms
from detector.models.state_dict import load_strictly
from detector.models.weights.layouts import Weights, recognised
from detector.models.weights.transfer import transfer
from detector.training.optim import parameter_groups
from detector.utils.errors import InputError

timm = pytest.importorskip("timm")

# with the layers of the classification network that put out C3, C4 and C5
NETWORKS = {
    "convnext_atto": ["stages.1", "stages.2", "stages.3"],
    "resnet10t": ["layer2", "layer3", "layer4"],
    "mobilenetv3_small_050": ["blocks.1", "blocks.3", "blocks.5"],
    "mambaout_femto": ["stages.1", "stages.2", "stages.3"],  # (N, H, W, C) inside
}


def build(name="resnet10t", weights=None, norm="batch"):
    return build_timm_backbone(name, weights=weights, norm=norm, finest_stride=8)


def classifier(name, **kwargs):
    """A network that has seen data: its norms differ from what they start as."""
    network = timm.create_model(name, **kwargs)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.01, 1.0)  # small enough for the eps to matter
    return network.eval()


def outputs_of(network, layers, images):
    """What the layers put out, by hooks."""
    seen = {}
    for layer in layers:
        network.get_submodule(layer).register_forward_hook(lambda _, __, out, layer=layer: seen.update({layer: out}))
    network(images)
    return [seen[layer] for layer in layers]


def config(neck=None, **backbone):
    sizes = {"neck": {"channels": 16, **(neck or {})}, "head": {"width": 16, "depth": 1}}
    return ModelConfig.model_validate({"backbone": {"weights": None, **backbone}, **sizes})


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_levels(name):
    backbone = build(name).eval()
    for layout in (torch.contiguous_format, torch.channels_last):
        features = backbone(torch.zeros(2, 3, 64, 96).to(memory_format=layout))
        assert list(features) == ["0", "1", "2"] and backbone.stride == 32
        assert [tuple(f.shape[1:]) for f in features.values()] == [
            (channels, 64 // stride, 96 // stride)
            for channels, stride in zip(backbone.channels, (8, 16, 32), strict=True)
        ]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_reads_a_local_classification_file(name, tmp_path):
    torch.manual_seed(0)
    network = classifier(name, num_classes=7)
    images = torch.randn(1, 3, 64, 64)
    expected = outputs_of(network, NETWORKS[name], images)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    for norm, suffix in (("frozen", "pth"), ("batch", "safetensors"), ("sync", "pth")):
        backbone = build(name, weights=str(tmp_path / f"w.{suffix}"), norm=norm).eval()
        for ours, theirs in zip(backbone(images).values(), expected, strict=True):
            theirs = theirs.movedim(-1, 1) if name == "mambaout_femto" else theirs
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("name", ["convnext_atto", "resnet10t", "mambaout_femto"])
@torch.no_grad()
def test_c2_is_another_output_of_the_same_network(name):
    images = torch.randn(1, 3, 64, 96)
    backbone, finer = build(name).eval(), build_timm_backbone(name, weights=None, norm="batch", finest_stride=4).eval()
    finer.load_state_dict(backbone.state_dict())
    c2, *others = finer(images).values()
    assert finer.channels == [c2.shape[1], *backbone.channels] and c2.shape[2:] == (16, 24)
    assert (finer.stages, finer.before_stride_8) == (backbone.stages, backbone.before_stride_8)
    assert all(torch.equal(one, other) for one, other in zip(others, backbone(images).values(), strict=True))


def test_trying_image_sizes_leaves_no_trace():
    backbone = build()
    assert all(module.training for module in backbone.modules())
    assert not any(buffer.any() for name, buffer in backbone.named_buffers() if "running_var" not in name)


@torch.no_grad()
def test_windows_take_any_multiple_of_the_stride():
    backbone = build("swin_tiny_patch4_window7_224").eval()
    assert [tuple(f.shape[1:]) for f in backbone(torch.zeros(1, 3, 32, 160)).values()] == [
        (192, 4, 20),
        (384, 2, 10),
        (768, 1, 5),
    ]


def test_a_network_of_even_cells_wants_larger_multiples():
    assert build("mobilevitv2_050").stride == 64


@pytest.mark.parametrize(
    ("name", "stages", "before_stride_8"),
    [
        (
            "convnext_atto",
            {"stem": ["stem_0", "stem_1"]} | {f"stages_{i}": [f"stages_{i}"] for i in range(4)},
            ["stem", "stages_0"],
        ),
        (
            "resnet10t",
            {"stem": ["conv1", "bn1", "act1", "maxpool"]} | {f"layer{i}": [f"layer{i}"] for i in range(1, 5)},
            ["stem", "layer1"],
        ),
        (
            "mobilenetv3_small_050",
            {"stem": ["conv_stem", "bn1", "act1"]} | {f"blocks_{i}": [f"blocks.{i}"] for i in range(6)},
            ["stem", "blocks_0"],
        ),
    ],
)
@torch.no_grad()
def test_stages(name, stages, before_stride_8):
    backbone = build(name).eval()
    assert backbone.stages == {stage: [f"net.{module}" for module in modules] for stage, modules in stages.items()}
    assert list(backbone.stages) == list(stages)
    assert backbone.before_stride_8 == before_stride_8
    x = torch.zeros(1, 3, 64, 64)
    for stage, modules in backbone.stages.items():
        for module in modules:
            x = backbone.get_submodule(module)(x)
        assert (x.shape[-1] > 8) == (stage in before_stride_8)
    torch.testing.assert_close(x, backbone(torch.zeros(1, 3, 64, 64))["2"])


def test_the_stem_ends_at_stride_4():
    """densenet: what stands between two blocks belongs to the first, and the numbers of its stem are no stages."""
    stages = build("densenet121").stages
    assert list(stages) == ["stem", *(f"features_denseblock{i}" for i in range(1, 5))]
    assert stages["features_denseblock1"] == ["net.features_denseblock1", "net.features_transition1"]


class TestNorms:
    @pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
    def test_frozen_norms_do_not_move(self, name):
        backbone = build(name, norm="frozen").train()
        before = {key: buffer.clone() for key, buffer in backbone.named_buffers()}
        norms = [m for m in backbone.modules() if "BatchNorm" in type(m).__name__]
        assert len(before) == 4 * len(norms) > 0
        optimizer = torch.optim.SGD(backbone.parameters(), lr=1.0)
        backbone(torch.randn(2, 3, 64, 64))["2"].mean().backward()
        optimizer.step()
        assert all(torch.equal(buffer, before[key]) for key, buffer in backbone.named_buffers())
        assert all(isinstance(m, FrozenBatchNorm2d) and not list(m.parameters()) for m in norms)

    @torch.no_grad()
    def test_freezing_what_is_no_image(self):
        network = nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4))
        network[1].running_mean += torch.arange(4)
        x = torch.randn(2, 3, 5)
        expected = network.eval()(x)
        freeze_batch_norms(network)
        torch.testing.assert_close(network.train()(x), expected)

    @pytest.mark.parametrize("name", ["convnext_atto", "resnet10t", "mobilenetv3_small_050"])
    def test_a_state_fits_all_norms(self, name):
        state = build(name, norm="batch").state_dict()
        for norm in ("frozen", "sync"):
            load_strictly(build(name, norm=norm), state, source="batch")

    def test_sync(self):
        kinds = {type(m) for m in build(norm="sync").modules() if "Norm" in type(m).__name__}
        assert kinds and all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)

    def test_layer_norms_are_trained_whatever_the_setting(self):
        names = {name for name, p in build("convnext_atto", norm="frozen").named_parameters() if p.requires_grad}
        assert names == {name for name, _ in build("convnext_atto").named_parameters()}
        assert any("norm" in name for name in names)

    @torch.no_grad()
    def test_frozen_norms_keep_bfloat16(self):
        backbone = build(norm="frozen")
        with torch.autocast("cpu", torch.bfloat16):
            features = backbone(torch.randn(1, 3, 64, 64).to(memory_format=torch.channels_last))
        assert {f.dtype for f in features.values()} == {torch.bfloat16}


class TestFeatureNorms:
    """LayerNorms between ConvNeXt or Swin and the neck, as in mmpretrain and mmdetection."""

    @pytest.mark.parametrize(("finest", "levels"), [("p3", ["c3", "c4", "c5"]), ("p2", ["c2", "c3", "c4", "c5"])])
    def test_the_neck_gets_normalised_features(self, finest, levels):
        model = build_model(config(name="timm/convnext_atto", neck={"finest": finest}), num_classes=1)
        for norm in model.backbone["norms"].values():
            nn.init.normal_(norm.weight, 1.0, 0.5)
            nn.init.normal_(norm.bias)
        given = []
        model.neck.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
        images = torch.randn(2, 3, 64, 96)
        model.pyramid(images)
        assert list(model.backbone["norms"]) == levels
        for norm, x, got in zip(
            model.backbone["norms"].values(), model.body(images).values(), given[0].values(), strict=True
        ):
            variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
            expected = (x - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    def test_they_start_as_plain_normalisation_and_are_trained_as_what_is_new(self):
        model = build_model(config(name="timm/convnext_atto"), num_classes=1)
        norms = {name: p for name, p in model.named_parameters() if name.startswith("backbone.norms.")}
        assert list(norms) == [f"backbone.norms.c{level}.{kind}" for level in (3, 4, 5) for kind in ("weight", "bias")]
        assert all((p == name.endswith("weight")).all() for name, p in norms.items())
        groups = parameter_groups(model, lr=1.0, weight_decay=0.1, backbone_lr_factor=0.1)
        settings = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
        assert {settings[id(p)] for p in norms.values()} == {(1.0, 0.0)}
        freeze.set_frozen(model, ["backbone"], {}, epoch=1)
        assert all(p.requires_grad for p in norms.values())
        freeze.set_frozen(model, ["neck"], {}, epoch=1)
        assert not any(p.requires_grad for p in norms.values())

    @pytest.mark.parametrize(
        "name", ["convnextv2_atto", "swin_s3_tiny_224", "swinv2_tiny_window8_256", "edgenext_xx_small"]
    )
    def test_what_has_them(self, name):
        assert build(name).norm_eps == (1e-5 if name.startswith("swin") else 1e-6)

    @pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "mambaout_femto"])
    def test_what_has_none(self, name):
        model = build_model(config(name=f"timm/{name}"), num_classes=1)
        assert not any("norms" in key for key in model.state_dict())

    def test_weights_of_a_classification_network_leave_them_fresh(self):
        model = build_model(config(name="timm/convnext_atto"), num_classes=1)
        found = transfer(model, recognised(classifier("convnext_atto").state_dict(), "atto.pth"), ["a"])
        assert {name for name in found.fresh if "norms" in name} == {
            name for name in model.state_dict() if name.startswith("backbone.norms.")
        }
        assert found.warnings == [] and found.tensors["neck"]["initialised"] == 6 + 16
        again = build_model(config(name="timm/convnext_atto"), num_classes=1)
        checkpoint = Weights("old.pt", "a checkpoint", model.state_dict(), 1, ["a"], {"a": 1})
        nn.init.normal_(checkpoint.state["backbone.norms.c4.bias"])
        assert transfer(again, checkpoint, ["a"]).fresh == set()
        assert torch.equal(again.backbone["norms"]["c4"].bias, checkpoint.state["backbone.norms.c4.bias"])


class TestPublishedWeights:
    def test_default(self, monkeypatch):
        published = classifier("resnet10t")
        create = timm.create_model
        monkeypatch.setattr(
            timm, "create_model", lambda name, **kw: published if kw.get("pretrained") else create(name, **kw)
        )
        backbone = build(weights="DEFAULT").eval()
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(backbone(images)["2"], published.forward_features(images))

    def test_without_a_network_a_local_file_is_proposed(self, monkeypatch):
        create = timm.create_model

        def offline(name, **kwargs):
            if kwargs.get("pretrained"):
                raise OSError("no route to host\nmore")
            return create(name, **kwargs)

        monkeypatch.setattr(timm, "create_model", offline)
        with pytest.raises(InputError, match=r"resnet10t \(no route to host\).*/timm/resnet10t.*backbone\.weights"):
            build(weights="DEFAULT")

    def test_another_architectures_file(self, tmp_path):
        torch.save(timm.create_model("resnet14t").state_dict(), tmp_path / "r14.pth")
        with pytest.raises(InputError, match=r"another architecture.*net\.layer1\.0\.conv1\.weight"):
            build(weights=str(tmp_path / "r14.pth"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "convnext_tinny"},
            "backbone.name: timm has no 'convnext_tinny'; did you mean 'convnext_tiny'?",
        ),
        ({"name": "hf-hub:someone/model"}, "timm has no 'hf-hub:someone/model'"),
        ({"name": "convnext_tiny.fb_in22"}, "convnext_tiny has no weights 'fb_in22'; did you mean 'fb_in22k'?"),
        ({"weights": "IMAGENET1K_V1"}, r"valid: DEFAULT, a file \(.*\), or null; .* timm/resnet10t.<tag>"),
        ({"name": "regnetz_005", "weights": "DEFAULT"}, "timm publishes no weights of regnetz_005"),
        ({"weights": "nowhere/r10.pth"}, "nowhere/r10.pth: no such weights file"),
        ({"norm": "group"}, "model.backbone.norm: timm's networks .* cannot have group"),
        ({"name": "vit_tiny_patch16_224"}, "has features at stride 16, not at 8, 16 and 32"),
        ({"name": "efficientformerv2_s0"}, r"does not take images of any size \(64 x 96 px: "),
    ],
)
def test_errors_name_what_is_valid(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_p2_needs_features_at_stride_4():
    with pytest.raises(
        InputError, match="model.neck.finest: p2 needs .* visformer_tiny has them at 8, 16, 32; set it to p3"
    ):
        build_timm_backbone("visformer_tiny", weights=None, norm="batch", finest_stride=4)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm/resnet10t needs timm.* pip install timm"):
        build_model(config(name="timm/resnet10t"), num_classes=1)


class TestRetinaNet:
    @pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050"])
    def test_a_step(self, name):
        model = build_model(config(name=f"timm/{name}"), num_classes=2).to(memory_format=torch.channels_last)
        images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        assert outputs["anchors_per_level"] == [12 * 8 * 9, 6 * 4 * 9, 3 * 2 * 9, 2 * 1 * 9, 1 * 1 * 9]
        (outputs["logits"].float().mean() + outputs["deltas"].float().mean()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    @pytest.mark.parametrize("name", ["convnext_atto", "resnet10t"])
    @torch.no_grad()
    def test_there_and_back(self, name, tmp_path):
        torch.save(classifier(name).state_dict(), tmp_path / "w.pth")
        described = config(name=f"timm/{name}", weights=str(tmp_path / "w.pth"))
        model = build_model(described, num_classes=2).eval()
        torch.save(model.state_dict(), tmp_path / "model.pt")
        (tmp_path / "w.pth").unlink()
        again = build_model(described, num_classes=2, pretrained=False).eval()
        images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
        expected = model(images)["logits"]
        assert not torch.equal(again(images)["logits"], expected)
        load_strictly(again, torch.load(tmp_path / "model.pt"), source="model.pt")
        assert torch.equal(again(images)["logits"], expected)

    def test_mean_and_std_are_those_of_the_weights(self):
        model = build_model(config(name="timm/mobilenetv4_conv_small_035"), num_classes=1)
        assert model.mean.flatten().tolist() == [0.5, 0.5, 0.5] and model.std.flatten().tolist() == [0.5, 0.5, 0.5]
        model = build_model(config(name="timm/resnet10t"), num_classes=1)
        assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "hieradet_small", "resnet10t"]
)
def test_what_timm_does_not_decay_is_named_as_the_backbone_names_it(name):
    """timm cuts some networks off and joins the names of their stages, and wraps others as they are."""
    with torch.device("meta"):
        backbone, network = build(name), timm.create_model(name)
    spared = network.no_weight_decay() if hasattr(network, "no_weight_decay") else set()
    named = backbone.from_classifier({parameter: parameter for parameter, _ in network.named_parameters()})
    assert backbone.undecayed == {own for own, parameter in named.items() if parameter in spared}
    assert backbone.undecayed <= {own for own, _ in backbone.named_parameters()}
    assert (len(backbone.undecayed) > 0) == (name != "resnet10t")
