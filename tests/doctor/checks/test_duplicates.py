"""The same box and the same picture twice, against comparing all with all."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from detector.data.checks.duplicate_boxes import same_boxes
from detector.data.checks.table import Table, table_of
from detector.data.image_files import HASH_SIDE, inspect
from detector.data.similar_images import NEAR, near_hashes


def table(boxes: np.ndarray, images: np.ndarray) -> Table:
    annotations = [
        {"image_id": int(i), "category_id": 1, "bbox": box} for i, box in zip(images, boxes.tolist(), strict=True)
    ]
    sizes = [{"id": int(i), "file_name": f"{i}", "width": 100, "height": 100} for i in np.unique(images)]
    lists = {"images": sizes, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    return table_of(Path("x.json"), "train", lists)[0]


def test_boxes_as_torchvision_compares_them():
    rng = np.random.default_rng(0)
    boxes = np.concatenate((rng.random((40, 2)) * 50, rng.random((40, 2)) * 40 + 5), axis=1)
    boxes = np.repeat(boxes, 5, axis=0) * (1 + rng.normal(0, 0.01, (200, 4)))
    images = rng.integers(0, 3, 200)
    xyxy = torch.from_numpy(np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1))
    same = (box_iou(xyxy, xyxy).numpy() >= 0.95) & (images[:, None] == images)
    wanted = np.argwhere(np.triu(same, 1))
    assert len(wanted) > 20
    assert same_boxes(table(boxes, images)).tolist() == wanted.tolist()


def test_many_equal_boxes_end():
    boxes = np.tile([10.0, 10, 20, 20], (3000, 1))
    pairs = same_boxes(table(boxes, np.zeros(3000, int)))
    assert set(pairs[:, 1]) == set(range(1, 3000))  # each but the first is one too many


def test_hashes_as_comparing_all_with_all():
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.random((100, HASH_SIDE * HASH_SIDE)) < 0.5, 5, axis=0)
    for row, flips in zip(bits, rng.integers(0, 12, 500), strict=True):
        where = rng.choice(HASH_SIDE * HASH_SIDE, flips, replace=False)
        row[where] = ~row[where]
    signs = bits * 2.0 - 1
    wanted = np.argwhere(np.triu((HASH_SIDE * HASH_SIDE - signs @ signs.T) / 2 <= NEAR, 1))
    pairs = near_hashes(np.packbits(bits, axis=1))
    assert len(wanted) == 1000  # 10 pairs of each of 100
    assert pairs.tolist() == wanted.tolist()


def bits_apart(a: bytes, b: bytes) -> int:
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


@pytest.fixture
def photo() -> Image.Image:
    """Something smooth, like a photograph: noise of 24x32 pixels, enlarged."""
    noise = np.random.default_rng(3).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("scale", "quality"), [(1, 95), (1, 30), (0.5, 90), (0.25, 75), (2, 90)])
def test_a_picture_saved_again_looks_the_same(photo, tmp_path, scale, quality):
    photo.save(tmp_path / "a.png")
    photo.resize((int(640 * scale), int(480 * scale))).save(tmp_path / "b.jpg", quality=quality)
    a, b = inspect(tmp_path / "a.png"), inspect(tmp_path / "b.jpg")
    assert a.digest != b.digest
    assert bits_apart(a.perceptual_hash, b.perceptual_hash) <= 12 < NEAR


def test_other_pictures_look_different(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    assert (
        bits_apart(inspect(tmp_path / "a.png").perceptual_hash, inspect(tmp_path / "b.png").perceptual_hash) > 2 * NEAR
    )


def test_turned_and_upright_copies_look_the_same(photo, tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=tag)
    photo.save(tmp_path / "b.jpg")
    a, b = inspect(tmp_path / "a.jpg"), inspect(tmp_path / "b.jpg")
    assert (a.stored, a.upright, a.orientation) == ((640, 480), (480, 640), 6)
    assert bits_apart(a.perceptual_hash, b.perceptual_hash) <= NEAR


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_pictures_of_any_mode(photo, tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    else:
        image = photo.convert(mode)
    image.save(tmp_path / "a.tif")
    seen = inspect(tmp_path / "a.tif")
    assert seen.stored == (480, 640) and seen.perceptual_hash


def test_a_flat_picture_is_like_no_other(tmp_path):
    Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / "a.png")
    assert inspect(tmp_path / "a.png").perceptual_hash == b""


def test_a_problem_does_not_speak_of_memory_addresses(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "not recognised as JPEG" in inspect(tmp_path / "a.png").problem
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "JPEG")
    (tmp_path / "b.jpg").write_bytes(file.getvalue()[:-20])
    assert inspect(tmp_path / "b.jpg").problem_check == "truncated-image"
