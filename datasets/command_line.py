"""Command line options that the scripts of this folder share."""

import argparse
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def count(text: str) -> int:
    """An argparse type: a whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; it must be at least 1")
    return value


def add_output_option(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add --out, with the project's data/<folder> as default."""
    parser.add_argument(
        "--out",
        type=Path,
        default=PROJECT / "data" / folder,
        metavar="FOLDER",
        help=f"folder to write to (default: data/{folder} of the project)",
    )


def add_writing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of CocoWriter."""
    parser.add_argument(
        "--categories-of",
        type=Path,
        metavar="JSON",
        help="use the categories and ids of this COCO file; for val, give the train split's",
    )
    add_drop_option(parser)


def add_drop_option(parser: argparse.ArgumentParser) -> None:
    """Add --drop-bad."""
    parser.add_argument("--drop-bad", action="store_true", help="leave out bad images and boxes, and count them")
