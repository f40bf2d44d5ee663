"""The callable that detector.load returns: which images it takes, and from which scores on it reports."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

import detector
from detector.utils.errors import InputError


def same(one: dict, other: dict) -> bool:
    return one["names"] == other["names"] and all(
        np.array_equal(one[key], other[key]) for key in ("boxes", "scores", "labels")
    )


def only(found: dict, keep: np.ndarray) -> dict:
    names = [name for name, kept in zip(found["names"], keep, strict=True) if kept]
    return {key: found[key][keep] for key in ("boxes", "scores", "labels")} | {"names": names}


@pytest.fixture
def image(run, tmp_path):
    return tmp_path / "val" / "1.png"


@pytest.fixture
def everything(run, image) -> dict:
    """All detections in the image: dark ones and light ones, with many scores."""
    found = detector.load(run, device="cpu", threshold=0)(image)
    assert set(found["names"]) == {"dark", "light"} and len(np.unique(found["scores"])) > 10
    return found


class TestThreshold:
    def test_a_number_is_the_least_score_of_all_classes(self, run, image, everything):
        least = float(everything["scores"][5])
        expected = only(everything, everything["scores"] >= least)
        detect = detector.load(run, device="cpu")
        before = detect(image)
        assert same(detect(image, threshold=least), expected)
        assert same(detect([image], least)[0], expected)
        assert same(detector.load(run, device="cpu", threshold=least)(image), expected)
        assert same(detect(image), before)  # it holds for one call

    def test_it_may_be_lower_than_what_was_configured_or_loaded(self, run, image, everything):
        high = ["model.postprocess.score_threshold=0.9"]
        assert same(detector.load(run, device="cpu", overrides=high)(image, threshold=0), everything)
        assert same(detector.load(run, device="cpu", threshold=0.9)(image, threshold=0), everything)

    def test_by_name_the_other_classes_keep_theirs(self, run, image, everything):
        scores, dark = everything["scores"], everything["labels"] == 0
        low, high = float(scores[dark][3]), float(scores[~dark][1])
        detect = detector.load(run, device="cpu", threshold=high)
        assert same(
            detect(image, threshold={"dark": low}), only(everything, np.where(dark, scores >= low, scores >= high))
        )
        assert same(detector.load(run, device="cpu", threshold={"dark": 0, "light": 0})(image), everything)

    def test_the_stored_ones_written_out_mean_the_same(self, run, image):
        detect = detector.load(run, device="cpu")
        stored = dict(zip(detect.class_names, detect.deployment.thresholds, strict=True))
        assert same(detect(image, threshold=stored), detect(image))

    @pytest.mark.parametrize("stored", [None, np.zeros(2)], ids=["never evaluated", "stored"])
    def test_classes_that_are_left_out_stay_above_the_configured_threshold(self, run, image, everything, stored):
        least = float(everything["scores"][5])
        detect = detector.load(run, device="cpu", overrides=[f"model.postprocess.score_threshold={least}"])
        detect.thresholds = stored
        found = detect(image, threshold={"dark": 0})
        light = everything["labels"] == 1
        assert same(found, only(everything, ~light | (everything["scores"] >= least)))

    @pytest.mark.parametrize(
        ("threshold", "said"),
        [
            (1.5, "threshold: a number from 0 to 1 .*, not 1.5"),
            (float("nan"), "not nan"),
            (True, "not True"),
            ("high", "not 'high'"),
            ([0.3, 0.3], r"not \[0.3, 0.3\]"),
            ({"dark": -1}, "threshold of dark: a number from 0 to 1 .*, not -1"),
            ({"drak": 0.3}, "threshold: no 'drak'; did you mean 'dark'?"),
        ],
    )
    def test_anything_else_is_refused(self, run, image, threshold, said):
        with pytest.raises(InputError, match=said):
            detector.load(run, device="cpu", threshold=threshold)
        with pytest.raises(InputError, match=said):
            detector.load(run, device="cpu")(image, threshold=threshold)


def test_one_class_an_object_if_boxes_of_all_classes_suppress_each_other(run, image, everything):
    settings = ["model.postprocess.nms=all", "model.postprocess.nms_iou=0"]
    boxes = torch.from_numpy(detector.load(run, device="cpu", overrides=settings, threshold=0)(image)["boxes"])
    assert 0 < len(boxes) < len(everything["boxes"])
    assert not (box_iou(boxes, boxes).fill_diagonal_(0) > 0).any()


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


class TestImages:
    @pytest.fixture
    def detect(self, run):
        return detector.load(run, device="cpu", threshold=0)

    def test_grey_arrays(self, detect, image):
        grey = np.asarray(Image.open(image).convert("L"))
        colour = detect(np.stack([grey] * 3, axis=2))
        assert len(colour["scores"]) and same(detect(grey), colour) and same(detect(grey[:, :, None]), colour)

    def test_the_bytes_of_a_file_are_the_file(self, detect, image, tmp_path, everything):
        assert same(detect(image.read_bytes()), everything)
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.open(image).save(tmp_path / "turned.jpg", exif=turned)
        assert same(detect([(tmp_path / "turned.jpg").read_bytes()])[0], detect(tmp_path / "turned.jpg"))

    def test_a_mirrored_view_of_an_array_at_its_own_size(self, run):
        detect = detector.load(run, device="cpu", overrides=["data.image_size={short: 64, long: 64}"])  # not resized
        square = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        assert same(detect(square[:, ::-1, ::-1]), detect(square[:, ::-1, ::-1].copy()))

    def test_a_range_of_short_sides_is_its_greatest(self, run, image):
        one, drawn = (
            detector.load(run, device="cpu", threshold=0, overrides=[f"data.image_size={{short: {short}, long: 64}}"])
            for short in ("40", "[24, 40]")
        )
        for _ in range(3):
            assert same(one(image), drawn(image)) and len(one(image)["scores"])

    def test_damaged_and_hostile_bytes_are_refused_and_counted(self, detect, image):
        whole = encoded(Image.open(image), "PNG")
        header = struct.pack(">IIBBBBB", 40_000, 100, 8, 2, 0, 0, 0)
        huge = whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:]
        for content, said in (
            (b"", "image 2: cannot be read as an image .*not recognised as JPEG, PNG"),
            (b"%!PS-Adobe-3.0 EPSF-3.0", "not recognised as JPEG, PNG"),
            (whole[:200], "image 2: cannot be read as an image"),
            (huge, "40000x100 pixels; at most"),
        ):
            with pytest.raises(InputError, match=said) as caught:
                detect([whole, content])
            assert "BytesIO" not in str(caught.value)

    def test_a_missing_file(self, detect, image):
        with pytest.raises(InputError, match="10.png: no such image; did you mean '1.png'?"):
            detect(image.with_name("10.png"))

    def test_too_many_bytes_are_not_opened(self, detect, image, monkeypatch):
        monkeypatch.setattr("detector.data.image.MAX_BYTES", 100)
        with pytest.raises(InputError, match="at most .* GB are read"):
            detect(image.read_bytes())

    def test_a_pil_image_of_a_file_cut_short(self, detect, image):
        cut = Image.open(io.BytesIO(encoded(Image.open(image), "JPEG")[:700]))
        with pytest.raises(InputError, match="image 1: cannot be read as an image"):
            detect(cut)

    @pytest.mark.parametrize(
        ("images", "said"),
        [
            (
                np.zeros((4, 4), np.float32),
                r"image 1: an array is uint8, \(H, W, 3\) RGB, .*, not float32 \(4, 4\)",
            ),
            (np.zeros((4, 4, 4), np.uint8), r"not uint8 \(4, 4, 4\)"),
            (np.zeros((2, 4, 4, 3), np.uint8), r"not uint8 \(2, 4, 4, 3\)"),
            (np.zeros((0, 4), np.uint8), r"not uint8 \(0, 4\)"),
            ([np.zeros((4, 4), np.uint8), 7], "image 2: an image is a path, the bytes of an image file, .*, not int"),
            (7, "a list of such, not int"),
            (None, "a list of such, not NoneType"),
        ],
    )
    def test_anything_else_is_refused(self, detect, images, said):
        with pytest.raises(InputError, match=said):
            detect(images)
