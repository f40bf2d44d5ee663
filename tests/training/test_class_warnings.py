"""Which classes are reported as neglected, and where the figures of the classes go."""

import json

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.config.file import load_config
from detector.evaluation.report.curves import plot_classes
from detector.losses.classification.autograd import DifferentiableLoss
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal
from detector.training.class_warnings import neglected_classes, remedies
from detector.training.log import RunLog


def figures(score: float | None, ratio: float | None = 1.0, positives: int = 50) -> dict:
    return {
        "positives": positives, "loss_share": 0.1, "gradient_ratio": ratio, "score_positive": score,
        "score_background": 0.01,
    }  # fmt: skip


def test_a_class_that_is_pushed_down_is_named_with_its_figures_and_what_to_try():
    said = neglected_classes({"disc": figures(0.7), "star": figures(0.04, 0.08)}, ["a=1", "b=2"])
    assert said[0].startswith("`star` is hardly learnt: it scores 0.04 on its own objects, because the other classes")
    assert said[0].endswith("push it down (gradient ratio 0.08)")
    assert said[1:] == ["try one of these: a=1, b=2"]


def test_a_class_in_balance_at_a_low_score_is_left_behind():
    said = neglected_classes({"disc": figures(0.7), "star": figures(0.04, 0.9, positives=7)}, [])
    assert "more images" in said[1]
    assert "(7 positive anchors this epoch)" in said[0] and "push it down" not in said[0]


@pytest.mark.parametrize(
    "per_class",
    [
        {"disc": figures(0.06, 0.7), "star": figures(0.01, 0.003)},  # the first epochs: no class has got anywhere
        {"disc": figures(0.7), "star": figures(0.5, 0.08)},  # pushed down from where it is well learnt
        {"disc": figures(0.7), "star": figures(None, None, 0)},  # no object of it came up
        {"disc": figures(None, None, 0)},
        {},
    ],
)
def test_nothing_to_say(per_class):
    assert neglected_classes(per_class, ["a=1"]) == []


def test_a_few_lines_the_worst_first():
    classes = {"disc": figures(0.7)} | {f"c{i}": figures(0.09 - i / 100, 0.1) for i in range(6)}
    said = neglected_classes(classes, ["a=1"])
    assert [line.split("`")[1] for line in said[:3]] == ["c5", "c4", "c3"]
    assert "3 more classes" in said[3] and "a=1" in said[4] and len(said) == 5


def test_the_settings_to_try_are_settings_and_not_those_in_use(tiny_config):
    settings = remedies(load_config(tiny_config), Focal())
    assert len(settings) == 3
    for setting in settings:
        assert remedies(load_config(tiny_config, [setting]), Focal()) == [
            other for other in settings if other != setting
        ]


@pytest.mark.parametrize("loss", [EqualizedFocal(2), DifferentiableLoss(lambda x, y: x, takes_alpha_by_class=False)])
def test_weights_by_class_are_not_advised_for_a_loss_with_its_own_or_without(loss, tiny_config):
    assert "loss.alpha=effective_number" not in remedies(load_config(tiny_config), loss)


def test_figures_go_to_the_metrics_and_to_tensorboard(tmp_path):
    summary = {"batches": 9, "sampled_batches": 2, "per_class": {"a b": figures(0.25), "ä": figures(None, None, 0)}}
    log = RunLog(tmp_path)
    log.per_class(9, 1, summary)
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line.pop("time").endswith("+00:00")
    assert line == {"kind": "classes", "step": 9, "epoch": 1, **summary}
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("classes/score_positive/a b")] == [(9, 0.25)]
    assert "classes/positives/ä" in events.Tags()["scalars"]
    assert "classes/score_positive/ä" not in events.Tags()["scalars"]  # nothing seen is no point, not a 0


@pytest.fixture
def legends(monkeypatch) -> list[list[str]]:
    """The legends that are drawn."""
    from matplotlib.figure import Figure

    seen, real = [], Figure.legend

    def legend(figure, *, handles, **options):
        seen.append([handle.get_label() for handle in handles])
        return real(figure, handles=handles, **options)

    monkeypatch.setattr(Figure, "legend", legend)
    return seen


@pytest.mark.parametrize("classes", [1, 2, 10, 40])
def test_the_picture_has_the_rarest_and_the_commonest(legends, tmp_path, classes):
    per_class = {f"c{i}$": figures(0.1 if i else None, 0.5 if i else None, positives=i) for i in range(classes)}
    records = [{"kind": "train", "step": 1, "epoch": 1, "loss": 1.0}]
    records += [{"kind": "classes", "step": e, "epoch": e, "per_class": per_class} for e in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    plot_classes(tmp_path / "metrics.jsonl", tmp_path / "classes.png", dict.fromkeys(per_class, "tail"))
    wanted = [*range(6), *range(classes - 6, classes)] if classes > 12 else range(classes)
    assert legends == [[f"c{i}$ ({i})" for i in sorted(wanted, reverse=True)], ["tail classes"]]
    assert Image.open(tmp_path / "classes.png").size == (1300, 400)


def test_no_figures_no_picture(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "epoch": 1, "loss": 1.0}\n')
    plot_classes(tmp_path / "metrics.jsonl", tmp_path / "classes.png", {})
    assert not (tmp_path / "classes.png").exists()
