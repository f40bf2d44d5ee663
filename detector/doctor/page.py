"""The doctor's page: the whole examination as one HTML file, with plots and pictures."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from detector.data.checks.finding import SEVERITIES, Example, Finding
from detector.data.image import read_image
from detector.doctor import plots
from detector.doctor.advice.config_text import config_lines, one_line_yaml
from detector.doctor.class_balance import ClassReport
from detector.doctor.reach.reach import LostObject, Reach
from detector.doctor.report import Report
from detector.pages.outlines import Outline
from detector.pages.pictures import Card, take_pictures
from detector.pages.render import render, write
from detector.utils.errors import InputError
from detector.utils.text import LONGEST_NAME, printable

MAX_PICTURES = 72  # of findings, in all
MAX_MATRIX = 30  # classes in the matrix of classes that occur together: the commonest
MAX_VALUE = 100  # characters of a setting in the table
COLOUR, LINE_WIDTH = "#ffd400", 3  # of boxes


def write_page(
    path: Path,
    *,
    title: str,
    findings: list[Finding],
    folders: dict[str, Path],
    report: Report | None = None,
    described: str = "train",
) -> None:
    """Write the page, one file that needs no other. It leaves out pictures that cannot be read.

    findings: the most severe first. folders: split → the folder that its file names are relative to. report: of the
    split `described`; None if its annotations cannot be used.
    """
    cards = _finding_cards(findings)
    lost = [_lost_card(o, described) for o in report.reach.worst] if report else []
    shown = [card for rows in cards for row in rows for card in row]
    take_pictures(shown + lost, lambda image: _read(str(image), folders))
    html = render(
        "doctor.html",
        title=title,
        sections=_sections(report),
        counts=[(severity, sum(f.severity == severity for f in findings)) for severity in SEVERITIES],
        findings=[_with_texts(finding, own) for finding, own in zip(findings, cards, strict=True)],
        described=described,
        lost=lost,
        **_report_context(report),
    )
    write(path, html)


def _sections(report: Report | None) -> list[tuple[str, str]]:
    """Ids and names of the page's sections."""
    of_report = [
        ("classes", "Classes"),
        ("together", "Which occur together"),
        ("sizes", "Sizes and shapes"),
        ("reach", "Reachable?"),
        ("advice", "So use this"),
    ]
    return [("findings", "Sound?"), *(of_report if report else [])]


def _report_context(report: Report | None) -> dict[str, Any]:
    """What the template shows of the report."""
    if report is None:
        return {"report": None}
    size = report.classes.image_size
    return {
        "report": report,
        "class_rows": _class_rows(report.classes),
        "together": _together(report.classes),
        "histograms": plots.histograms(report.classes),
        "reach_rows": _reach_rows(report.reach),
        "settings": [(setting, _value_text(setting.value)) for setting in report.advice.settings],
        "config_text": "\n".join(config_lines(report.advice.settings)),
        "size_text": f"{size} × {size}"
        if isinstance(size, int)
        else f"short side {size.greatest}, long side at most {size.long}",
    }


def _finding_cards(findings: list[Finding]) -> list[list[list[Card]]]:
    """For each finding the cards of its examples that have a picture, in rows; MAX_PICTURES in all, or one more.

    An example of two images is a row of its own, so that they stand side by side.
    """
    cards, left = [], MAX_PICTURES
    for finding in findings:
        rows: list[list[Card]] = [[]]
        for example in finding.examples:
            if left > 0 and example.file_name:
                card = _example_card(example, example.file_name, finding.split)
                if example.beside:
                    rows.append([card, _card_beside(*example.beside)])
                else:
                    rows[0].append(card)
                left -= 2 if example.beside else 1
        cards.append(rows)
    return cards


def _with_texts(finding: Finding, rows: list[list[Card]]) -> tuple[Finding, list[str], list[list[Card]]]:
    """The finding, the texts of its examples without a picture, and the rows of the cards of the others."""
    taken = [own for row in rows if (own := [card for card in row if card.picture])]
    texts = {card.text for row in taken for card in row}
    return finding, [example.text for example in finding.examples if example.text not in texts], taken


def _example_card(example: Example, file_name: str, split: str) -> Card:
    boxes = [_xyxy(box) for box in example.boxes]
    around = boxes[0] if len(boxes) == 1 and np.isfinite(boxes[0]).all() else None
    title = printable(PurePath(file_name).name, LONGEST_NAME)
    return Card(title, example.text, f"{split}:{file_name}", [Outline(b, COLOUR, LINE_WIDTH) for b in boxes], around)


def _card_beside(split: str, file_name: str) -> Card:
    """The second image of an example, whose text is below the first."""
    return Card(printable(PurePath(file_name).name, LONGEST_NAME), f"of {split}", f"{split}:{file_name}", [])


def _lost_card(lost: LostObject, split: str) -> Card:
    box = _xyxy(lost.box)
    title = f"{lost.class_name}, {lost.resized[0]:.0f} × {lost.resized[1]:.0f} px after resizing"
    text = f"best IoU {lost.best_iou:.2f}. {printable(lost.file_name, LONGEST_NAME)}, annotation {lost.annotation_id}"
    return Card(title, text, f"{split}:{lost.file_name}", [Outline(box, COLOUR, LINE_WIDTH)], box)


def _xyxy(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x, y, x + w, y + h


def _read(which: str, folders: dict[str, Path]) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB of `split:file name`; of `train and val`, from the first folder that has it.

    Raises InputError if there is none, it cannot be read, or its name leaves the folder: people pass pages on, and a
    page must not contain a picture from elsewhere.
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
    """A row for each class, the rarest first; `share` is the length of its bar on a logarithmic scale, 0..1."""
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
        for k in report.order[::-1].tolist()
    ]


def _together(report: ClassReport) -> dict:
    """The matrix: names, and rows of (name, cells). A cell has the images with both classes, and their share of the
    images with the row's class."""
    order = report.order[:MAX_MATRIX].tolist()
    rows = []
    for a in order:
        own = max(1, int(report.images[a]))
        counts = [int(report.together[a, b]) for b in order]
        cells = [{"count": c, "share": c / own, "self": a == b} for b, c in zip(order, counts, strict=True)]
        rows.append((report.class_names[a], cells))
    return {"names": [report.class_names[k] for k in order], "rows": rows}


def _reach_rows(reach: Reach) -> list[dict]:
    """A row for each class that has objects, the least reached first."""
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
    """A value as YAML on one line, cut to MAX_VALUE characters: the config below the table has all of it."""
    text = one_line_yaml(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 2]} …"
