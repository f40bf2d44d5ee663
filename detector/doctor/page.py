"""The doctor's page: what is wrong with a dataset, what it is like, what anchors reach, and what to train with."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
import yaml

from detector.data.image import read_image
from detector.doctor import plots
from detector.doctor.finding import Example, Finding
from detector.pages.pictures import Card, take_pictures
from detector.pages.render import render, write
from detector.utils.errors import InputError
from detector.utils.names import LONGEST_NAME, printable

if TYPE_CHECKING:
    from detector.doctor.advice.advice import Advice
    from detector.doctor.class_balance import ClassReport
    from detector.doctor.reach.reach import LostObject, Reach

PICTURES = 72  # of findings, in all
MATRIX = 30  # classes side by side in a matrix; of more, the commonest
LONGEST = 100  # characters of a setting in the table
BOX, WIDTH = "#ffd400", 4  # what boxes are drawn in


def write_page(
    path: Path,
    *,
    title: str,
    findings: list[Finding],
    folders: dict[str, Path],
    classes: ClassReport | None = None,
    reach: Reach | None = None,
    advice: Advice | None = None,
    config_text: str | None = None,
    described: str = "train",
) -> None:
    """Write the page, one file that needs no other; pictures are left out where they cannot be read.

    findings: the most severe first. folders: split → the folder that its file names are relative to. classes, reach,
    advice: of the split `described`; None where the annotations do not allow it. config_text: the YAML advised, with
    its comments.
    """
    shown = _finding_cards(findings)
    lost = [_lost_card(o, described) for o in reach.worst] if reach else []
    take_pictures([card for cards in shown for card in cards] + lost, lambda which: _read(which, folders))
    severities = ("error", "warning", "note")
    html = render(
        "doctor.html",
        title=title,
        sections=_sections(classes, reach, advice),
        counts=[(severity, sum(f.severity == severity for f in findings)) for severity in severities],
        findings=[_shown(finding, cards) for finding, cards in zip(findings, shown, strict=True)],
        described=described,
        classes=classes,
        class_rows=_class_rows(classes) if classes else [],
        together=_together(classes) if classes else None,
        histograms=plots.histograms(classes) if classes else [],
        reach=reach,
        reach_rows=_reach_rows(reach) if reach else [],
        lost=lost,
        advice=advice,
        settings=[(setting, _value_text(setting.value)) for setting in advice.settings] if advice else [],
        config_text=config_text,
        size_text=_size_text(classes or reach),
    )
    write(path, html)


def _sections(classes: ClassReport | None, reach: Reach | None, advice: Advice | None) -> list[tuple[str, str]]:
    described = [("classes", "Classes"), ("together", "Which go together"), ("sizes", "Sizes and shapes")]
    return [
        ("findings", "Sound?"),
        *(described if classes else []),
        *([("reach", "Reachable?")] if reach else []),
        *([("advice", "So use this")] if advice else []),
    ]


def _finding_cards(findings: list[Finding]) -> list[list[Card]]:
    """For each finding the pictures of its examples, as long as there are not too many."""
    cards, left = [], PICTURES
    for finding in findings:
        seen = [e for e in finding.examples if e.file_name][:left]
        left -= len(seen)
        cards.append([_example_card(e, finding.split) for e in seen])
    return cards


def _shown(finding: Finding, cards: list[Card]) -> tuple[Finding, list[str], list[Card]]:
    """The finding, its examples that there is no picture of as text, and the pictures of the others."""
    taken = [card for card in cards if card.picture]
    texts = {card.text for card in taken}
    return finding, [example.text for example in finding.examples if example.text not in texts], taken


def _example_card(example: Example, split: str) -> Card:
    boxes = [(_xyxy(box), BOX, WIDTH) for box in example.boxes]
    around = boxes[0][0] if len(boxes) == 1 and np.isfinite(boxes[0][0]).all() else None
    title = printable(PurePath(example.file_name).name, LONGEST_NAME)
    return Card(title, example.text, f"{split}:{example.file_name}", boxes, around)


def _lost_card(lost: LostObject, split: str) -> Card:
    box = _xyxy(lost.box)
    title = f"{lost.class_name}, {lost.fed[0]:.0f} × {lost.fed[1]:.0f} px as fed"
    text = f"best IoU {lost.best_iou:.2f}. {printable(lost.file_name, LONGEST_NAME)}, annotation {lost.annotation_id}"
    return Card(title, text, f"{split}:{lost.file_name}", [(box, BOX, WIDTH)], box)


def _xyxy(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x, y, x + w, y + h


def _read(which: str, folders: dict[str, Path]) -> np.ndarray:
    """The image of `split:file name`; of `train and val`, from the folder of them that has it.

    Raises InputError if there is none, or it cannot be read. A name that leaves its folder is not followed: a page is
    passed on, and must not carry a picture from elsewhere.
    """
    split, _, name = which.partition(":")
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise InputError(f"{name!r} leaves its folder")
    for known, folder in folders.items():
        try:
            if known in split.split() and (folder / name).is_file():
                return read_image(folder / name)
        except (OSError, ValueError):  # a name that no file can have
            break
    raise InputError(f"{name!r} is in none of the folders")


def _class_rows(report: ClassReport) -> list[dict]:
    """A row a class, the commonest first; `share` is its part of a bar on a logarithmic scale, 0 for no box."""
    most = np.log1p(max(1, report.boxes.max(initial=1)))
    return [
        {
            "name": report.class_names[k],
            "group": report.groups[k],
            "boxes": int(report.boxes[k]),
            "images": int(report.images[k]),
            "share": float(np.log1p(report.boxes[k]) / most),
            "sizes": report.sizes[k].tolist(),
            "aspects": report.aspects[k].tolist(),
        }
        for k in np.argsort(-report.boxes, kind="stable").tolist()
    ]


def _together(report: ClassReport) -> dict:
    """names and rows of (name, cells): images with both classes, and their share of those with the row's."""
    order = np.argsort(-report.boxes, kind="stable")[:MATRIX].tolist()
    rows = []
    for a in order:
        own = max(1, int(report.images[a]))
        counts = [int(report.together[a, b]) for b in order]
        cells = [{"count": c, "share": c / own, "self": a == b} for b, c in zip(order, counts, strict=True)]
        rows.append((report.class_names[a], cells))
    return {"names": [report.class_names[k] for k in order], "rows": rows}


def _reach_rows(reach: Reach) -> list[dict]:
    """A row a class that has objects, the least reached first."""
    rows = [
        {
            "name": reach.class_names[k],
            "boxes": int(reach.boxes[k]),
            "reached": float(reach.reached[k]),
            "lost": float(reach.lost[k]),
            "median": float(reach.median[k]),
            "after": float(reach.proposal.after[k]) if reach.proposal else None,
        }
        for k in np.flatnonzero(reach.boxes).tolist()
    ]
    return sorted(rows, key=lambda row: row["reached"])


def _value_text(value: object) -> str:
    """A value as YAML has it, on one line, its end left out where it is long: the configuration has all of it."""
    text = (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
        .removesuffix("...\n")
        .strip()
    )
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"


def _size_text(report: ClassReport | Reach | None) -> str:
    if report is None:
        return ""
    size = report.image_size
    return f"{size} × {size}" if isinstance(size, int) else f"short side {size.short}, long side at most {size.long}"
