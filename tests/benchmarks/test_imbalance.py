"""The ablation on imbalance: no run is repeated, and its document shows the measured figures."""

import json
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
sys.path.append(str(PROJECT / "benchmarks"))

import ablation as runs  # noqa: E402
import imbalance  # noqa: E402
import imbalance_report  # noqa: E402

from detector.utils.json_lines import read_json_lines  # noqa: E402


@pytest.fixture
def ablation(monkeypatch, tmp_path):
    """Runs the ablation with trainings that only write figures of three classes. Returns how many there were."""
    calls = []
    aps = {"a": 0.5, "b": 0.25, "c": 0.125}

    def call(command, **environment):
        calls.append(command)
        directory = next(Path(word.partition("=")[2]) for word in command if word.startswith("output_dir="))
        if "seed=1" in command and (directory.parent / "fail").exists():
            raise RuntimeError("it failed")
        for folder in ("checkpoints", "eval/val"):
            (directory / folder).mkdir(parents=True)
        per_class = {name: {"AP": ap, "AP50": ap, "num_gt": 1} for name, ap in aps.items()}
        metrics = {"AP": 0.3, "AP50": 0.4, "per_class": per_class, "groups": {"tail": {"AP": aps["c"]}}}
        (directory / "eval/val/metrics.json").write_text(json.dumps(metrics))

    def run(*arguments: str) -> int:
        before = len(calls)
        monkeypatch.setattr(sys, "argv", ["imbalance.py", "--output", str(tmp_path), *arguments])
        assert imbalance.main() == (1 if list(tmp_path.rglob("fail")) else 0)
        return len(calls) - before

    monkeypatch.setattr(runs, "call", call)
    monkeypatch.setattr(imbalance, "start_detector", lambda folder: folder / "run")
    return run


def test_each_run_becomes_one_line_and_is_not_repeated(ablation, tmp_path):
    some = ["--datasets", "shapes", "--arms", "focal", "paste", "--jobs", "2"]
    assert ablation(*some, "--seeds", "1") == 2
    assert ablation(*some, "--seeds", "2") == 2
    assert ablation(*some, "--seeds", "2") == 0
    lines = read_json_lines(tmp_path / "results.jsonl")
    assert {(line["arm"], line["seed"]) for line in lines} == {(a, s) for a in ("focal", "paste") for s in (0, 1)}
    assert all((line["AP"], line["tail"], line["per_class"]["b"]) == (0.3, 0.125, 0.25) for line in lines)
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_failed_run_is_reported_and_the_others_are_kept(ablation, tmp_path, capsys):
    (tmp_path / "shapes/focal").mkdir(parents=True)
    (tmp_path / "shapes/focal/fail").touch()
    ablation("--datasets", "shapes", "--arms", "focal", "--seeds", "3", "--jobs", "1")
    assert [line["seed"] for line in read_json_lines(tmp_path / "results.jsonl")] == [0, 2]
    assert "shapes focal 1: it failed" in capsys.readouterr().out


def test_an_arm_that_names_shapes_is_not_run_on_cells():
    (arm,) = imbalance.SHAPES_ONLY
    runs = imbalance.wanted(["bccd", "shapes"], ["focal", arm], 2)
    assert runs == [(d, a, s) for s in (0, 1) for d, a in (("bccd", "focal"), ("shapes", "focal"), ("shapes", arm))]


def test_the_first_detector_knows_the_rare_shapes_as_one_class():
    names = ["disc", "crescent", "square", "arrow", "diamond"]
    tree = {"categories": [{"id": 3 * k, "name": name} for k, name in enumerate(names)]}
    tree["annotations"] = [{"category_id": 3 * k} for k in range(5)]
    start = imbalance.renamed(tree)
    assert [annotation["category_id"] for annotation in start["annotations"]] == [1, 3, 2, 3, 3]
    assert [category["name"] for category in start["categories"]] == ["kind 1", "kind 2", "kind 3"]
    assert tree["categories"][0]["name"] == "disc"


def test_the_document_shows_the_measured_figures():
    document = (PROJECT / "docs/imbalance.md").read_text()
    lines = list(read_json_lines(PROJECT / "docs/imbalance.jsonl"))
    tables = imbalance_report.by_dataset(lines)
    assert sum(len(runs) for arms in tables.values() for runs in arms.values()) == len(lines)  # none is left out
    for arms in tables.values():
        assert "\n".join(imbalance_report.markdown(arms)) in document
