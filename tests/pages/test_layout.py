"""Pages fit a desk and a phone: what matters is in sight, names break between words, many classes are folded, and a
group of classes has one colour everywhere."""

import re
from pathlib import Path

import numpy as np
import pytest

from detector.data.class_groups import GROUPS
from detector.evaluation.compare import Comparison, Difference, Entry, FigureName
from detector.evaluation.metrics.significance import Chance, SeedFigures
from detector.evaluation.report.comparison import write_comparison
from detector.evaluation.report.page import write_report
from detector.pages.palette import GROUP_COLOURS, PALETTE

LONG = ["mask_weared_correctly", "without_mask", "mask_weared_incorrectly", "NoMaskAtAll/or_none-visible"]
BREAKS = re.compile(r"[_/\s-]\n|\n[\s.]|[a-z]\n[A-Z]")
# Of an element's text: where its lines begin, and whether all of it is inside the element `within`, in both directions.
LINES = """e => {
    const walker = document.createTreeWalker(e, NodeFilter.SHOW_TEXT), lines = [];
    let bottom = -Infinity;
    for (let node; (node = walker.nextNode());) for (let i = 0; i < node.length; i++) {
        const range = document.createRange();
        range.setStart(node, i); range.setEnd(node, i + 1);
        const box = range.getBoundingClientRect();
        if (box.width && box.top >= bottom - 2) { lines.push(''); bottom = box.bottom; }
        if (lines.length) lines[lines.length - 1] += node.data[i];
    }
    return lines;
}"""
INSIDE = """(e, within) => {
    const range = document.createRange();
    range.selectNodeContents(e);
    const box = range.getBoundingClientRect(), own = e.closest(within).getBoundingClientRect();
    return box.left >= own.left - 1 && box.right <= own.right + 1
        && box.top >= own.top - 1 && box.bottom <= own.bottom + 1;
}"""


@pytest.fixture(scope="module")
def few(tmp_path_factory, evaluated) -> Path:
    folder = tmp_path_factory.mktemp("layout")
    analysis = evaluated(folder, LONG)
    per_class = {name: {"positives": 5, "score_positive": 0.3} for name in LONG}
    curves = [{"kind": "classes", "step": 3, "epoch": 1, "per_class": per_class}]
    return _report(folder, analysis, curves)


@pytest.fixture(scope="module")
def many(tmp_path_factory, evaluated) -> Path:
    folder = tmp_path_factory.mktemp("many")
    analysis = evaluated(folder, [f"traffic_sign_of_the-kind {k}" for k in range(200)], images=60)
    return _report(folder, analysis, [])


def _report(folder: Path, analysis, curves: list[dict]) -> Path:
    path, rows = folder / "report.html", [("trained on", "/data/annotations/instances_train.json")]
    provenance = {"title": "runs/a", "rows": rows, "findings": []}
    write_report(path, metrics=analysis.metrics, matching=analysis.matching, provenance=provenance, curves=curves)
    return path


@pytest.fixture
def comparison(tmp_path) -> Path:
    """Of three runs with long names."""
    runs = ["runs/quickstart_baseline", "/home/somebody/runs/alpha_by_effective_number", "runs/repeat_factor_sampling"]
    figures = [FigureName("AP"), *map(FigureName, GROUPS), *(FigureName(name, of_class=True) for name in LONG)]
    figure = SeedFigures(np.full(3, 0.4), np.full((3, 99), 0.4), 50)
    entries = [Entry(run, 3, dict.fromkeys(figures[:4], figure), {}) for run in runs]
    rows = [Difference(run, name, 0.4, 0.5, Chance(0.02, 4)) for run in runs[1:] for name in figures]
    write_comparison(tmp_path / "compare.html", Comparison("val of a.yaml", entries, rows, []))
    return tmp_path / "compare.html"


def closed(page) -> int:
    """The height of the page as it opens, when nothing is unfolded."""
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = false")
    return page.evaluate("document.documentElement.scrollHeight")


