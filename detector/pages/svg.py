"""Figures of matplotlib as SVG inside a page, in the fonts and colours of the page, light or dark."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Matplotlib wants colours as numbers. These stand for the page's own, which follow the reader's light or dark setting.
INK, LINE, GREY, CARD = "#010101", "#010102", "#010103", "#010104"
COLOURS = ("#020201", "#020202", "#020203", "#020204", "#020205", "#020206")
_PAGE_COLOUR = {INK: "currentColor", LINE: "var(--line)", GREY: "var(--grey)", CARD: "var(--card)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(COLOURS, start=1)
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "detector",  # so that ids are the same each time
    "text.parse_math": False,  # a class may be named $x$
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Inside this context, figures are made and drawn in the style of the page."""
    from cycler import cycler
    from matplotlib import rc_context

    style: dict[Any, Any] = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser may have the font
        yield


def svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as part of a page. name: unique on the page, for ids. alt: the text for those who cannot see it."""
    buffer = io.BytesIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        for key, text in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{text}")
            elif key.endswith("href") and text.startswith("#"):
                element.set(key, f"#{name}-{text[1:]}")
            elif key in ("style", "clip-path"):
                element.set(key, _restyled(text, name))
    for key in ("width", "height"):
        del root.attrib[key]
    root.attrib |= {"class": "plot", "role": "img", "aria-label": alt}
    for prefix, address in _NAMESPACES.items():
        ElementTree.register_namespace(prefix, address)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def plain(text: str, length: int = 28) -> str:
    """A name for a plot: on one line, at most `length` characters, none that XML cannot hold."""
    text = "".join(c for c in " ".join(str(text).split()) if c.isprintable())
    return text if len(text) <= length else text[: length - 1] + "…"


def _restyled(style: str, name: str) -> str:
    style = re.sub(r"url\(#", f"url(#{name}-", style)
    # one version of matplotlib writes `font: ...`, another `font-family: ...`
    style = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", style)
    style = re.sub(r"font-family: [^;]*;?", "", style)
    return re.sub(r"#[0-9a-f]{6}", lambda found: _PAGE_COLOUR.get(found[0], found[0]), style)
