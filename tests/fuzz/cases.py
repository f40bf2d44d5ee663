"""Broken files of four kinds, and the check that each is read, or refused with an InputError of one printable line.

A case is a sound file, changed in its bytes or along its structure, so that most cases get past the first check.
test_fuzz.py runs a few, benchmarks/fuzz.py 10,000 of each kind.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from checkpoint_cases import CANARY, checkpoint_files, small_model
from hypothesis import strategies as st
from PIL import Image
from strategies import changed, mangled

from detector import checkpoint
from detector.config.file import dump, load_config
from detector.data.coco import Split, check_images_exist, read_coco
from detector.data.descriptor import load_descriptor
from detector.data.image import read_image
from detector.data.image_files import inspect
from detector.doctor.checks.check_dataset import check_dataset
from detector.doctor.examination import examine_dataset
from detector.doctor.repair.repair import fix
from detector.inference import predict as predictor
from detector.inference.detector import load
from detector.models.limits import check_size
from detector.models.weights.transfer import transfer
from detector.training import replay
from detector.utils.errors import InputError

SOUND = {
    "info": {"year": 2020},
    "images": [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
        {"id": 2, "file_name": "sub/b.png", "width": 32, "height": 32},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0.5, 2, 9.5, 8], "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog", "supercategory": "animal"}],
}
CONFIG = """\
seed: 3
data: &data {dataset: d.yaml, image_size: {short: 320, long: 512}}
augment: {transforms: [{name: HorizontalFlip, p: 0.5}]}
model:
  backbone: {name: resnet18, weights: null, norm: group}
  anchors: {ratios: [0.5, 1, 2]}
loss: {alpha: [0.25, 0.5], gamma: 2e0, classification: focal}
train: {epochs: 12, lr: 1e-3, freeze: [backbone.stem], unfreeze: {backbone.layer3: 2}, milestones: [.6, .9]}
"""
DESCRIPTOR = """\
classes: [cat, dog]
train: &train {images: images, annotations: coco.json}
val:
  <<: *train
"""

JSON_PIECES = (
    b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\u0000", b"\\ud800", b"1e999", b"NaN", b"-", b"9" * 400, b"\xff",
    b"\0", b"\xef\xbb\xbf", b"[" * 5000, b'{"a":' * 2000, b"null", b"1.5",
)  # fmt: skip
YAML_PIECES = (
    b"&a ", b"*a", b"<<: *data\n", b"? ", b"- ", b"!!python/name:os.system ", b"!!int ", b"!!set ", b"!!binary ", b": ",
    b"\t", b"\n", b"'", b'"', b"|\n", b">", b"%YAML 9\n", b"---\n", b"...", b"#", b"[" * 300, b"{", b"}", b"1:1:1",
    b"0x" + b"f" * 5000, b"2024-13-45", b"\xff", b"\x1b", b"\0", b"~", b".inf", b"seed: 1\n",
)  # fmt: skip
IMAGE_PIECES = (
    b"\0", b"\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\xc3\x50", b"\xff\xd8", b"IDAT", b"Exif\0\0MM\0*",
    b"\xff\xe1",
)  # fmt: skip


def json_files() -> st.SearchStrategy[bytes]:
    """Annotation files, changed along their structure (written with and without escapes) or in their bytes."""

    def written(tree: object) -> bytes:
        return json.dumps(tree, ensure_ascii=False).encode(errors="surrogatepass")

    trees = changed(SOUND)
    return st.one_of(
        trees.map(lambda tree: json.dumps(tree).encode()),
        trees.map(written),
        mangled(written(SOUND), JSON_PIECES),
        trees.flatmap(lambda tree: mangled(written(tree), JSON_PIECES)),
        st.binary(max_size=64),
    )


def yaml_files() -> st.SearchStrategy[bytes]:
    """Configurations and descriptors, changed along their structure or in their text."""
    import yaml

    def written(tree: object) -> bytes:
        return yaml.safe_dump(tree, sort_keys=False).encode(errors="surrogatepass")

    texts = [CONFIG.encode(), DESCRIPTOR.encode()]
    trees = st.sampled_from(texts).flatmap(lambda text: changed(yaml.safe_load(text)))
    return st.one_of(
        trees.map(written),
        st.sampled_from(texts).flatmap(lambda text: mangled(text, YAML_PIECES)),
        trees.map(written).flatmap(lambda text: mangled(text, YAML_PIECES)),
        st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")),
    )


def sound_images() -> list[bytes]:
    """Small images of many formats, modes and compressions, with one or several frames."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (9, 13, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65535, (9, 13), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted = [
        (rgb, "JPEG", {"exif": exif}), (rgb, "JPEG", {"progressive": True}), (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("L"), "JPEG", {}), (rgb, "PNG", {"exif": exif}), 
        (rgb.convert("P"), "PNG", {"transparency": b"\0\1"}),
        (rgb.convert("1"), "PNG", {}), (deep, "PNG", {}), (rgb.convert("RGBA"), "PNG", {}),
        (rgb.quantize(8), "GIF", {"save_all": True, "append_images": [rgb.quantize(8).rotate(90)] * 3}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}), (deep, "TIFF", {}), (rgb, "TIFF", {"exif": exif}),
        (rgb, "TIFF", {"compression": "jpeg"}), (rgb, "TIFF", {"save_all": True, "append_images": [rgb]}),
        (rgb, "WEBP", {}), (rgb, "WEBP", {"save_all": True, "append_images": [rgb.rotate(90)]}), (rgb, "BMP", {}),
        (rgb.quantize(8), "BMP", {}), (rgb, "PPM", {}), (rgb, "JPEG2000", {}),
    ]  # fmt: skip
    files = []
    for image, kind, options in wanted:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def image_files() -> st.SearchStrategy[bytes]:
    """Images with changed bytes, and headers followed by anything."""
    return st.one_of(
        st.sampled_from(sound_images()).flatmap(lambda content: mangled(content, IMAGE_PIECES)),
        st.sampled_from(sound_images()).flatmap(lambda content: st.binary(max_size=40).map(lambda b: content[:30] + b)),
    )


