import torchvision

from detector.config.model import ModelConfig
from detector.models import backbones
from detector.models.backbones import build_backbone
from detector.models.backbones.torchvision import BACKBONES, TorchvisionBackbone
from detector.models.build import build_model


def test_a_source_is_one_line(monkeypatch):
    """A prefix and a function make a source; names without a known prefix are torchvision's."""
    asked = []

    def build_own(name, *, weights, norm, finest_stride):
        asked.append((name, weights, norm, finest_stride))
        return TorchvisionBackbone(torchvision.models.resnet18(weights=None), BACKBONES["resnet18"], finest_stride)

    monkeypatch.setattr(backbones, "SOURCES", {"own/": build_own, **backbones.SOURCES})
    config = ModelConfig.model_validate({"backbone": {"name": "own/net", "weights": "w.pth", "norm": "batch"}})
    assert build_model(config, num_classes=1).body.channels == [128, 256, 512]
    assert asked == [("net", "w.pth", "batch", 8)]
    assert build_backbone("resnet18", weights=None, norm="group", finest_stride=8).channels == [128, 256, 512]
