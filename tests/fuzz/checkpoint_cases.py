"""Checkpoints, bad batches and foreign weights with one thing changed: other values and tensors, pickles that call
functions, damaged members of the archive, other formats, other bytes."""

from __future__ import annotations

import argparse
import builtins
import functools
import io
import os
import pickle
import subprocess
import tempfile
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from strategies import TEXTS, VALUES, mangled

from detector.checkpoint import FORMAT
from detector.config.schema import Config
from detector.losses.class_statistics import ClassStatistics
from detector.losses.criterion import build_criterion
from detector.models.build import build_model
from detector.models.retinanet import RetinaNet
from detector.training import replay
from detector.utils.digest import save_with_digest

CANARY = Path(tempfile.gettempdir()) / f"fuzz-canary-{os.getpid()}"  # exists if code of a file was run
SETTINGS = {
    "data": {"dataset": "d.yaml", "image_size": 64},
    "model": {"backbone": {"name": "timm/test_resnet", "weights": None, "norm": "batch"}, "neck": {"channels": 8},
              "head": {"depth": 1, "width": 8}, "anchors": {"base_size": 16, "scales": 1, "ratios": [1.0]}},
}  # fmt: skip


def small_model() -> RetinaNet:
    return build_model(Config.model_validate(SETTINGS).model, 2, pretrained=False)


@functools.cache
def checkpoint() -> dict:
    """A sound checkpoint. Its numbers are uint8, to keep the files small."""
    model = {name: torch.zeros(tensor.shape, dtype=torch.uint8) for name, tensor in small_model().state_dict().items()}
    return {
        "format": FORMAT,
        "model": model,
        "config": Config.model_validate(SETTINGS).model_dump(),
        "class_names": ["cat", "dog"],
        "category_ids": [3, 5],
        "class_counts": [40, 2],
        "deployment": {
            "thresholds": [0.5, 0.1], "borrowed": ["dog"], "unreached": [], "failing": ["dog"],
            "goal": {"figure": "f_score", "beta": 1.0, "target": 0.9},
            "calibration": [{"scores": [0.1, 0.9], "precision": [0.0, 1.0]}] * 2,
        },
    }  # fmt: skip


@functools.cache
def bad_batch() -> dict:
    """A sound file of a step that was not finite; its box has no area."""
    settings = Config.model_validate(SETTINGS)
    criterion = build_criterion(settings.loss, np.array([40, 2]), ["cat", "dog"], ClassStatistics(2))
    target = {"boxes": torch.zeros(1, 4), "labels": torch.zeros(1, dtype=torch.int64), "image_id": 7, "size": (64, 64)}
    return {
        **{key: checkpoint()[key] for key in ("config", "model", "class_names", "class_counts")},
        "replay": replay.FORMAT, "frozen": [], "epoch": 0, "step": 3, "autocast": None, "micro_batches": 1,
        "criterion": criterion.state_dict(), "random": torch.get_rng_state(), "random_cuda": None,
        "parts": ["loss_box"], "image_ids": [7], "batches": [(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [target])],
    }  # fmt: skip


@functools.cache
def foreign() -> list[dict]:
    """Some tensors of torchvision's RetinaNet (new and old names) and detectron2's, and of a classifier."""
    rows, deltas, norm = torch.ones(2, 8, 3, 3), torch.ones(4, 8, 3, 3), torch.ones(4)
    first = {"weight": torch.ones(4, 3, 7, 7), "norm.weight": norm, "norm.running_var": norm, "norm.bias": norm}
    torchvision = {
        "head.classification_head.cls_logits.weight": rows, "head.classification_head.cls_logits.bias": torch.ones(2),
        "head.regression_head.bbox_reg.weight": deltas, "head.regression_head.bbox_reg.bias": torch.ones(4),
        "backbone.body.conv1.weight": first["weight"], "backbone.body.bn1.weight": norm,
        "backbone.body.bn1.running_var": norm,
    }  # fmt: skip
    old = {"head.classification_head.conv.0.weight": rows, "backbone.fpn.inner_blocks.0.weight": rows}
    detectron2 = {
        "head.cls_score.weight": rows, "head.cls_score.bias": torch.ones(2), "head.bbox_pred.weight": deltas,
        "head.bbox_pred.bias": torch.ones(4), "pixel_mean": torch.ones(3, 1, 1), "pixel_std": torch.ones(3, 1, 1),
        "head.cls_subnet.0.weight": rows, "head.cls_subnet.1.weight": norm,
        **{f"backbone.bottom_up.stem.conv1.{name}": value for name, value in first.items()},
    }  # fmt: skip
    classifier = {"features.0.0.weight": rows, "classifier.0.weight": torch.ones(2, 3), "classifier.0.bias": norm}
    return [torchvision, torchvision | old, detectron2, classifier, {"model": detectron2, "epoch": 3}]


