"""split.py: splits that train can use at once, with nothing in two of them; what it refuses, and what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import check_images_exist, read_coco
from detector.data.descriptor import load_descriptor

CATEGORIES = [{"id": 3, "name": "dark"}, {"id": 7, "name": "light"}]


def picture(seed: int) -> Image.Image:
    """A picture that looks like no other."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((32, 24), Image.Resampling.BICUBIC)


def write_split(folder: Path, name: str, seeds: list[int], categories: list[dict] = CATEGORIES, **columns) -> None:
    """A picture of each seed, with a light box each, and a dark one where the seed is a multiple of 10."""
    (folder / name).mkdir(parents=True)
    coco = {"info": {"year": 2024}, "images": [], "annotations": [], "categories": categories}
    ids = {category["name"]: category["id"] for category in categories}
    for i, seed in enumerate(seeds):
        picture(seed).save(folder / name / f"{i}.png")
        more = {key: values[i] for key, values in columns.items()}
        coco["images"].append({"id": i, "file_name": f"{i}.png", "width": 32, "height": 24, **more})
        for kind in ("light", "dark")[: 1 + (seed % 10 == 0)]:
            box = {"image_id": i, "category_id": ids[kind], "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            coco["annotations"].append({"id": len(coco["annotations"]), "seed": seed, **box})
    (folder / f"{name}.json").write_text(json.dumps(coco))


def describe(folder: Path, *names: str) -> Path:
    lines = [f"{name}: {{images: {name}, annotations: {name}.json}}\n" for name in names]
    (folder / "mine.yaml").write_text("".join(lines))
    return folder / "mine.yaml"


@pytest.fixture
def split(run_script):
    """Runs split.py and returns what it says and the seeds of each split that it wrote."""

    def split(dataset: Path, *arguments, out: str = "mine_split.yaml") -> tuple[str, dict[str, list[int]]]:
        done = run_script("split.py", dataset, *arguments)
        assert done.returncode == 0, done.stderr
        descriptor, seeds = load_descriptor(dataset.parent / out), {}
        for name in descriptor.splits:
            check_images_exist(read_coco(descriptor.split(name)))  # ids and references are right
            boxes = json.loads(descriptor.splits[name].annotations.read_text())["annotations"]
            seeds[name] = sorted({box["seed"] for box in boxes})
        return done.stdout, seeds

    return split


@pytest.fixture
def fails(run_script):
    def fails(*arguments) -> str:
        done = run_script("split.py", *arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    return fails


def test_val_and_test_are_made_of_train(split, tmp_path):
    write_split(tmp_path, "train", list(range(50)))
    said, seeds = split(describe(tmp_path, "train"), "--test", "5")
    assert {name: len(own) for name, own in seeds.items()} == {"train": 35, "val": 10, "test": 5}
    assert sorted(sum(seeds.values(), [])) == list(range(50))
    assert [sum(seed % 10 == 0 for seed in own) for own in seeds.values()] == [3, 1, 1]  # of the rare class
    assert [line.split() for line in said.splitlines() if line.startswith(("images", "dark"))] == [
        ["images", "50", "35", "70.0%", "10", "20.0%", "5", "10.0%"],
        ["dark", "5", "3", "60.0%", "1", "20.0%", "1", "20.0%"],
    ]
    written = json.loads((tmp_path / "mine_split_val.json").read_text())
    assert written["info"] == {"year": 2024} and written["categories"] == CATEGORIES
    assert split(tmp_path / "mine.yaml", "--test", "5", "--overwrite")[1] == seeds
    assert split(tmp_path / "mine.yaml", "--test", "5", "--overwrite", "--seed", "1")[1] != seeds


def test_an_annotation_file_and_its_images_folder(split, tmp_path):
    write_split(tmp_path, "train", list(range(10)))
    _, seeds = split(tmp_path / "train.json", "--images", tmp_path / "train", out="train_split.yaml")
    assert {name: len(own) for name, own in seeds.items()} == {"train": 8, "val": 2}


def test_alike_pictures_and_patients_stay_together(split, tmp_path):
    alike = [seed for seed in range(10) for _ in range(3)]  # three copies of each
    write_split(tmp_path, "train", alike, patient=[seed // 2 for seed in alike])
    said, seeds = split(describe(tmp_path, "train"))
    assert "of 30 images, 30 look nearly like others; groups that stay whole: 10" in said and len(seeds["val"]) == 2
    assert not set(seeds["train"]) & set(seeds["val"])
    _, seeds = split(tmp_path / "mine.yaml", "--group-by", "patient", "--overwrite")
    assert not {seed // 2 for seed in seeds["train"]} & {seed // 2 for seed in seeds["val"]}


def test_a_leak_is_repaired_by_moving_the_fewest_and_annotations_go_along(split, tmp_path):
    write_split(tmp_path, "train", [*range(10), 30, 30])
    others = [{"id": 1, "name": "light"}, {"id": 3, "name": "grey"}, {"id": 9, "name": "dark"}]
    write_split(tmp_path, "val", [20, 21, 22, 30], others)  # other ids; one picture is in train twice
    said, seeds = split(describe(tmp_path, "train", "val"))
    assert seeds == {"train": [*range(10), 30], "val": [20, 21, 22]}
    assert "moved from val to train: 1 image\n  3.png, from val to train\n" in said
    train, val = (json.loads((tmp_path / f"mine_split_{name}.json").read_text()) for name in ("train", "val"))
    assert train["categories"] == val["categories"] == [*CATEGORIES, {"id": 8, "name": "grey"}]
    moved = train["images"][-1]
    assert moved == {"id": 12, "file_name": "val/3.png", "width": 32, "height": 24}  # id 3 is taken
    assert [box["category_id"] for box in train["annotations"] if box["image_id"] == 12] == [7, 3]
    assert [image["id"] for image in val["images"]] == [0, 1, 2]
    assert load_descriptor(tmp_path / "mine_split.yaml").splits["val"].images.resolve() == tmp_path.resolve()


def test_a_file_that_two_splits_list_is_kept_once(split, tmp_path):
    write_split(tmp_path, "train", list(range(12)))
    tree = json.loads((tmp_path / "train.json").read_text())
    tree["images"], tree["annotations"] = tree["images"][:4], [a for a in tree["annotations"] if a["image_id"] < 4]
    (tmp_path / "val.json").write_text(json.dumps(tree))
    descriptor = describe(tmp_path, "train", "val")
    descriptor.write_text(descriptor.read_text().replace("images: val", "images: train"))
    said, seeds = split(descriptor)
    assert "listed in two splits: 4 images;" in said
    assert sorted(seeds["train"] + seeds["val"]) == list(range(12)) and len(seeds["val"]) == 2


def test_where_nothing_leaks_nothing_is_written_but_anew(split, run_script, tmp_path):
    write_split(tmp_path, "train", [1, 2, 3, 4, 5, 6, 7, 8])
    write_split(tmp_path, "val", [10, 20])
    done = run_script("split.py", describe(tmp_path, "train", "val"))
    assert done.returncode == 0 and "nothing to repair" in done.stdout and "--anew would share" in done.stdout
    assert not (tmp_path / "mine_split.yaml").exists()
    _, seeds = split(tmp_path / "mine.yaml", "--anew")
    assert len(seeds["val"]) == 2 and len({10, 20} & set(seeds["train"])) == 1


def test_a_fixed_camera(split, fails, tmp_path):
    seeds = [0] * 20
    write_split(tmp_path, "train", seeds, scene=[f"s{i // 5}" for i in range(20)])
    for i in range(20):  # not quite equal
        picture(0).resize((64 + i, 48)).resize((32, 24)).save(tmp_path / "train" / f"{i}.png")
    descriptor = describe(tmp_path, "train")
    assert "20 of 20 images look nearly the same" in fails(descriptor)
    said, _ = split(descriptor, "--group-by", "scene", "--val", "0.25")
    assert "only scene keeps them together" in said
    val = json.loads((tmp_path / "mine_split_val.json").read_text())["images"]
    assert len(val) == 5 and len({image["scene"] for image in val}) == 1
    split(descriptor, "--blocks", "4", "--val", "0.25", "--overwrite")
    names = [
        int(image["file_name"][:-4]) for image in json.loads((tmp_path / "mine_split_val.json").read_text())["images"]
    ]
    assert names == list(range(names[0], names[0] + 5))  # 9.png comes before 10.png


def test_what_cannot_be_done_is_said(split, fails, tmp_path):
    write_split(tmp_path, "train", [10, 1, 2, 3, 3, 3, 3, 3, 3, 3], [*CATEGORIES, {"id": 9, "name": "grey"}])
    said, seeds = split(describe(tmp_path, "train"), "--val", "4")
    assert "warning: dark: none in val: all of it is in one image or group" in said
    assert "warning: grey: no image has an object of it" in said
    assert "val has 2 images, not 4: groups stay whole, the largest of 7" in said


def test_wrong_input(fails, tmp_path):
    write_split(tmp_path, "train", list(range(6)), patient=[1, 1, 2, 2, 3, None])
    write_split(tmp_path, "val", [7, 8])
    both, only = describe(tmp_path, "train", "val"), tmp_path / "only.yaml"
    only.write_text(both.read_text().splitlines()[0] + "\n")
    assert "neither a fraction" in fails(only, "--val", "1.5")
    assert "has a val split" in fails(both, "--val", "0.3")
    assert "leave none for train" in fails(only, "--val", "3", "--test", "0.5")
    assert "1 of 6 images have no `patient`, such as 5.png" in fails(only, "--group-by", "patient")
    assert "did you mean 'patient'?" in fails(only, "--group-by", "patients")
    assert "is a file of the dataset itself" in fails(only, "--out", only, "--overwrite")
    (tmp_path / "only_split_val.json").write_text("mine")
    assert "only_split_val.json: exists already" in fails(only)
    (tmp_path / "train" / "2.png").unlink()
    assert "1 of the 6 images" in fails(only, "--out", tmp_path / "o.yaml")
    assert not (tmp_path / "o.yaml").exists()
