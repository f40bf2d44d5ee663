"""What all pages share: nothing of what somebody typed becomes markup, tables sort, plots and pictures are inside."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from detector.pages import pictures
from detector.pages.outlines import Outline
from detector.pages.palette import COLOURS
from detector.pages.render import breakable, figure, interval, percent, render, signed, value
from detector.pages.svg import plain, plot_style, svg
from detector.utils.errors import InputError

NASTY = "<script>window.broken = 1</script></svg><img src=x onerror='window.broken = 1'>{{ 7 * 7 }} $x$ &amp; \"q\""

TABLE = """
{% extends "base.html" %}
{% block content %}
<section id="all"><h2>{{ name }}</h2>
{% call m.scroll(name) %}
<table class="sortable"><thead><tr><th>class</th><th>AP</th></tr></thead><tbody>
{% for n, ap in rows %}<tr><th>{{ n }}</th><td data-value="{{ ap|value }}">{{ ap|figure }}</td></tr>{% endfor %}
</tbody></table>
{% endcall %}
<figure>{{ plot }}</figure><figure>{{ other }}</figure>
{{ m.cards(cards) }}
</section>
{% endblock %}
"""


def a_plot(name: str, title: str):
    from matplotlib.figure import Figure

    with plot_style():
        drawn = Figure(figsize=(4, 3), layout="constrained")
        axes = drawn.subplots()
        axes.plot([0, 1, 2], [1, 3, 2], "o-", label=plain(title))
        axes.set(title=plain(title), ylim=(0, 4))
        axes.legend()
        return svg(drawn, name, alt=title)


@pytest.fixture
def page_file(tmp_path, monkeypatch):
    """A page with a table, two plots and a picture, all of them named NASTY."""
    from jinja2 import ChoiceLoader, DictLoader

    from detector.pages import render as module

    environment = module._environment()
    loader = ChoiceLoader([DictLoader({"table.html": TABLE}), environment.loader])
    monkeypatch.setattr(environment, "loader", loader)
    rows = [("b10", 9.0), ("b9", -1), (NASTY, 0.25), ("a", 0.1), ("c", None), ("d", 10.0)]
    card = pictures.Card(NASTY, NASTY, 0, [], tag="new", tone="bad")
    pictures.take_pictures([card], lambda i: np.full((40, 60, 3), 200, np.uint8))
    path = tmp_path / "page.html"
    plots = {"plot": a_plot("one", NASTY), "other": a_plot("two", NASTY)}
    sections = [("all", NASTY)]
    path.write_text(render("table.html", title=NASTY, name=NASTY, rows=rows, cards=[card], sections=sections, **plots))
    return path


def names(page) -> list[str]:
    return page.eval_on_selector_all("tbody th", "cells => cells.map(c => c.textContent)")


def test_names_are_text_wherever_they_stand(page_file, visit):
    page = visit(page_file)
    assert page.title() == NASTY
    assert page.text_content("h2") == NASTY
    assert page.get_attribute("img", "alt") == f"new: {NASTY}: {NASTY}"
    assert page.get_attribute("svg", "aria-label") == NASTY
    assert page.evaluate("window.broken") is None
    assert page.locator("script").count() == 1 and page.locator("img").count() == 1


def test_page_may_ask_for_nothing(page_file, visit):
    page = visit(page_file, width=1400)
    blocked = """async url => { try { await fetch(url); return false } catch { return true } }"""
    assert page.evaluate(blocked, "https://example.org/")
    addresses = page.eval_on_selector_all("[src], [href]", "all => all.map(e => e.src ?? e.getAttribute('href'))")
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}


def test_table_sorts_by_click_and_back_by_another_with_gaps_last(page_file, visit):
    page = visit(page_file, width=1400)
    ap = page.locator("thead th").nth(1)
    assert ap.get_attribute("aria-sort") is None
    ap.locator("button").click()
    assert ap.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["a", NASTY, "b10", "d", "b9", "c"]  # as numbers; the two without a figure last
    ap.locator("button").click()
    assert ap.get_attribute("aria-sort") == "descending"
    assert names(page) == ["d", "b10", NASTY, "a", "b9", "c"]


def test_table_sorts_by_keyboard_and_counts_in_names(page_file, visit):
    page = visit(page_file, width=1400)
    page.locator("thead button").first.focus()
    page.keyboard.press("Enter")
    assert names(page)[1:] == ["a", "b9", "b10", "c", "d"]
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    headings = page.locator("thead th")
    assert [headings.nth(i).get_attribute("aria-sort") for i in (0, 1)] == [None, "ascending"]


def test_a_plot_wears_the_colours_of_the_page_and_keeps_its_text(browser):
    drawn = a_plot("one", "boxes")
    assert "boxes" in drawn and "<text" in drawn
    assert "var(--c1)" in drawn and COLOURS[0] not in drawn and "var(--ink)" in drawn
    assert "DejaVu" not in drawn
    assert set(re.findall(r'\bid="(\w+)-', drawn)) == {"one"}
    assert set(re.findall(r"url\(#(\w+)-", drawn)) == {"one"}


def test_plot_is_the_same_each_time():
    assert a_plot("one", "boxes") == a_plot("one", "boxes")


def test_names_in_plots_are_short_and_printable():
    assert plain("a\x00b\n c") == "ab c"
    assert plain("a" * 20 + "z" * 20) == "a" * 14 + "…" + "z" * 13
    assert plain("x" * 28) == "x" * 28


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mask_weared_incorrect", ["mask_", "weared_", "incorrect"]), ("runs/photo.png", ["runs/", "photo", ".png"]),
        ("SpeedLimit, IoU 0.50", ["Speed", "Limit, IoU 0.50"]), ("a<b", ["a&lt;b"]), ("", [""]),
        ("train.epochs=9.", ["train.epochs=9."]),
    ],
)  # fmt: skip
def test_names_may_break_between_their_words_only(name, parts):
    assert breakable(name) == f'<span class="breakable">{"<wbr>".join(parts)}</span>'


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (figure(0.12345), "0.123"), (figure(-1), "–"), (figure(None), "–"), (figure(float("nan")), "–"),
        (signed(-0.0123), "−0.012"), (signed(0.5), "+0.500"), (interval([0.1, 0.25]), "0.100 to 0.250"),
        (interval(None), ""), (percent(0.004), "0.4 %"), (percent(0), "0 %"), (percent(0.123), "12 %"),
        (value(-1), ""), (value(0.5), "0.5"),
    ],
)  # fmt: skip
def test_figures_as_text(given, shown):
    assert given == shown


def test_picture_is_cut_around_its_box_with_the_box_on_it():
    image = np.zeros((400, 600, 3), np.uint8)
    image[200:300, 300:400] = 255
    box = (300, 200, 400, 300)
    picture = np.asarray(pictures.thumbnail(image, [Outline(box, "#ff0000", 3)], around=box)).astype(int)
    assert picture.shape == (320, 320, 3)  # 100 pixels and 100 on each side
    assert (picture[160, 160] > 240).all() and (picture[20, 20] < 15).all()
    edge = 107  # the box's left edge: 100 / 300 of 320
    assert picture[160, edge - 2, 0] > 180 and picture[160, edge - 2, 1] < 90  # red, beside the box
    assert (picture[160, edge + 3] > 240).all()  # what is in the box stays as it is


@pytest.mark.parametrize(
    "box", [(-50, -50, 2000, 2000), (590, 390, 600, 400), (700, 500, 800, 600), (10, 10, 10, 10), (30, 30, 20, 20)]
)
def test_any_box_gives_a_picture(box):
    assert (
        max(pictures.thumbnail(np.zeros((400, 600, 3), np.uint8), [Outline(box, "white", 2, "a")], around=box).size)
        == 320
    )


def test_a_box_without_numbers_is_not_drawn():
    nan = float("nan")
    image = np.full((50, 50, 3), 128, np.uint8)
    assert pictures.thumbnail(image, [Outline((nan, 0, 5, 5), "red", 2, "a")]) == pictures.thumbnail(image, [])


def test_each_image_is_read_once_and_an_unreadable_one_leaves_no_picture():
    reads = []

    def read(i: int) -> np.ndarray:
        reads.append(i)
        if i == 1:
            raise InputError("cut short")
        return np.zeros((20, 30, 3), np.uint8)

    cards = [pictures.Card("", "", i, []) for i in (2, 1, 2, 0, 1)]
    pictures.take_pictures(cards, read)
    assert sorted(reads) == [0, 1, 2]
    assert [bool(card.picture) for card in cards] == [True, False, True, True, False]
    head, code = cards[0].picture.split(",")
    picture = Image.open(io.BytesIO(b64decode(code)))
    assert head == "data:image/jpeg;base64" and picture.size == (cards[0].width, cards[0].height) == (320, 213)