class Checks:
    """What is done with a file of each kind. `folder` gets two sound images."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "images" / "sub").mkdir(parents=True)
        for name, size in (("a.png", (64, 48)), ("sub/b.png", (32, 32))):
            Image.new("RGB", size, (200, 30, 40)).save(folder / "images" / name)
        (folder / "coco.json").write_text(json.dumps(SOUND))
        (folder / "d.yaml").write_text("train: {images: images, annotations: broken.json}\n")

    def json(self, content: bytes) -> None:
        """Read it for training, and let the doctor describe it, who refuses nothing."""
        path, split = self.folder / "broken.json", Split(self.folder / "images", self.folder / "broken.json")
        path.write_bytes(content)
        for bad in ("error", "drop"):
            refusal(lambda bad=bad: check_images_exist(read_coco(split, None, bad)))
        if len(content) % 16 == 0:  # these are a hundred times slower
            check_lines(examine_dataset(str(self.folder / "d.yaml")).lines())
            refusal(lambda: check_lines(fix(split, self.folder / "fixed.json")))
        else:
            check_lines(e.text for f in check_dataset(load_descriptor(self.folder / "d.yaml")) for e in f.examples)

    def yaml(self, content: bytes) -> None:
        """Read it as a configuration, write that and read it back, and check its size. Read it as a descriptor."""
        path = self.folder / "broken.yaml"
        path.write_bytes(content)
        config = refusal(lambda: load_config(path))
        if config is not None:
            path.with_name("again.yaml").write_text(dump(config))
            load_config(path.with_name("again.yaml"))
            refusal(lambda: check_size(config, num_classes=2))
        descriptor = refusal(lambda: load_descriptor(path))
        for name in descriptor.splits if descriptor else ():
            split = refusal(lambda name=name: descriptor.split(name))
            if split is not None:
                refusal(lambda split=split: read_coco(split, descriptor.classes))

    def image(self, content: bytes) -> None:
        """Read it for training, with and without a stated size (height, width), and by the doctor."""
        path = self.folder / "broken.png"
        path.write_bytes(content)
        for size in (None, (9, 13), (13, 9)):
            pixels = refusal(lambda size=size: read_image(path, size))
            if pixels is not None:
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
                assert size in (None, pixels.shape[:2])
        check_lines([inspect(path).problem])

    def checkpoint(self, content: bytes) -> None:
        """Read it as a checkpoint, a detector, weights to start from, and a bad batch. No code of it may run."""
        path = self.folder / ("broken.safetensors" if content[8:9] == b"{" else "broken.pt")
        path.write_bytes(content)
        refusal(lambda: checkpoint.load(path))
        detector = refusal(lambda: load(path, device="cpu"))
        if detector is not None and detector.config.data.image_size == 64:
            image = np.full((48, 64, 3), 128, np.uint8)
            refusal(lambda: predictor._with_thresholds(detector)(image))
        weights = refusal(lambda: checkpoint.read_detector(str(path)))
        if weights is not None and len(content) % 4 == 0:  # this is ten times slower
            refusal(lambda: check_lines(transfer(small_model(), weights, ["cat", "owl"]).lines()))
        refusal(lambda: replay.replay(path))
        assert not CANARY.exists()


def refusal(attempt):
    """The result of the attempt, or None if it is refused in one printable line."""
    try:
        return attempt()
    except InputError as problem:
        check_lines([str(problem)])
        return None


def check_lines(lines) -> None:
    """Assert that every line can be printed."""
    for line in lines:
        assert len(line) < 3000, line[:200]
        assert not any(ord(c) < 32 or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in line), ascii(line)


KINDS = {"json": json_files, "yaml": yaml_files, "image": image_files, "checkpoint": checkpoint_files}
