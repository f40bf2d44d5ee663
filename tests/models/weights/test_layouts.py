import urllib.error

import pytest
import torch
import torchvision

from detector.models.weights.layouts import BBOX_REG, CLS_LOGITS, published, recognised
from detector.models.weights.torchvision import COCO_IDS, COCO_ROWS
from detector.utils.errors import InputError


def layout(num_rows, logits=CLS_LOGITS, deltas=BBOX_REG, anchors_per_cell=2):
    """The prediction layers of a state dict; every row of the logits holds its own number."""
    rows = torch.arange(float(anchors_per_cell * num_rows))
    return {
        f"{logits}.weight": rows.view(-1, 1, 1, 1).repeat(1, 4, 3, 3),
        f"{logits}.bias": rows.clone(),
        f"{deltas}.weight": torch.zeros(anchors_per_cell * 4, 4, 3, 3),
        f"{deltas}.bias": torch.zeros(anchors_per_cell * 4),
    }


def detectron2_layout(num_rows):
    return layout(num_rows, "head.cls_score", "head.bbox_pred")


def test_cocos_classes():
    assert len(COCO_ROWS) == 91 and len(COCO_IDS) == 80
    assert [COCO_IDS[name] for name in ("person", "zebra", "toothbrush")] == [1, 24, 90]


@pytest.mark.parametrize(("num_rows", "names"), [(91, COCO_ROWS), (80, None), (3, None)])
def test_91_rows_of_torchvisions_layout_are_cocos(num_rows, names):
    weights = recognised(layout(num_rows), "w.pth")
    assert (weights.num_rows, weights.row_names) == (num_rows, names)
    assert (weights.category_ids == COCO_IDS) is (num_rows == 91)
    assert not weights.sizes_first and not weights.backbone_only and weights.anchor_rule == "torchvision"


@pytest.mark.parametrize(
    "part", ["attention.0.space.bias", "backbone.norms.0.weight", "backbone.fpn.extra_blocks.downsample.0.bias"]
)
def test_a_bare_state_dict_of_this_project_has_exact_anchors(part):
    weights = recognised(layout(3) | {part: torch.zeros(1)}, "w.pth")
    assert weights.anchor_rule == "exact"
    assert weights.description == "this project's RetinaNet layout, 3 classes of unknown names"


@pytest.mark.parametrize(("num_rows", "known"), [(80, True), (91, False), (3, False)])
def test_80_rows_of_detectron2s_layout_are_cocos(num_rows, known):
    weights = recognised(detectron2_layout(num_rows), "w.pth")
    assert weights.num_rows == num_rows and weights.sizes_first and weights.anchor_rule == "exact"
    assert weights.row_names == (list(COCO_IDS) if known else None)
    assert weights.category_ids == (COCO_IDS if known else None)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (layout(91), "torchvision's RetinaNet layout, 80 classes (COCO's)"),
        (layout(4), "torchvision's RetinaNet layout, 4 classes of unknown names"),
        (
            {**layout(4), "backbone.fpn.inner_blocks.0.bias": torch.zeros(1)},
            "torchvision's RetinaNet layout with its old names, 4 classes of unknown names",
        ),
        (
            detectron2_layout(80),
            "detectron2's RetinaNet layout, whose first convolution is not a ResNet's, 80 classes (COCO's)",
        ),
        ({"conv1.weight": torch.zeros(1)}, "a classification network, of which only the backbone is taken"),
    ],
)
def test_a_line_says_what_it_is(state, line):
    assert recognised(state, "w.pth").description == line


@pytest.mark.parametrize("missing", [f"{CLS_LOGITS}.bias", f"{BBOX_REG}.weight", f"{BBOX_REG}.bias"])
def test_an_incomplete_layout(missing):
    state = layout(3)
    del state[missing]
    with pytest.raises(InputError, match=f"w.pth: an incomplete RetinaNet, it has no {missing}"):
        recognised(state, "w.pth")


def test_logits_that_are_no_multiple_of_the_anchors():
    state = layout(3)
    state[f"{CLS_LOGITS}.weight"] = state[f"{CLS_LOGITS}.weight"][:5]
    with pytest.raises(InputError, match="5 class logits and 8 box deltas a cell are no RetinaNet's"):
        recognised(state, "w.pth")


@pytest.mark.parametrize("name", ["RetinaNet_ResNet50_FPN_Weights", "RetinaNet_ResNet50_FPN_V2_Weights.COCO", "v2"])
def test_unknown_names_of_weights(name):
    with pytest.raises(InputError, match=r"valid: RetinaNet_ResNet50_FPN_Weights\.COCO_V1"):
        published(name)


@pytest.mark.parametrize("member", ["COCO_V1", "DEFAULT"])
def test_published_weights(member, monkeypatch):
    urls = []

    def download(url, **kwargs):
        urls.append(url)
        return layout(91)

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    weights = published(f"RetinaNet_ResNet50_FPN_V2_Weights.{member}")
    assert weights.row_names == COCO_ROWS and weights.anchor_rule == "torchvision"
    assert weights.description == "torchvision's published RetinaNet, 80 classes (COCO's)"
    assert "retinanet_resnet50_fpn_v2_coco" in urls[0]


def test_without_a_network_a_local_file_is_proposed(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"cannot download https.*model\.weights to the local file"):
        published("RetinaNet_ResNet50_FPN_Weights.COCO_V1")
