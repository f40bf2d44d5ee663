"""Runs beside one another: paired differences, seeds together, the alarm, and what is wrong with the input."""

import json
from pathlib import Path

import numpy as np
import pytest

from detector.comparison import compare, lines
from detector.data.coco import load_descriptor, read_coco
from detector.evaluation.detections import Detections, coco_results
from detector.utils.errors import InputError


@pytest.fixture
def run(tiny_config, tiny_dataset, tmp_path):
    """run(name, keep, *settings): a run directory whose detector found the objects that keep(image, class) names, those
    of `light` `light_off` pixels to the left."""
    data = read_coco(load_descriptor(tiny_dataset).split("val"))
    boxes = data.boxes.copy()
    boxes[:, 2:] += boxes[:, :2]
    images = np.repeat(np.arange(len(data)), np.diff(data.first))

    def run(name: str, keep, *settings: str, light_off: int = 0) -> str:
        folder = tmp_path / name / "eval" / "val"
        folder.mkdir(parents=True)
        text = tiny_config.read_text() + "".join(f"{line}\n" for line in settings)
        (tmp_path / name / "config.yaml").write_text(text)
        chosen = np.array([keep(i, data.class_names[k]) for i, k in zip(images, data.labels, strict=True)])
        off = light_off * (data.labels == data.class_names.index("light"))
        moved = (boxes - off[:, None] * [1, 0, 1, 0]).astype(np.float32)
        found = Detections(images, moved, np.full(len(boxes), 0.9, np.float32), data.labels)
        (folder / "detections.json").write_text(json.dumps(coco_results(found.select(chosen), data)))
        return str(tmp_path / name)

    return run


def of_figure(comparison: dict, figure: str) -> dict:
    (row,) = [row for row in comparison["differences"] if row["figure"] == figure]
    return row


def test_differences_with_their_intervals(run):
    # every image with objects gives all of light, and dark only in the second run
    first = run("first", lambda image, name: name == "light")
    second = run("second", lambda image, name: True, "seed: 3", "loss: {gamma: 1}")
    comparison = compare([first, second], "val", None)
    dark = of_figure(comparison, "class:dark")
    assert (dark["baseline"], dark["value"], dark["difference"]) == (0, pytest.approx(1), pytest.approx(1))
    assert dark["significant"] and dark["interval"] == pytest.approx([1, 1])
    light = of_figure(comparison, "class:light")
    assert (light["difference"], light["significant"], light["interval"]) == (0, False, [0, 0])
    assert of_figure(comparison, "AP")["difference"] == pytest.approx(0.5)
    assert comparison["alarms"] == [] and comparison["baseline"] == first
    text = "\n".join(lines(comparison))
    assert "dark   0.000 -> 1.000  +1.000 [+1.000, +1.000]  more than chance" in text


def test_seeds_are_one_entry(run):
    first = run("first", lambda image, name: True)
    seeds = [
        run(f"s{s}", lambda i, name, s=s: s > 0 or name == "light", "loss: {gamma: 1}", f"seed: {s}") for s in (0, 1)
    ]
    comparison = compare([first, *seeds], "val", None)
    assert [entry["seeds"] for entry in comparison["runs"]] == [1, 2]
    row = of_figure(comparison, "class:dark")
    assert row["value"] == pytest.approx(0.5) and not row["significant"]  # one seed finds it, the other does not
    with pytest.raises(InputError, match="nothing to compare"):
        compare(seeds, "val", None)


def test_alarm_where_the_mean_hides_a_worse_head(run, tmp_path):
    first = run("first", lambda image, name: name == "light")
    second = run("second", lambda image, name: True, "loss: {gamma: 1}", light_off=2)  # IoU 18/22: right up to 0.8
    groups = {"dark": {"group": "tail"}, "light": {"group": "head"}}
    (Path(first) / "eval/val/metrics.json").write_text(json.dumps({"per_class": groups}))
    (alarm,) = compare([first, second], "val", None)["alarms"]
    assert alarm.endswith("AP rose by 0.350, but classes of the head fell: light by 0.300")


def test_tool_and_its_page(run, succeeds, fails, tmp_path):
    first = run("first", lambda image, name: name == "light")
    second = run("second", lambda image, name: True, "loss: {gamma: 1}")
    out = succeeds("compare", first, second, "--html", tmp_path / "page.html")
    assert "more than chance" in out and "page.html" in out
    assert "second" in (tmp_path / "page.html").read_text()
    assert "two runs" in fails("compare", first, first)
    assert "no run directory" in fails("compare", first, tmp_path / "none")
    assert "evaluate the run first" in fails("compare", first, second, "--split", "train")
    (Path(second) / "eval/val/detections.json").write_text(
        '[{"image_id": 999, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}]'
    )
    assert "names image or category 999" in fails("compare", first, second)
