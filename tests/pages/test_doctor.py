"""The doctor's page in a browser, with pictures, without, and of names that are not to be followed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.checks.finding import Example, Finding
from detector.doctor.examination import examine_dataset, write_html
from detector.doctor.page import MAX_PICTURES, write_page

NAN = float("nan")
NASTY = "<script>window.broken = 1</script>"


def finding(severity: str, examples: list[Example], split: str = "train", count: int = 9) -> Finding:
    return Finding(severity, "zero-size", split, count, f"boxes of {NASTY}", "correct them", examples)


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    for split, value in (("train", 60), ("val", 200)):
        (tmp_path / split / "sub").mkdir(parents=True)
        Image.fromarray(np.full((90, 120, 3), value, np.uint8)).save(tmp_path / split / f"{split}.png")
        Image.fromarray(np.full((90, 120, 3), value, np.uint8)).save(tmp_path / split / "sub" / "b.png")
    (tmp_path / "train" / "torn.png").write_bytes((tmp_path / "train" / "train.png").read_bytes()[:60])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "secret.png")
    return {"train": tmp_path / "train", "val": tmp_path / "val"}


def shown(tmp_path, visit, findings: list[Finding], folders: dict):
    write_page(tmp_path / "page.html", title=NASTY, findings=findings, folders=folders)
    return visit(tmp_path / "page.html")


def test_findings_with_severity_count_advice_and_pictures(folders, tmp_path, visit):
    page = shown(tmp_path, visit, [
        finding("error", [Example("annotation 1", "train.png", ((10, 10, 0, 0),)), Example("annotation 2")]),
        finding("warning", [Example("a pair", "val.png")], split="train and val", count=1),
        finding("note", [Example("in a folder", "sub/b.png", ((NAN, 1, 2, 3), (1, 1, 5, 5)))], split="val"),
    ], folders)  # fmt: skip
    assert page.title() == NASTY and page.evaluate("window.broken") is None
    articles = page.locator("article")
    assert articles.count() == 3
    text = articles.nth(0).inner_text()
    assert all(part in text for part in ("error", "9 times", NASTY, "correct them", "annotation 2", "and 7 more"))
    assert [articles.nth(i).locator("img").count() for i in range(3)] == [1, 1, 1]
    assert articles.nth(0).locator("li").all_inner_texts() == ["annotation 2"]  # the other has its picture
    assert page.locator(".tile b").all_inner_texts() == ["1", "1", "1"]


def test_both_of_a_pair_stand_side_by_side(folders, tmp_path, visit):
    pair = Example("train and val", "train.png", beside=("val", "val.png"))
    page = shown(tmp_path, visit, [finding("warning", [pair, pair], split="train and val", count=1)], folders)
    rows = page.locator("article .cards")
    assert rows.count() == 2
    (left, right) = rows.nth(0).locator("img").all()
    assert left.bounding_box()["y"] == right.bounding_box()["y"]
    assert left.get_attribute("src") != right.get_attribute("src")
    assert rows.nth(0).locator("strong").all_inner_texts() == ["train.png", "val.png"]


@pytest.mark.parametrize("name", ["../secret.png", "{}/secret.png", "gone.png", "torn.png", "sub", "a\0b", "x" * 5000])
def test_pictures_that_cannot_or_must_not_be_shown_leave_the_words(folders, tmp_path, visit, name):
    name = name.format(tmp_path)
    page = shown(tmp_path, visit, [finding("error", [Example("the case", name, ((1, 1, 5, 5),))])], folders)
    assert page.locator("img").count() == 0
    assert page.locator("article li").all_inner_texts() == ["the case"]


def test_names_that_utf8_cannot_hold(folders, tmp_path, visit):
    page = shown(tmp_path, visit, [finding("error", [Example("half a character: \ud800")])], folders)
    assert page.locator("article li").all_inner_texts() == ["half a character: ?"]


def test_number_of_pictures_is_bounded(folders, tmp_path, visit):
    many = [finding("error", [Example(f"case {i}-{j}", "train.png") for j in range(5)]) for i in range(30)]
    page = shown(tmp_path, visit, many, folders)
    assert page.locator("img").count() == MAX_PICTURES
    assert page.locator("img, li").count() == 150  # the others in words


def test_sound_dataset(tmp_path, visit):
    page = shown(tmp_path, visit, [], {})
    assert "No problem was found" in page.text_content("#findings")
    assert page.eval_on_selector_all("section", "all => all.map(s => s.id)") == ["findings"]


@pytest.fixture
def dataset(folders, tmp_path) -> Path:
    """Descriptor of two splits of two images each, with a class named to break the page and boxes of all sizes."""
    for split in folders:
        names = [f"{split}.png", "sub/b.png"]
        boxes = [([10 * n + 1, 10 * n + 1, size, size], 1 + n % 2) for n, size in enumerate((2, 3, 30, 40, 25, 8))]
        coco = {
            "images": [{"id": i, "file_name": name, "width": 120, "height": 90} for i, name in enumerate(names)],
            "annotations": [
                {"id": 10 * i + n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] ** 2, "iscrowd": 0}
                for i in range(2)
                for n, (box, c) in enumerate(boxes)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": NASTY}, {"id": 3, "name": "never seen"}],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(coco))
    lines = [f"{split}: {{images: {split}, annotations: {split}.json}}\n" for split in folders]
    (tmp_path / "data.yaml").write_text("".join(lines))
    return tmp_path / "data.yaml"


@pytest.mark.parametrize("bare", [False, True])
def test_page_of_a_whole_examination(dataset, tmp_path, visit, bare):
    path = tmp_path / "alone" / "train.json" if bare else dataset
    if bare:  # no images beside it
        path.parent.mkdir()
        path.write_text((tmp_path / "train.json").read_text())
    write_html(examine_dataset(str(path)), tmp_path / "page.html")
    page = visit(tmp_path / "page.html")
    assert page.evaluate("window.broken") is None
    sections = page.eval_on_selector_all("section", "all => all.map(s => s.id)")
    assert sections == ["findings", "classes", "together", "sizes", "reach", "advice"]
    assert page.eval_on_selector_all("nav a", "all => all.map(a => a.hash.slice(1))") == sections
    assert page.locator("svg.plot").count() == 3
    assert page.locator("#together td").count() == 9
    assert page.locator("#class-table tbody th").all_inner_texts() == ["never seen", NASTY, "cat"]  # the rarest first
    page.locator("#class-table thead button").nth(0).click()
    assert page.locator("#class-table tbody th").all_inner_texts() == [NASTY, "cat", "never seen"]
    assert page.locator("#reach tbody tr").count() == 2
    assert (page.locator("#reach img").count() > 0) is not bare
    assert "image_size" in page.inner_text("#advice pre")
