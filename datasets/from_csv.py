"""Convert a CSV of boxes to a COCO annotation file.

Without a header, the columns are those of keras-retinanet: path,x1,y1,x2,y2,class. With a header, their order is
free: path (or filename, image), x1, y1, x2, y2 (or xmin, ymin, xmax, ymax), class (or label); others are ignored.
Coordinates are the edges of the box in pixels from the image's left top, so its width is x2 - x1. A line with empty
box and class is an image without objects. Paths are relative to the images' folder.
"""

import csv
from pathlib import Path

from coco_json import CocoWriter, image_size
from command_line import add_writing_options

from detector.utils.cli import ArgumentParser, run
from detector.utils.console import progress_bar
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")
ALIASES = {
    "filename": "path",
    "file_name": "path",
    "image": "path",
    "xmin": "x1",
    "ymin": "y1",
    "xmax": "x2",
    "ymax": "y2",
    "label": "class",
    "class_name": "class",
}


def read_header(row: list[str], file: Path) -> list[str] | None:
    """The column names where the first row is a header, which has the name of a coordinate; else None.

    Raises InputError where a column is missing or occurs twice.
    """
    names = [ALIASES.get(name := cell.strip().lower(), name) for cell in row]
    if not {"x1", "y1", "x2", "y2"} & set(names):
        return None
    for column in COLUMNS:
        if names.count(column) != 1:
            found = names.count(column)
            raise InputError(f"{file}:1: {found} columns for {column!r}, expected one; {did_you_mean(column, row)}")
    return names


def read_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and fields by column name of each row. A row with a wrong number of fields has none.

    Raises InputError where the file cannot be read, or its header is wrong.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:  # -sig: spreadsheets write a byte order mark
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {file}: {error}") from None
    header = read_header(rows[0][1], file) if rows else None
    columns = header or COLUMNS
    return [
        (line, dict(zip(columns, row, strict=True)) if len(row) == len(columns) else {})
        for line, row in rows[1 if header else 0 :]
    ]


def parse_box(row: dict[str, str]) -> tuple[float, ...] | None:
    """The (x1, y1, x2, y2) box in px; None where box and class are empty. Raises ValueError for other texts."""
    values = [row[column] for column in COLUMNS[1:]]
    if not any(values):
        return None
    try:
        return tuple(float(value) for value in values[:4])
    except ValueError:
        raise ValueError(f"x1, y1, x2, y2 are not four numbers: {','.join(values[:4])}") from None


def add_row(coco: CocoWriter, row: dict[str, str], images: Path, seen: dict[str, dict]) -> None:
    """Add a row's image, unless it is in `seen` (name → COCO entry), and its object. Raises ValueError."""
    if not row:
        raise ValueError(f"wrong number of fields: expected {','.join(COLUMNS)}, or as many as in the header")
    path = Path(row["path"])
    if path.is_absolute():
        if not path.is_relative_to(images.absolute()):
            raise ValueError(f"image {path} is not in the images' folder {images}; set it with --images")
        path = path.relative_to(images.absolute())
    name = path.as_posix()
    if name not in seen:
        seen[name] = coco.add_image(name, image_size(images / name))
    box = parse_box(row)
    if box:
        coco.add_box(seen[name], row["class"], box)


def add_rows(coco: CocoWriter, file: Path, images: Path) -> None:
    """Add all rows of the file."""
    seen = {}
    with progress_bar() as shown:
        for line, row in shown.track(read_rows(file), description=file.name):
            with coco.checking(f"{file}:{line}"):
                add_row(coco, row, images, seen)


def main():
    parser = ArgumentParser(__doc__)
    parser.add_argument("csv", type=Path, help="CSV file")
    parser.add_argument("out", type=Path, help="COCO annotation file to write")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="folder to which paths are relative (default: the CSV's folder)"
    )
    add_writing_options(parser)
    options = parser.parse_args()
    images = options.images or options.csv.parent
    coco = CocoWriter(categories_of=options.categories_of, drop_bad=options.drop_bad)
    add_rows(coco, options.csv, images)
    coco.write(options.out, images)


if __name__ == "__main__":
    run(main)
