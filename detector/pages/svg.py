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

from detector.pages.palette import CYCLE, INK, LINE, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE_COLOUR = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}  # follows the reader's light or dark
_STYLE: dict[Any, Any] = {
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
    "axes.prop_cycle": CYCLE,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Inside this context, figures are made and drawn in the style of the page."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
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
    """A name for a plot: on one line, at most `length` characters, none that XML cannot hold.

    The middle of a longer name is left out, as names of one dataset often differ at their ends.
    """
    text = "".join(c for c in " ".join(str(text).split()) if c.isprintable())
    end = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - end]}…{text[-end:]}"


def _restyled(style: str, name: str) -> str:
    style = re.sub(r"url\(#", f"url(#{name}-", style)
    # one version of matplotlib writes `font: ...`, another `font-family: ...`
    style = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", style)
    style = re.sub(r"font-family: [^;]*;?", "", style)
    return re.sub(r"#[0-9a-f]{6}", lambda found: _PAGE_COLOUR.get(found[0], found[0]), style)
