"""The curves of a run: what is drawn onto axes, for the PNG files and for the page alike."""

import json
import math

import pytest
from matplotlib.figure import Figure
from PIL import Image

from detector.evaluation.report.curves import (
    class_lines,
    draw_ap,
    draw_class_figure,
    draw_learning_rate,
    draw_losses,
    plot_classes,
    plot_curves,
)
from detector.evaluation.report.plots import training_plots
from detector.pages.palette import GREY, GROUP_COLOURS


def train_line(step: int, loss: float) -> dict:
    return {"kind": "train", "step": step, "epoch": 1, "loss": loss, "loss_cls": loss / 2, "loss_box": 0.1, "lr": 0.01}


def class_line(epoch: int, **positives: int) -> dict:
    per_class = {
        name: {"positives": count, "score_positive": 0.5 if count else None, "gradient_ratio": 1.0, "loss_share": 0.1}
        for name, count in positives.items()
    }
    return {"kind": "classes", "step": epoch, "epoch": epoch, "per_class": per_class}


@pytest.fixture
def axes():
    return Figure().subplots()


def test_losses_are_drawn_to_where_nearly_all_of_them_are(axes):
    draw_losses(axes, [train_line(step, 1000 if step == 1 else 2.0) for step in range(1, 301)])
    assert [line.get_label() for line in axes.lines] == ["loss", "loss_cls", "loss_box"]
    assert axes.get_ylim() == (0, pytest.approx(2.2))
    assert axes.lines[0].get_marker() == "None"


def test_a_few_points_are_marked(axes):
    draw_learning_rate(axes, [train_line(1, 3.0), train_line(2, 2.0)])
    assert axes.lines[0].get_marker() == "." and axes.get_ylim()[0] == 0


def test_ap_against_epochs(axes):
    draw_ap(axes, [{"epoch": 1, "AP": 0.1, "AP50": 0.2}, {"epoch": 2, "AP": 0.3, "AP50": 0.4}])
    assert [(line.get_label(), list(line.get_ydata())) for line in axes.lines] == [
        ("AP", [0.1, 0.3]), ("AP50", [0.2, 0.4]),
    ]  # fmt: skip
    assert list(axes.lines[0].get_xdata()) == [1, 2] and axes.get_xlabel() == "epoch"


def test_the_rarest_half_of_the_classes_is_strong_the_commonest_first():
    lines = class_lines([class_line(1, a=5, b=70, c=20), class_line(2, a=3, b=90, c=20)], {})
    assert [(line.label, line.rare) for line in lines] == [("b (80)", False), ("c (20)", True), ("a (4)", True)]
    assert lines[0].style["linewidth"] < lines[1].style["linewidth"]
    many = class_lines([class_line(1, **{f"c{i}": i for i in range(40)})], {})
    assert [line.name for line in many] == [f"c{i}" for i in (39, 38, 37, 36, 35, 34, 5, 4, 3, 2, 1, 0)]


def test_lines_have_the_colour_of_their_group_and_differ_otherwise():
    groups = {f"c{i}": "tail" if i < 6 else "medium" for i in range(20)} | {"c19": "head"}
    lines = class_lines([class_line(1, **{f"c{i}": i for i in range(20)})], groups)
    assert [line.style["color"] for line in lines] == [GROUP_COLOURS[groups[line.name]] for line in lines]
    for strong in (True, False):
        looks = [tuple(line.style.items()) for line in lines if line.rare is strong]
        assert len(looks) == len(set(looks)) == 6
    (line,) = class_lines([class_line(1, stranger=5)], groups)
    assert line.style["color"] == GREY


def test_an_epoch_without_a_value_is_a_gap(axes):
    draw_class_figure(axes, [class_line(1, a=5), class_line(2, a=0), class_line(3, a=5)], "score_positive", {})
    first, second, third = axes.lines[0].get_ydata()
    assert (first, third) == (0.5, 0.5) and math.isnan(second)
    assert list(axes.lines[1].get_ydata()) == [0.1, 0.1]  # below it, a training warns


def test_a_logarithmic_axis_is_labelled_with_numbers(axes):
    draw_class_figure(axes, [class_line(1, a=5)], "gradient_ratio", {})
    assert [axes.yaxis.get_major_formatter()(value) for value in (0.1, 10)] == ["0.1", "10"]


def test_pictures_and_page_show_classes_whatever_their_names(tmp_path, recwarn):
    lines = [train_line(step, 2.0) for step in range(1, 4)]
    lines += [{"kind": "eval", "step": 3, "epoch": 1, "AP": 0.1, "AP50": 0.2}]
    lines += [class_line(epoch, **{"_hidden": 4, "$x^{$": 2, "common": 500, "猫": 1}) for epoch in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    plot_classes(tmp_path / "metrics.jsonl", tmp_path / "classes.png", {"common": "head", "猫": "tail"})
    for name, size in (("curves.png", (1200, 360)), ("classes.png", (1300, 400))):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
    scores = training_plots(lines, {})[-1]
    assert all(f"{name} (" in scores for name in ("$x^{$", "猫")) and "common (" not in scores  # not rare, in no legend
    assert [str(w.message) for w in recwarn] == []


def test_a_run_without_any_lines(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    plot_classes(tmp_path / "metrics.jsonl", tmp_path / "classes.png", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]
    assert training_plots([], {}) == []
