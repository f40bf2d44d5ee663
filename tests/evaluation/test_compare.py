"""Runs beside one another: paired differences, seeds together, the alarm, and what is wrong with the input."""

import json
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.evaluation.compare import Comparison, Difference, FigureName, compare
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.report.comparison import alarm_text, comparison_lines, verdicts
from detector.utils.errors import InputError


@pytest.fixture
def run(tiny_config, tiny_dataset, tmp_path):
    """run(name, keep, *settings): a run directory whose detector found the objects that keep(image, class) names, those
    of `light` `light_off` pixels to the left. There are 20 images, each with a dark and a light object of 20 pixels."""
    coco = json.loads((tmp_path / "val.json").read_text())
    coco["images"] = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(20)]
    coco["annotations"] = [
        {"id": 2 * i + k + 1, "image_id": i, "category_id": category, "bbox": [32 * k + 4, 10, 20, 20]}
        for i in range(20)
        for k, category in enumerate((7, 3))
    ]
    (tmp_path / "val.json").write_text(json.dumps(coco))
    data = read_coco(load_descriptor(tiny_dataset).split("val"))
    boxes = data.boxes.copy()
    boxes[:, 2:] += boxes[:, :2]
    images = data.box_images
    scores = np.linspace(0.5, 0.9, len(boxes)).astype(np.float32)

    def run(name: str, keep, *settings: str, light_off: int = 0) -> str:
        folder = tmp_path / name / "eval" / "val"
        folder.mkdir(parents=True)
        text = tiny_config.read_text() + "".join(f"{line}\n" for line in settings)
        (tmp_path / name / "config.yaml").write_text(text)
        chosen = np.array([keep(i, data.class_names[k]) for i, k in zip(images, data.labels, strict=True)])
        off = light_off * (data.labels == data.class_names.index("light"))
        moved = (boxes - off[:, None] * [1, 0, 1, 0]).astype(np.float32)
        found = Detections(images, moved, scores, data.labels)
        (folder / "detections.json").write_text(json.dumps(coco_results(found.select(chosen), data)))
        return str(tmp_path / name)

    return run


def of_figure(comparison: Comparison, name: str) -> Difference:
    (row,) = [row for row in comparison.differences if row.figure == FigureName(name)]
    return row


def of_class(comparison: Comparison, name: str) -> Difference:
    (row,) = [row for row in comparison.differences if row.figure == FigureName(name, of_class=True)]
    return row


def lines_after(text: str, line: str) -> list[str]:
    return text[text.index(line) :].splitlines()[1:]


def light(image: int, name: str) -> bool:
    return name == "light"


def most(image: int, name: str) -> bool:
    """All that is light, and what is dark in 18 of 20 images."""
    return name == "light" or image >= 2


def test_differences_with_their_intervals(run):
    first, second = run("first", light), run("second", most, "seed: 3", "loss: {gamma: 1}")
    comparison = compare([first, second], "val", None)
    dark = of_class(comparison, "dark")
    assert (dark.baseline, dark.value) == (0, pytest.approx(91 / 101)) and dark.significant  # 91 of 101 recalls
    low, high = dark.interval
    assert 0.7 < low < 0.85 and high == 1  # of 20 images drawn again, two to seven or so were missed, or none
    same = of_class(comparison, "light")
    assert (same.difference, same.significant, same.interval) == (0, False, None)
    assert of_figure(comparison, "AP").difference == pytest.approx(91 / 202)
    assert comparison.alarms == [] and comparison.baseline.name == first
    text = "\n".join(comparison_lines(comparison))
    assert "dark   0.000 -> 0.901  +0.901 [+0." in text
    assert text.startswith("evaluated on val of tiny.yaml: 20 images with 40 objects\n")
    settings = lines_after(text, f"{second}: settings that differ from {first}")
    assert settings[0] == "  loss.gamma: 2.0 -> 1.0" and not settings[1].startswith("  ")
    verdict, caveat = [line for line in text.splitlines() if line.startswith("verdict: ")]
    assert f"{second} is better than {first} by 0.450 AP (AP 0.950 against 0.500), more than chance: the" in verdict
    assert "Groups that differ by more than chance: head +0.450." in verdict and "Only one seed of" in caveat


@pytest.mark.parametrize(
    ("keep", "verdict"),
    [
        (light, "have the same AP, 0.500."),
        (lambda image, name: name == "light" and image >= 1, "do not differ by more than chance: AP 0.4"),
        (lambda image, name: name == "light" and image >= 8, "is worse than"),
        (lambda image, name: False, "is worse than"),  # the same on every image
    ],
)
def test_verdict(run, keep, verdict):
    first, second = run("first", light), run("second", keep, "loss: {gamma: 1}")
    (tone, text), (_, caveat) = verdicts(compare([first, second], "val", None))
    assert verdict in text and tone == ("bad" if "worse" in verdict else "")
    assert caveat.endswith("With one seed, 'more than chance' counts the images only.")


def test_runs_that_were_evaluated_on_other_objects(run, tmp_path):
    first, second = run("first", light), run("second", most, "loss: {gamma: 1}")
    settings = Path(second) / "config.yaml"
    settings.write_text(settings.read_text().replace("tiny.yaml", "other.yaml"))
    descriptor = (tmp_path / "tiny.yaml").read_text()
    (tmp_path / "other.yaml").write_text(descriptor)  # the same images and boxes by another name
    entries = compare([first, second], "val", None).entries
    assert ("data.dataset", "tiny.yaml", "other.yaml") in entries[1].changes_from(entries[0])
    coco = json.loads((tmp_path / "val.json").read_text())
    coco["annotations"][0]["bbox"][0] += 1
    (tmp_path / "other.json").write_text(json.dumps(coco))
    (tmp_path / "other.yaml").write_text(descriptor.replace("val.json", "other.json"))
    with pytest.raises(InputError, match="second: was evaluated on val of other.yaml, and .*first on other images or"):
        compare([first, second], "val", None)


