"""Which cases the report shows, and what it says of them, on one image of a few boxes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.matching import match
from detector.evaluation.report.gallery import MAX_CARDS, Gallery, galleries

CAT, DOG = 0, 1
HERE, THERE, FAR = (0, 0, 20, 20), (60, 60, 30, 20), (150, 50, 40, 40)  # xywh


def scene(objects: list, found: list, names=("cat", "dog"), folder=Path("nowhere"), threshold=0.5):
    """Gallery of objects [(xywh, label, crowd)] and detections [(xyxy, label, score)] on one image of 200 x 100."""
    boxes = np.array([box for box, *_ in objects], np.float64).reshape(-1, 4)
    data = CocoData(
        class_names=list(names),
        category_ids=np.arange(len(names)),
        images_dir=folder,
        image_ids=np.array([7]),
        heights=np.array([100], np.int32),
        widths=np.array([200], np.int32),
        names=b"a.png",
        name_offsets=np.array([0, 5]),
        first=np.array([0, len(objects)]),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        labels=np.array([label for _, label, _ in objects], np.int32),
        iscrowd=np.array([crowd for *_, crowd in objects], bool),
        annotation_ids=100 + np.arange(len(objects)),
    )
    detections = Detections(
        images=np.zeros(len(found), np.int64),
        boxes=np.array([box for box, *_ in found], np.float32).reshape(-1, 4),
        scores=np.array([score for *_, score in found], np.float32),
        labels=np.array([label for _, label, _ in found], np.int64),
    )
    matching = match(detections, data)
    return Gallery(matching, np.full(len(names), threshold)), SimpleNamespace(matching=matching, data=data)


def texts(cards: list) -> list[str]:
    return [card.text.split(". ")[0] for card in cards]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], "nothing found here"),
        ([((0, 0, 20, 20), CAT, 0.3)], "found with a score of 0.30, below the threshold 0.50"),
        ([((0, 0, 20, 20), DOG, 0.8)], "taken for dog 0.80"),
        ([((0, 0, 20, 20), DOG, 0.8), ((0, 0, 20, 20), CAT, 0.3)], "taken for dog 0.80"),
        ([((0, 0, 20, 20), DOG, 0.4)], "nothing found here: dog 0.40 is below its threshold"),
        ([((0, 0, 20, 20), DOG, 0.8), ((0, 0, 20, 19), DOG, 0.9)], "taken for dog 0.80"),
        ([((0, 0, 20, 8), CAT, 0.9)], "found in the wrong place: IoU 0.40, score 0.90"),
        ([((0, 0, 20, 8), CAT, 0.9), ((0, 0, 20, 20), CAT, 0.1)],
         "found with a score of 0.10, below the threshold 0.50"),
        ([((0, 0, 20, 8), DOG, 0.9)], "nothing found here"),  # it overlaps too little
    ],
)  # fmt: skip
def test_why_an_object_was_missed_and_what_its_picture_shows(found, why):
    gallery, _ = scene([(HERE, CAT, False)], found)
    (card,) = gallery.misses(CAT, 6)
    shown = [f"{('cat', 'dog')[k]} {score:.2f}" for _, k, score in sorted(found, key=lambda f: -f[2])]
    also = f" Detections shown: {', '.join(shown)}." if shown else ""
    assert card.text == f"{why}.{also} a.png, annotation 100"
    assert card.title == "cat, 20 × 20 px" and card.tag == "missed"
    *detections, own = card.outlines
    assert own.box == (0, 0, 20, 20) and own.label == ""  # on top, whatever else is drawn
    assert [outline.label for outline in detections] == shown[::-1]


def test_an_object_where_the_detection_is_of_another():
    gallery, _ = scene([(HERE, CAT, False), (HERE, DOG, False)], [((0, 0, 20, 20), DOG, 0.8)])
    assert texts(gallery.misses(CAT, 6)) == ["nothing found here: dog 0.80 is another object's"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (((150, 0, 170, 20), CAT, 0.9), "nothing is labelled here"),
        (((0, 0, 20, 20), DOG, 0.9), "labelled cat"),
        (((0, 0, 20, 8), CAT, 0.9), "in the wrong place: IoU 0.40 with the object"),
        (((0, 0, 20, 8), DOG, 0.9), "beside cat (IoU 0.40)"),
        (((0, 0, 20, 19), CAT, 0.9), "a second box on an object already found"),
    ],
)
def test_why_a_detection_is_wrong(found, why):
    surer = [((0, 0, 20, 20), CAT, 0.95)] if "already" in why else []
    gallery, _ = scene([(HERE, CAT, False)], [*surer, found])
    (card,) = gallery.false_positives(found[1], 6)
    assert card.text == f"{why}. a.png"
    assert card.title == f"{('cat', 'dog')[found[1]]} 0.90"
    near = "" if why == "nothing is labelled here" else "cat"
    assert [outline.label for outline in card.outlines] == [near, ""]  # the object, the detection


def test_an_object_that_is_found_and_a_crowd_are_no_misses():
    gallery, _ = scene([(HERE, CAT, False), (THERE, CAT, True)], [((0, 0, 20, 20), CAT, 0.9)])
    assert gallery.misses(CAT, 6) == gallery.never_found() == gallery.false_positives(CAT, 6) == []


def test_worst_misses_first_those_found_by_nothing_and_of_them_the_large():
    objects = [(HERE, CAT, False), (THERE, CAT, False), (FAR, CAT, False), (THERE, DOG, False)]
    gallery, _ = scene(objects, [((0, 0, 20, 20), CAT, 0.3)])
    assert [card.title for card in gallery.misses(CAT, 6)] == ["cat, 40 × 40 px", "cat, 30 × 20 px", "cat, 20 × 20 px"]
    assert len(gallery.misses(CAT, 2)) == 2


def test_surest_false_positives_first_one_of_a_place_and_none_below_the_threshold():
    found = [((0, 0, 20, 20), CAT, 0.6), ((1, 0, 21, 20), CAT, 0.7), ((100, 0, 120, 20), CAT, 0.9),
             ((50, 50, 60, 60), CAT, 0.4)]  # fmt: skip
    gallery, _ = scene([], found)
    assert [card.title for card in gallery.false_positives(CAT, 6)] == ["cat 0.90", "cat 0.70"]


def test_suspects_are_sure_detections_far_from_labels_and_objects_that_another_class_is_found_on():
    objects = [(FAR, CAT, False), (HERE, CAT, False), (THERE, DOG, False)]
    found = [((0, 0, 20, 20), DOG, 0.8), ((100, 0, 120, 20), CAT, 0.9), ((60, 60, 90, 80), DOG, 0.9)]
    gallery, _ = scene(objects, found)
    assert [card.title for card in gallery.unlabelled()] == ["cat 0.90"]
    never = gallery.never_found()
    assert texts(never) == ["taken for dog 0.80", "nothing found here"]
    assert [card.title for card in never] == ["cat, 20 × 20 px", "cat, 40 × 40 px"]


def test_galleries_show_the_rarest_class_first_and_not_more_than_they_may(tmp_path):
    Image.fromarray(np.full((100, 200, 3), 90, np.uint8)).save(tmp_path / "a.png")
    names = [f"class {k}" for k in range(60)]
    spots = [((x, 10 * (k % 10), 8, 8), k, False) for k in range(60) for x in (10, 60, 110)]
    _, s = scene(spots, [], names=names, folder=tmp_path)
    per_class = {name: {"threshold": 0.5, "group": "tail"} for name in names}
    shown = galleries(s.matching, per_class, names[::-1])
    assert [c["name"] for c in shown["classes"]] == names[::-1][: MAX_CARDS // 2]  # two of each
    cards = [card for c in shown["classes"] for card in c["cards"]] + shown["never_found"]
    assert len(cards) <= 120
    assert all(card.picture.startswith("data:image/jpeg;base64,") for card in cards)


def test_an_image_that_is_gone_leaves_the_words(tmp_path):
    _, s = scene([(HERE, CAT, False)], [], folder=tmp_path)
    per_class = {name: {"threshold": 0.5, "group": "tail"} for name in ("cat", "dog")}
    shown = galleries(s.matching, per_class, ["cat", "dog"])
    assert [card.picture for card in shown["classes"][0]["cards"]] == [None]


def test_without_anything_there_is_nothing_to_show():
    _, s = scene([], [])
    per_class = {name: {"threshold": 0.5, "group": "tail"} for name in ("cat", "dog")}
    assert galleries(s.matching, per_class, ["cat", "dog"]) == {
        "classes": [], "unlabelled": [], "never_found": []
    }  # fmt: skip
