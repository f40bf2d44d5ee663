"""Pages of one file each: what they show is in the file, so that they open without a network, now and in ten years."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from detector.utils.atomic import write_atomically


def render(template: str, **context) -> str:
    """A template of this folder as HTML. All text is escaped but `Markup`, which only `svg` makes: the names of classes
    and files are whatever somebody typed. Script gets no data: it reads the tables of the page."""
    return _environment().get_template(template).render(**context)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, signed=signed, interval=interval, percent=percent, value=value)
    return environment


def is_known(number: float | None) -> bool:
    """Whether there is a figure: COCO says -1 where it had nothing to measure."""
    return number is not None and math.isfinite(number) and number != -1


def figure(number: float | None, digits: int = 3) -> str:
    """0.123, or a dash where nothing was measured."""
    return f"{number:.{digits}f}" if is_known(number) else "–"


def signed(number: float | None, digits: int = 3) -> str:
    """+0.012, or −0.012."""
    if number is None or not math.isfinite(number):
        return "–"
    return f"{number:+.{digits}f}".replace("-", "−")


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """0.100 to 0.200, or nothing."""
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else ""


def percent(share: float | None) -> str:
    """A share as a percentage: 0.4 %, 12 %."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.{1 if 0 < share < 0.0995 else 0}f} %"


def value(number: float | None) -> str:
    """What a column is sorted by; nothing where nothing was measured, which stands last."""
    return f"{number:.10g}" if is_known(number) else ""


def write(path: Path, html: str) -> None:
    """Write a page; what UTF-8 cannot hold of somebody's names becomes a question mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html)
