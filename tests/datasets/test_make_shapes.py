"""make_shapes: the same bytes for the same seed, a long tail, sound boxes, and no work done twice."""

import json
from collections import Counter

import pytest

SMALL = ("--train", 6, "--val", 2, "--test", 2)


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def test_same_seed_same_bytes_whatever_the_processes(run_script, tmp_path):
    for name, processes, seed in (("one", 1, 5), ("two", 2, 5), ("other", 2, 6)):
        options = ("--out", tmp_path / name, "--processes", processes, "--seed", seed)
        done = run_script("make_shapes.py", *options, *SMALL)
        assert done.returncode == 0, done.stderr
    one = contents(tmp_path / "one")
    assert len(one) == 6 + 2 + 2 + 3
    assert one == contents(tmp_path / "two")
    assert one.keys() == contents(tmp_path / "other").keys()
    assert all(data != one[name] for name, data in contents(tmp_path / "other").items())


def test_run_again(run_script, tmp_path):
    arguments = ("make_shapes.py", "--out", tmp_path / "shapes", *SMALL)
    run_script(*arguments)
    before = contents(tmp_path)
    times = [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*.*"))]
    assert run_script(*arguments).stdout.count("already there") == 3
    assert times == [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*.*"))]

    done = run_script(*arguments, "--seed", 1)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "--overwrite" in done.stderr
    assert contents(tmp_path) == before

    (tmp_path / "shapes/train/000003.jpg").unlink()
    run_script(*arguments)
    assert contents(tmp_path) == before

    assert run_script(*arguments, "--train", 3, "--overwrite").returncode == 0
    assert len(list((tmp_path / "shapes/train").iterdir())) == 3


def test_foreign_files_are_left_alone(run_script, tmp_path):
    file = tmp_path / "annotations/train.json"
    file.parent.mkdir()
    file.write_text('{"images": [{"file_name": "precious.jpg"}]}')
    done = run_script("make_shapes.py", "--out", tmp_path, "--overwrite", *SMALL)
    assert done.returncode == 2 and "not written by this script" in done.stderr
    assert list(contents(tmp_path)) == ["annotations/train.json"]


def test_own_files_among_ours_are_left_alone(run_script, tmp_path):
    run_script("make_shapes.py", "--out", tmp_path, *SMALL)
    (tmp_path / "train/precious.jpg").write_bytes(b"mine")
    before = contents(tmp_path)
    done = run_script("make_shapes.py", "--out", tmp_path, "--overwrite", *SMALL)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "precious.jpg" in done.stderr
    assert contents(tmp_path) == before


def test_counts_fall_by_100_to_1(scripts_on_path):
    import make_shapes

    counts = list(make_shapes.class_counts(1000, "train").values())
    assert counts[0] == 2400 and counts[-1] == 24
    falls = [more / less for more, less in zip(counts, counts[1:], strict=False)]
    assert falls[0] > 1 and falls == sorted(falls)  # steeper and steeper
    assert min(make_shapes.class_counts(300, "val").values()) == 12  # enough to measure
    labels, ids = make_shapes.plan(1000, 0, "train")
    assert Counter(name for image in labels for name in image) == make_shapes.class_counts(1000, "train")
    assert sum(not image for image in labels) >= 50
    assert len(set(ids)) == 1000 and max(ids) > 1000 and ids != sorted(ids)


def test_boxes_are_sound(run_script, tmp_path):
    run_script("make_shapes.py", "--out", tmp_path, "--train", 30, "--val", 1, "--test", 1)
    coco = json.loads((tmp_path / "annotations/train.json").read_text())
    ids = [category["id"] for category in coco["categories"]]
    assert len(ids) == 10 and ids != list(range(ids[0], ids[0] + 10))
    images = {image["id"]: image for image in coco["images"]}
    assert set(images) != set(range(1, 31)) and len(images) == 30
    assert {a["category_id"] for a in coco["annotations"]} == set(ids)
    for item in coco["annotations"]:
        x, y, w, h = item["bbox"]
        image = images[item["image_id"]]
        assert min(x, y) >= 0 and x + w <= image["width"] + 0.01 and y + h <= image["height"] + 0.01
        assert min(w, h) >= 7.99 and 0.2 * w * h < item["area"] <= w * h and item["iscrowd"] == 0


@pytest.mark.parametrize("name", ["disc", "ring", "crescent", "arrow", "star"])
def test_box_is_tight_around_the_mask(scripts_on_path, name):
    import numpy as np
    import shape_drawing

    rng = np.random.default_rng(0)
    outline = shape_drawing.turned(shape_drawing.SHAPES[name](rng), rng)
    outline = shape_drawing.placed(outline, 60, 200, 150, rng)
    rows, columns = shape_drawing.window_of(outline)
    mask = shape_drawing.mask_of(outline)
    assert mask.shape == (rows.stop - rows.start, columns.stop - columns.start)
    assert mask.max() == 1 and all(line.max() > 0 for line in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