class Calls:
    """Its pickle is the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def calls() -> list[Calls]:
    """Calls of functions that would run code, and of functions that torch allows but that would take memory."""
    run = [
        (os.system, f"touch {CANARY}"), (builtins.open, str(CANARY), "w"), (Path.touch, CANARY),
        (builtins.eval, f"open({str(CANARY)!r}, 'w')"), (builtins.exec, f"open({str(CANARY)!r}, 'w')"),
        (subprocess.getoutput, f"touch {CANARY}"), (os.mkdir, str(CANARY)), (np.zeros, 10), (torch.load, str(CANARY)),
        (builtins.getattr, os, "system"),
    ]  # fmt: skip
    huge = 3 * 10**9
    grown = b"x" * 64
    for _ in range(26):
        grown = Calls(__import__("_codecs").encode, grown, "hex")
    take = [
        (bytearray, huge), (torch.FloatTensor, huge), (torch.Tensor, huge), (torch.UntypedStorage, huge),
        (argparse.Namespace,), (set, [1, 2]), (complex, 1, 2), (torch.Size, [1, 2, 10**18]), (Counter, "abc"),
        (torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (10**9, 10**9), (1, 1), False),
        (torch._utils._rebuild_tensor_v2, 3, 0, (2,), (1,), False, OrderedDict()), (torch.device, "cuda"),
        (torch._utils._rebuild_parameter, torch.ones(2), True, OrderedDict()),
    ]  # fmt: skip
    return [Calls(*each) for each in run + take] + [grown]


def tensors() -> st.SearchStrategy[object]:
    """Tensors of unusual shapes, dtypes and layouts, and what may be taken for one."""
    odd = [
        torch.zeros(()), torch.zeros(0), torch.zeros(3, 0, 2), torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(1).expand(2, 8, 3, 3), torch.empty(10**6, 10**6, device="meta"), torch.zeros(2, 3).to_sparse(),
        torch.eye(3).to_sparse_csr(), torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        torch.ones(2, 2).to(torch.float8_e4m3fn), torch.ones(2, dtype=torch.cfloat), torch.tensor(float("nan")),
        torch.full((2, 8, 3, 3), float("inf")), torch.full((2,), float("nan")),
        torch.ones(4).as_strided((3, 3), (0, 1)),
        torch.arange(9)[1::3], torch.ones(2, 3).t(), torch.nn.Parameter(torch.ones(2)), torch.tensor(2**62),
        torch.ones(2, dtype=torch.uint16), torch.tensor(True), torch.ones(2, 8, 3, 3, dtype=torch.float64),
        torch.ones([1] * 40), torch.tensor([1e300], dtype=torch.float64), torch.float32, torch.Size([2]),
        torch.device("cpu"), torch.strided, torch.ones(2, 2).untyped_storage(),
    ]  # fmt: skip
    kinds = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
    shapes = st.lists(st.integers(0, 9), max_size=5).map(tuple)
    return any_of(odd) | st.builds(lambda shape, kind: torch.ones(shape, dtype=kind), shapes, kinds)


@functools.cache  # making them for each draw takes long, and hypothesis keeps them: a gigabyte in 5,000 cases
def values() -> st.SearchStrategy[object]:
    """What a file may hold in place of a value."""
    loop: list = []
    loop.append(loop)
    objects = [
        loop, (), (1, "a"), {1, 2}, b"bytes", 1j, OrderedDict(a=1), Counter("aab"), argparse.Namespace(a=1), {1: 2},
        {None: torch.ones(1)}, functools.reduce(lambda inner, _: [inner], range(2000), 0), "x" * 10**6, [0] * 10**5,
        laughs(26), laughs(60), laughs(60, lambda inner: (inner, inner)),
        laughs(60, lambda inner: {"a": inner, "b": inner}),
    ]  # fmt: skip
    return st.one_of(tensors(), tensors(), VALUES, VALUES, any_of(objects), any_of(calls()))


def laughs(levels: int, repeated=lambda inner: [inner, inner]) -> object:
    """Nested values, each of which holds the one before twice: 2^levels to code that visits them all."""
    return functools.reduce(lambda inner, _: repeated(inner), range(levels), 0.5)


def any_of(things: list) -> st.SearchStrategy[object]:
    """st.sampled_from without the repr of its values: of tensors it is slow, of a deep list it fails."""
    return st.integers(0, len(things) - 1).map(lambda i: things[i])


def copied(tree: object) -> object:
    """The tree with dicts and lists of its own."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


class Gap:
    """Marks where a drawn value goes. The value itself is shared by all cases, so it must not be changed in turn."""


@st.composite
def changed(draw, tree: dict) -> dict:
    """The tree with one to three values, at any depth, replaced, removed, or under another key."""
    tree = copied(tree)
    for _ in range(draw(st.integers(1, 3))):
        holder = tree
        while holder:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = keys[draw(st.integers(0, len(keys) - 1))]
            deeper = isinstance(holder[key], (dict, list)) and holder[key]
            if not deeper or draw(st.integers(0, 3)) == 0:
                what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
                if what == "replace":
                    holder[key] = Gap()
                else:
                    value = holder.pop(key)
                    if what == "rename" and isinstance(holder, dict):
                        holder[draw(TEXTS | st.integers())] = value
                break
            holder = holder[key]
    return filled(draw, tree)