@pytest.mark.parametrize(("width", "most"), [(1400, 11000), (400, 18000)])
def test_page_of_200_classes_is_short_until_it_is_unfolded(many, visit, width, most):
    page = visit(many, width=width)
    unfolded = page.evaluate("document.documentElement.scrollHeight")
    assert closed(page) < most < unfolded
    first = page.locator("#gallery h3").first  # the rarest class is in sight
    assert first.is_visible() and first.inner_text().startswith("traffic_sign_of_the-kind 199")
    assert (
        page.locator("#pr .small figure").first.is_visible() and not page.locator("#pr .small figure").last.is_visible()
    )


def test_tables_of_a_comparison_fit_a_desk(comparison, visit):
    page = visit(comparison, width=1400)
    wide = "all => all.filter(s => s.scrollWidth > s.clientWidth).map(s => s.ariaLabel)"
    assert page.eval_on_selector_all(".scroll", wide) == []


@pytest.mark.parametrize(
    ("which", "cell"),
    [
        ("few", "#class-table td:nth-child(5)"), ("few", "#coco td:nth-child(2)"), ("few", "#groups td:nth-child(2)"),
        ("few", "#errors td:nth-child(2)"), ("comparison", "#runs td:nth-child(3)"),
        ("comparison", "#figures td:nth-child(3)"), ("comparison", "#classes td:nth-child(3)"),
    ],
)  # fmt: skip
def test_column_that_matters_is_in_sight_on_a_phone_beside_the_name(request, visit, which, cell):
    page = visit(request.getfixturevalue(which), width=400)
    cells = page.locator(cell)
    assert cells.count() and all(cells.nth(i).evaluate(INSIDE, ".scroll") for i in range(cells.count()))
    name = page.locator(cell.split()[0]).locator("tbody th").first
    before = name.bounding_box()["x"]
    name.evaluate("e => { e.closest('.scroll').scrollLeft = 150 }")
    assert name.bounding_box()["x"] == before  # it stays while the figures scroll


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("which", ["few", "comparison"])
def test_names_break_between_their_words(request, visit, which, width):
    page = visit(request.getfixturevalue(which), width=width)
    names = page.locator(".breakable:not(thead *)")
    assert names.count() > 12
    for lines in (names.nth(i).evaluate(LINES) for i in range(names.count())):
        for line, after in zip(lines, lines[1:], strict=False):
            assert BREAKS.search(f"{line}\n{after}"), lines


@pytest.mark.parametrize("width", [1400, 400])
def test_rotated_headings_are_whole(few, visit, width):
    page = visit(few, width=width)
    headings = page.locator("#confusion thead span.breakable")
    assert headings.all_text_contents() == [*LONG, "background"]
    assert all(headings.nth(i).evaluate(INSIDE, "th") for i in range(len(LONG) + 1))


def colours(page, selector: str, what: str = "backgroundColor") -> set[str]:
    return set(page.eval_on_selector_all(selector, f"all => all.map(e => getComputedStyle(e).{what})"))


def test_a_group_has_one_colour_on_all_pages(few, comparison, visit):
    assert set(GROUP_COLOURS) == set(GROUPS)
    lights = [light for light, _ in PALETTE.values()]
    assert len(lights) == len(set(lights))  # plots are recoloured by these
    report, compare = visit(few, width=1400), visit(comparison, width=1400)
    lines = colours(report, "#pr svg.plot path", "stroke")
    for group, colour in GROUP_COLOURS.items():
        expected = {f"rgb({', '.join(map(str, bytes.fromhex(colour[1:])))})"}
        assert colours(compare, f".badge.{group}") == expected
        if report.locator(f"#class-table .{group}").count():
            assert colours(report, f".badge.{group}") == colours(report, f".tile.{group}", "borderTopColor") == expected
            assert colours(report, f".small .{group} polyline", "stroke") == expected <= lines
