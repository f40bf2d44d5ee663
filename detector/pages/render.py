"""HTML pages. Each is one file that needs no other and no network, so that it still opens in ten years."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from detector.pages.palette import PALETTE
from detector.utils.atomic import write_atomically
from detector.utils.text import counted, plural


def render(template: str, **context: Any) -> str:
    """A template of this folder as HTML, with the variables of `context`.

    All text is escaped, because names of classes and files are whatever somebody typed. Only `Markup` is not, which
    only `svg` and `breakable` make. The script of a page gets no data: it reads the page's tables.
    """
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
    environment.filters.update(
        breakable=breakable,
        counted=counted,
        figure=figure,
        interval=interval,
        percent=percent,
        plural=plural,
        signed=signed,
        value=value,
    )
    environment.globals["palette"] = PALETTE
    return environment


def breakable(text: str) -> Markup:
    """Text with names of classes, files or runs: these may go on in another line after `_` and `/`, before a suffix
    and between `camelCase`, where a browser would break them anywhere. A setting as `train.epochs=9` stays whole."""
    parts = re.split(r"(?<=[_/])|(?=\.[a-zA-Z]\w*(?![\w=]))|(?<=[a-z])(?=[A-Z][a-z])", text)
    return Markup('<span class="breakable">{}</span>').format(Markup("<wbr>").join(parts))


def is_known(number: float | None) -> bool:
    """Whether something was measured: COCO says -1 where there was nothing to measure."""
    return number is not None and math.isfinite(number) and number != -1


def figure(number: float | None, digits: int = 3) -> str:
    """0.123; a dash where nothing was measured."""
    return f"{number:.{digits}f}" if is_known(number) else "–"


def signed(number: float | None, digits: int = 3) -> str:
    """+0.012 or −0.012; a dash where nothing was measured."""
    if number is None or not math.isfinite(number):
        return "–"
    return f"{number:+.{digits}f}".replace("-", "−")


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """0.100 to 0.200; nothing for None."""
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else ""


def percent(share: float | None) -> str:
    """0.4 % or 12 % of a share 0..1; a dash where nothing was measured."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.{1 if 0 < share < 0.0995 else 0}f} %"


def value(number: float | None) -> str:
    """What a column is sorted by (data-value); nothing where nothing was measured: such rows stand last."""
    return f"{number:.10g}" if is_known(number) else ""


def write(path: Path, html: str) -> None:
    """Write a page, with its folder. A character that UTF-8 cannot hold becomes a question mark. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html)