def filled(draw, tree: object) -> object:
    """The tree with a drawn value in each of its gaps."""
    if isinstance(tree, dict):
        return {key: filled(draw, value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [filled(draw, value) for value in tree]
    return draw(values()) if isinstance(tree, Gap) else tree


def hostile_sizes() -> st.SearchStrategy[dict]:
    """Sound checkpoints whose settings ask for large models and images, or for other backbones."""
    numbers = st.sampled_from([0, 1, 2, 60, 64, 300, 1024, 8192, 10_000, 10**9])

    def with_sizes(numbers: list[int]) -> dict:
        tree, (channels, depth, width, scales, image, batch) = copied(checkpoint()), numbers
        model = tree["config"]["model"]
        model["neck"]["channels"], model["head"]["depth"], model["head"]["width"] = channels, depth, width
        model["anchors"]["scales"], tree["config"]["data"]["image_size"] = scales, image
        tree["config"]["eval"]["batch_size"] = tree["config"]["train"]["batch_size"] = batch
        return tree

    names = [
        "resnet18",
        "resnet101",
        "timm/resnet10t",
        "timm/../a",
        "hf-hub:a/b",
        "",
        "mobilenet_v3_large",
        "timm/convnextv2_huge",
    ]

    def with_name(tree: dict, name: str) -> dict:
        tree["config"]["model"]["backbone"]["name"] = name
        return tree

    sizes = st.lists(numbers, min_size=6, max_size=6).map(with_sizes)
    return sizes | st.builds(lambda name: with_name(copied(checkpoint()), name), st.sampled_from(names))


def saved(contents: object, kind: str = "zip") -> bytes:
    """What torch.save writes (zip), in its old format (old), or with a digest (digest); b"" if it cannot."""
    buffer = io.BytesIO()
    try:
        if kind == "digest":
            with tempfile.NamedTemporaryFile() as file:
                save_with_digest(Path(file.name), contents)
                return Path(file.name).read_bytes()
        torch.save(contents, buffer, _use_new_zipfile_serialization=kind != "old")
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, pickle.PicklingError, RecursionError):
        return b""
    return buffer.getvalue()


@st.composite
def tampered(draw, content: bytes) -> bytes:
    """The zip archive with one to three members removed, doubled, renamed, emptied, changed or compressed."""
    if not content.startswith(b"PK"):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info), zipfile.ZIP_STORED) for info in archive.infolist()]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(members) - 1))
        name, data, method = members[at]
        what = draw(st.sampled_from(["remove", "double", "rename", "empty", "change", "change", "compress", "bomb"]))
        if what == "remove" and len(members) > 1:
            del members[at]
        elif what == "double":
            members.append((name, data[: draw(st.sampled_from([0, 10, None]))], method))
        elif what == "rename":
            names = ["archive/constants.pkl", "../../x", "archive/code/x.py", "", "archive/version", "archive/data/0"]
            members[at] = draw(st.sampled_from(names) | TEXTS), data, method
        elif what == "empty":
            members[at] = name, b"", method
        elif what == "change":
            members[at] = name, draw(mangled(data, (b"\x80\x02", b"}", b"cos\nsystem\n", b"R", b"."))), method
        elif what in ("compress", "bomb"):
            members[at] = name, b"\0" * 10**7 if what == "bomb" else data, zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns about equal names
        for name, data, method in members:
            whole_name = name.encode(errors="replace").decode().replace("\0", "")[:60_000] or "x"
            archive.writestr(whole_name, data, method)
    return buffer.getvalue()


def checkpoint_files() -> st.SearchStrategy[bytes]:
    """Files of every kind above."""
    sound = [
        saved(checkpoint()),
        saved(checkpoint(), "digest"),
        saved(bad_batch()),
        *(saved(each) for each in foreign()),
    ]
    pieces = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\xff" * 4, b"\0", b"cos\nsystem\n", b"\x80\x02", b"R.")
    kinds = st.sampled_from(["zip", "zip", "zip", "old", "digest"])
    trees = st.one_of(changed(checkpoint()), changed(bad_batch()), any_of(foreign()).flatmap(changed))
    call = any_of(calls())
    plain = [
        safetensors.torch.save({name: tensor.clone() for name, tensor in foreign()[0].items()}),
        pickle.dumps({"a": [1, 2]}),
        saved(foreign()[2], "old"),
    ]
    return st.one_of(
        st.builds(saved, trees, kinds),
        st.builds(saved, trees, kinds),
        st.builds(saved, hostile_sizes(), st.just("zip")),
        st.builds(saved, values(), kinds),
        st.builds(lambda value, protocol: dumped(value, protocol), call, st.integers(0, 5)),
        any_of(sound).flatmap(tampered),
        st.builds(saved, trees).flatmap(tampered),
        any_of([*sound, *plain]).flatmap(lambda content: mangled(content, pieces)),
        st.binary(max_size=64),
    )


def dumped(value: object, protocol: int) -> bytes:
    """A plain pickle; b"" if there is none."""
    try:
        return pickle.dumps(value, protocol)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError):
        return b""
