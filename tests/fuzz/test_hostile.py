"""Files made to harm: each is refused in one line, soon, and before it has taken memory."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.file import load_config
from detector.config.schema import Config
from detector.data.coco import MAX_CLASSES, read_coco
from detector.data.descriptor import Split, load_descriptor
from detector.data.image import MAX_SIDE, read_image
from detector.doctor.examination import examine_dataset
from detector.doctor.image_files import inspect
from detector.inference import detector as inference
from detector.models.build import build_model
from detector.training import replay
from detector.utils.errors import InputError
from detector.utils.text import quoted
from detector.utils.untrusted.file_names import stays_inside

PAIRS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "g"), ("g", "h"), ("h", "i"), ("i", "j")]
ALIASES = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in PAIRS)
MERGES = "a: &a {k: 1}\n" + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}, *{a}, *{a}]}}\n" for a, b in PAIRS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "more than 300000 values, aliases"),
        (MERGES, "more than 300000 values, aliases"),
        ("base: &a [*a]\n", "an alias inside of what it stands for"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 deep"),
        ("[" * 3000, "too deep"),
        ("a: !!python/object/apply:os.system [exit]\n", "could not determine a constructor"),
        ("a: !!bool x\n", "is not of the type that its tag"),
        ("a: !!timestamp x\n", "is not of the type that its tag"),
        ("a: 0x" + "f" * 5000, "a number of 5002 characters"),
        ("a: 1" + ":11" * 9000, "a number of 27001 characters"),
        ("? [a, b]\n: c\n", "a key is a list or a mapping"),
        ("1: 2\n", "key 1 is not text"),
        ("a: 1\na: 2\n", "key `a` stands twice"),
        ("#" * (1 << 20), "larger than 512 kB"),
        ("base: /dev/zero\n", "dev/zero: larger than 512 kB"),
        ('base: "a\\0b"\n', "cannot be read as text"),
        ('base: "\\ud800"\n', "\\ud800: cannot be read as text"),
        ('"\\e[31m\\n": 1\ndata: {dataset: x}\n', "unknown key `\\x1b[31m `"),
        ("data: {dataset: x}\n" + "".join(f"k{i}: 1\n" for i in range(500)), "unknown key `k0`"),
        ("data: {dataset: x}\nseed: 1" + "0" * 90, "seed"),
    ],
)
def test_yaml(tmp_path, text, said):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert said in one_line(error)
    if "unknown key" not in said and said != "seed" and "base" not in text:
        with pytest.raises(InputError) as error:
            load_descriptor(path)
        assert said in one_line(error)


@pytest.mark.parametrize("name", ["a\\0", "\\ud800", "x" * 10_000])
def test_paths_that_no_file_can_have(tmp_path, name):
    (tmp_path / "d.yaml").write_text(f'train: {{images: ".", annotations: "{name}"}}\n')
    with pytest.raises(InputError) as error:
        load_descriptor(tmp_path / "d.yaml")
    assert "train: `annotations:` cannot be a path, got '" in one_line(error)


def test_a_long_number_that_is_none_takes_no_time(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {dataset: x}\noutput_dir: " + "1" * 100_000 + "x\n")
    assert len(load_config(tmp_path / "c.yaml").output_dir) == 100_001


def one_line(error) -> str:
    text = str(error.value)
    assert len(text) <= 1500 and "\n" not in text and "\x1b" not in text
    return text


@pytest.fixture
def refused(tmp_path):
    """What the strict reader says of an annotation file; the doctor, who refuses nothing, says printable lines."""
    (tmp_path / "d.yaml").write_text("train: {images: ., annotations: c.json}\n")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")

    def refused(content) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(InputError) as error:
            read_coco(Split(tmp_path, tmp_path / "c.json"))
        said = "\n".join(examine_dataset(str(tmp_path / "d.yaml")).lines())
        assert len(said) < 20_000 and not any(ord(c) < 32 and c != "\n" for c in said)
        said.encode()
        return one_line(error)

    return refused


def coco(box="[1, 2, 10, 10]", **changes) -> str:
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48} | changes.pop("image", {})
    category = {"id": 1, "name": "x"} | changes.pop("category", {})
    whole = {"images": [image], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": 0} | changes],
             "categories": [category]}  # fmt: skip
    return json.dumps(whole).replace('"bbox": 0', f'"bbox": {box}')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 1_000_000, "expected `object`, got `array`"),
        ('{"images": ' * 100_000, "images: expected `array`, got `object`"),
        (coco("[" * 100_000 + "]" * 100_000), "nested too deep"),
        (coco("[1e999, 2, 3, 4]"), "bbox[0]: number out of range"),
        (coco("[1" + "0" * 6000 + ", 2, 3, 4]"), "number out of range"),
        (coco("[NaN, 2, 3, 4]"), "is not finite"),
        (coco(id=10**100), "id: expected `int`"),
        (coco(image={"file_name": "../a.png"}), "file_name '../a.png' leaves the folder"),
        (coco(image={"file_name": "/etc/passwd"}), "file_name '/etc/passwd' leaves the folder"),
        (coco(image={"file_name": ""}), "file_name '' leaves the folder"),
        (coco(category={"name": ""}), "category 1: its name is empty"),
        (coco(category={"name": " \t"}), "category 1: its name is empty"),
        (coco(category={"name": "x" * 10_000}), "has 10000 characters; 200 are the most"),
        (coco(category={"name": "\x1b[31mred"}), r"is '\x1b[31mred', with a character that cannot be shown"),
        (coco(category={"name": "a\nb"}), r"is 'a\nb', with"),
        (coco(category={"name": "\ud800"}), r"is '\ud800', with"),
        (coco(category={"name": "\u202efdp"}), r"is '\u202efdp', with"),
    ],
)  # fmt: skip
def test_annotations(refused, content, said):
    assert said in refused(content)


def test_more_classes_than_any_model_has(refused):
    content = json.loads(coco())
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in range(1, 30_001)]
    assert f"30000 classes are too many; choose at most {MAX_CLASSES} with `classes:`" in refused(content)


@pytest.mark.parametrize("name", ["مرحبا", "日本語", "e\u0301" * 50, "🦊", "<script>alert(1)</script>", "$x$", "a&b"])
def test_names_of_every_language_are_names(tmp_path, name):
    (tmp_path / "c.json").write_text(coco(category={"name": name}))
    assert read_coco(Split(tmp_path, tmp_path / "c.json")).class_names == [name]


def test_what_stays_in_a_folder():
    for name in ("a.png", "sub/a.png", "a..b", "...", "sub/.hidden", "C", "1:b", "a\\b", "x" * 9000):
        assert stays_inside(name), name
    for name in ("", "/a", "\\a", "..", "../a", "a/../b", "a\\..\\b", "C:a", "c:\\a", "a/.."):
        assert not stays_inside(name), name


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore")  # pytest undoes the filter of detector.data.image
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png(50_000, 50_000, b""), "2500000000 pixels"),
        (png(50_000, 2, b""), f"50000x2 pixels; at most {MAX_SIDE} a side and 100 million in all are read"),
        (png(12_000, 12_000, b""), "12000x12000 pixels"),
        (png(20_000, 100, b"\0" * 50), "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "cannot identify image file"),
    ],
)
def test_images(tmp_path, content, said):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "a.jpg")
    assert said in one_line(error)
    assert said.split(" as an")[0] in inspect(tmp_path / "a.jpg").problem or "read" in said


def test_an_image_of_another_size_than_stated_is_not_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png(9000, 9000, b""))
    with pytest.raises(InputError, match="is 9000x9000 pixels but the annotation file says 64x48"):
        read_image(tmp_path / "a.png", (48, 64))


def test_pixels_beyond_those_of_the_header_are_not_unpacked(tmp_path):
    (tmp_path / "a.png").write_bytes(png(4, 4, b"\0" * 20_000_000))
    assert read_image(tmp_path / "a.png").shape == (4, 4, 3)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for name in ("a.png", "b.png"):
        with pytest.raises(InputError, match="not a file"):
            read_image(tmp_path / name)
        assert inspect(tmp_path / name).problem == "not a file"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_of_several_pictures_it_is_the_first(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    red, green, blue = read_image(tmp_path / "a").reshape(-1, 3).mean(axis=0)
    assert red > 200 and green < 50 and blue < 50


def test_a_tiff_that_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "a.tif", exif=exif)
    assert read_image(tmp_path / "a.tif").shape == read_image(tmp_path / "a.tif", (9, 4)).shape == (9, 4, 3)
    assert inspect(tmp_path / "a.tif").upright == (9, 4)


def settings(backbone: str) -> dict:
    small = {"backbone": {"name": backbone, "weights": None, "norm": "batch"}, "neck": {"channels": 8},
             "head": {"depth": 1, "width": 8}, "anchors": {"scales": 1, "ratios": [1.0]}}  # fmt: skip
    return {"data": {"dataset": "d.yaml", "image_size": 64}, "model": small}


def bad_batch(backbone: str = "resnet18", **changes) -> dict:
    """As a training leaves it, but for the criterion, before which it ends."""
    model = build_model(Config.model_validate(settings("resnet18")).model, 2, pretrained=False)
    return {
        "replay": replay.FORMAT, "config": settings(backbone), "class_names": ["a", "b"], "class_counts": [1, 2],
        "frozen": [], "epoch": 0, "step": 3, "autocast": None, "split": 1, "model": model.state_dict(), "criterion": {},
        "parts": ["loss_box"], "image_ids": [], "batches": [], "random": torch.get_rng_state(), "random_cuda": None,
    } | changes  # fmt: skip


@pytest.mark.parametrize("key", ["frozen", "class_counts", "parts"])
def test_a_bad_batch_with_a_tensor_of_10_to_the_12_where_names_belong(tmp_path, monkeypatch, key):
    monkeypatch.setattr(replay, "build_model", lambda *args, **kwargs: pytest.fail("it got that far"))
    torch.save(bad_batch(**{key: torch.zeros(1).expand(10**6, 10**6)}), tmp_path / "a.pt")
    with pytest.raises(InputError, match="damaged: not a bad batch as this version writes it"):
        replay.replay(tmp_path / "a.pt")


@pytest.mark.parametrize("backbone", ["resnet101", "timm/convnextv2_huge"])
def test_a_model_that_the_file_does_not_hold_is_not_built(tmp_path, monkeypatch, backbone):
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    state = bad_batch(backbone, model={"a": torch.zeros(10**5)})
    torch.save(state, tmp_path / "bad.pt")
    torch.save({"format": 4, "category_ids": [1, 2], **state}, tmp_path / "a.pt")
    monkeypatch.setattr(replay, "build_model", None)
    monkeypatch.setattr(inference, "build_model", None)
    for use in (lambda: replay.replay(tmp_path / "bad.pt"), lambda: inference.load(tmp_path / "a.pt", device="cpu")):
        with pytest.raises(InputError) as error:
            use()
        assert "numbers; its tensors have 400000 bytes" in one_line(error)


def test_errors_quote_whatever_it_is_in_one_line():
    assert str(InputError("a\nb\x1b[31m\ud800\u2028c")) == r"a b\x1b[31m\ud800 c"
    text = str(InputError("x" * 10**6 + "; the remedy"))
    assert len(text) == 1500 and text.endswith("; the remedy")
    assert quoted(16**5000) == "a int too large to show"
    assert len(quoted(["x" * 10**6])) == 100