def test_a_run_that_was_evaluated_before_the_data_changed(run):
    first, second = run("first", light), run("second", most, "loss: {gamma: 1}")
    (Path(second) / "eval/val/metrics.json").write_text(json.dumps({"per_class": {"dark": {"num_gt": 19}}}))
    with pytest.raises(InputError, match="19 objects of dark when it was evaluated, and now there are 20; evaluate"):
        compare([first, second], "val", None)


def test_seeds_are_one_entry_in_any_order(run):
    first = run("first", most)
    seeds = [run(f"s{s}", light if s else most, "loss: {gamma: 1}", f"seed: {s}") for s in (0, 1)]
    comparison = compare([first, *seeds], "val", None)
    assert [entry.seeds for entry in comparison.entries] == [1, 2]
    row = of_class(comparison, "dark")
    assert row.value == pytest.approx(91 / 202) and not row.significant  # one seed finds it, the other does not
    assert comparison.entries[1].interval(FigureName("dark", of_class=True)) == [0, 1]  # all that an AP can be
    assert row.chance.degrees == pytest.approx(1)  # of two seeds; none of one, and the images are as hard for either
    with pytest.raises(InputError, match="nothing to compare"):
        compare(seeds, "val", None)


def test_seeds_of_two_entries_are_no_pairs(run):
    ours = [run(f"a{s}", most if s else light, f"seed: {s}") for s in (0, 1)]
    theirs = [run(f"b{s}", most if s else light, "loss: {gamma: 1}", f"seed: {s}") for s in (0, 1)]
    one, other = [compare([*ours, *order], "val", None) for order in (theirs, theirs[::-1])]
    row = of_class(one, "dark")
    assert row.interval == pytest.approx(of_class(other, "dark").interval)
    assert row.chance.error == pytest.approx(91 / 101 / 2**0.5, rel=0.05) and row.chance.degrees == pytest.approx(
        2, rel=0.1
    )
    ((_, verdict),) = verdicts(one)
    assert "have the same AP" in verdict and "Only one seed" not in verdict


def test_three_seeds_tell_more_than_two(run):
    def found(seed: int, missed: int):
        return lambda image, name: name == "light" or image >= missed + seed

    sources = [
        run(f"{name}{seed}", found(seed, missed), f"seed: {seed}", *settings)
        for name, missed, settings in (("a", 12, ()), ("b", 6, ("loss: {gamma: 1}",)))
        for seed in range(3)
    ]
    two, three = compare([*sources[:2], *sources[3:5]], "val", None), compare(sources, "val", None)
    assert of_class(two, "dark").interval[1] > of_class(three, "dark").interval[1]
    ((tone, verdict),) = verdicts(three)
    assert tone == "good" and "95 % sure (seeds: 3 against 3; degrees of freedom: " in verdict
    assert "and of the seeds where there are several" in "\n".join(comparison_lines(three))


def test_alarm_where_the_mean_hides_a_worse_head(run):
    first = run("first", light)
    groups = {"dark": {"group": "tail"}, "light": {"group": "head"}}
    (Path(first) / "eval/val/metrics.json").write_text(json.dumps({"per_class": groups}))
    worse = run("worse", lambda image, name: name == "dark" or image >= 4, "loss: {gamma: 1}")
    (alarm,) = compare([first, worse], "val", None).alarms
    assert "but head classes fell by more than chance (Holm's test of 1 class): light by 0.198" in alarm_text(alarm)
    chance = run("chance", lambda image, name: name == "dark" or image >= 1, "loss: {gamma: 3}")
    assert compare([first, chance], "val", None).alarms == []


@pytest.mark.parametrize(("group", "alarms"), [("tail", 1), ("head", 0)])
def test_alarm_is_slower_to_come_for_one_of_several_head_classes(run, group, alarms):
    first = run("first", light)
    groups = {"dark": {"group": group}, "light": {"group": "head"}}
    (Path(first) / "eval/val/metrics.json").write_text(json.dumps({"per_class": groups}))
    worse = run("worse", lambda image, name: image >= (1 if name == "dark" else 3), "loss: {gamma: 1}")
    assert len(compare([first, worse], "val", None).alarms) == alarms


def test_alarm_where_a_head_class_falls_alike_on_every_image(run):
    """No resample differs from another, so this is certain; what is equal in both is not tested."""
    first = run("first", light)
    groups = {"dark": {"group": "tail"}, "light": {"group": "head"}}
    (Path(first) / "eval/val/metrics.json").write_text(json.dumps({"per_class": groups}))
    worse = run("worse", lambda image, name: True, "loss: {gamma: 1}", light_off=3)
    comparison = compare([first, worse], "val", None)
    row = of_class(comparison, "light")
    assert row.significant and row.interval == [row.difference] * 2 and row.difference < -0.2
    assert [alarm.tested for alarm in comparison.alarms] == [1]


def test_tool_and_its_page(run, succeeds, fails, tmp_path):
    first, second = run("first", light), run("second", most, "loss: {gamma: 1}")
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
