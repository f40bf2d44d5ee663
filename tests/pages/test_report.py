"""The report of an evaluation in a browser: few classes with names meant to break it, and many."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import read_coco
from detector.data.descriptor import Split
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.matching import match
from detector.evaluation.report.page import write_report

NASTY = "<script>window.broken = 1</script></svg><img src=x onerror='window.broken = 1'> $x$ {{ 7 * 7 }}"
PROVENANCE = {
    "title": f"Evaluation of {NASTY}",
    "rows": [("trained on", NASTY), ("image size", "64")],
    "findings": [f"train: 3 boxes of {NASTY}"],
}
CURVES = [
    *({"kind": "train", "step": s, "loss": 3 / s, "loss_cls": 2 / s, "loss_box": 1 / s, "lr": 0.1} for s in (1, 2, 3)),
    {"kind": "eval", "step": 3, "epoch": 1, "AP": 0.2, "AP50": 0.4},
    {"kind": "classes", "step": 3, "epoch": 1, "per_class": {NASTY: {"positives": 5, "score_positive": 0.3}}},
]


@pytest.fixture(scope="module")
def few(tmp_path_factory, evaluated) -> Path:
    """A report of three classes and of a run."""
    folder = tmp_path_factory.mktemp("few")
    analysis = evaluated(folder, ["cat", "b <b>bold</b>", NASTY])
    write_report(
        folder / "report.html", metrics=analysis.metrics, matching=analysis.matching, provenance=PROVENANCE,
        curves=CURVES,
    )  # fmt: skip
    return folder / "report.html"


@pytest.fixture(scope="module")
def many(tmp_path_factory, evaluated) -> Path:
    """A report of 90 classes, of no run."""
    folder = tmp_path_factory.mktemp("many")
    analysis = evaluated(folder, [f"a class of some name {k}" for k in range(89)] + ["x" * 200], images=50)
    write_report(
        folder / "report.html", metrics=analysis.metrics, matching=analysis.matching,
        provenance={"title": "many", "rows": [], "findings": []}, curves=[],
    )  # fmt: skip
    return folder / "report.html"


def column(page, table: str, number: int) -> list[str]:
    cells = f"{table} tbody tr > :nth-child({number})"
    return page.eval_on_selector_all(cells, "all => all.map(c => c.dataset.value ?? c.textContent)")


def test_report_opens_and_says_everything(few, visit):
    page = visit(few)
    assert page.title() == PROVENANCE["title"]
    assert page.evaluate("window.broken") is None
    linked = page.eval_on_selector_all("nav a", "all => all.map(a => a.getAttribute('href').slice(1))")
    assert linked == page.eval_on_selector_all("section", "all => all.map(s => s.id)")
    assert page.locator("#training svg.plot").count() == 4
    assert page.locator("#pr svg.plot").count() == page.locator("#calibration svg.plot").count() == 1
    assert page.locator("#pr .small svg").count() == 3
    assert page.locator("#confusion td").count() == 16
    assert NASTY in page.text_content("#class-table") and NASTY in page.text_content("#verdict")
    assert page.text_content("#provenance li") == f"train: 3 boxes of {NASTY}"


def test_pictures_of_the_report_show_and_say_what_they_are(few, visit):
    page = visit(few)
    for section, words in (("#gallery", "missed: "), ("#gallery", "false positive: "), ("#suspects", "nothing is lab")):
        assert page.locator(f"{section} img[alt*='{words}']").count() > 0


@pytest.mark.parametrize(("number", "name"), [(3, "boxes in training"), (5, "AP"), (10, "recall")])
def test_class_table_sorts_by_any_column(many, visit, number, name):
    page = visit(many, width=1400)
    heading = page.locator(f"#class-table thead th:nth-child({number})")
    assert heading.text_content() == name
    heading.locator("button").click()
    values = [float(v) for v in column(page, "#class-table", number) if v]
    assert len(values) >= 80 and values == sorted(values)
    heading.locator("button").click()
    values = [float(v) for v in column(page, "#class-table", number) if v]
    assert values == sorted(values, reverse=True)


def test_report_of_many_classes(many, visit):
    page = visit(many)
    assert page.locator("#training").count() == 0
    assert page.locator("#class-table tbody tr").count() == 90
    assert page.locator("#confusion table.heat").count() == 0
    assert page.locator("#confusion tbody tr").count() == 40  # the most confused pairs
    assert page.locator("#class-table .inconclusive").count() == 90
    assert 40 < page.locator("img").count() <= 120
    assert many.stat().st_size < 10e6


def test_rare_classes_stand_first_in_the_gallery_and_in_the_table(few, visit):
    page = visit(few, width=1400)
    shown = page.eval_on_selector_all("#gallery h3", "all => all.map(h => h.firstChild.textContent)")
    assert shown == [NASTY, "b <b>bold</b>", "cat"]
    assert [int(n) for n in column(page, "#class-table", 3)] == [0, 5, 10]


@pytest.mark.parametrize("found", [0, 1])
def test_report_where_nothing_is_labelled(tmp_path, visit, analysed, found):
    (tmp_path / "val.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}], "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }))  # fmt: skip
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    data = read_coco(Split(tmp_path, tmp_path / "val.json"))
    one = np.zeros(1, int)
    detections = Detections(one, np.array([[0, 0, 5, 5]], np.float32), np.full(1, 0.9, np.float32), one)
    analysis = analysed(match(detections.select(np.arange(1) < found), data), None)
    path = tmp_path / "new" / "report.html"
    write_report(path, metrics=analysis.metrics, matching=analysis.matching, provenance=PROVENANCE, curves=[])
    page = visit(path)
    assert "Not one object here of cat" in page.text_content("#verdict")


def test_report_of_numbers_read_back_from_the_file(tmp_path, visit, evaluated):
    analysis = evaluated(tmp_path, ["cat", "dog"], images=4)
    metrics = json.loads(json.dumps(analysis.metrics))
    write_report(tmp_path / "a.html", metrics=metrics, matching=analysis.matching, provenance=PROVENANCE, curves=[])
    write_report(tmp_path / "b.html", metrics=metrics, matching=analysis.matching, provenance=PROVENANCE, curves=[])
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()
    visit(tmp_path / "a.html", width=380)
