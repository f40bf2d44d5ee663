"""What the tests of the documentation read in README.md and docs/*.md: code blocks, inline code, headings, links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced code block: its language and its text, without the indentation of a list that it stands in."""

    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced code blocks of a page, in order; only those of `languages`, if any are given."""
    found = []
    for match in FENCE.finditer(page.read_text()):
        text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        if not languages or match["language"] in languages:
            found.append(Block(match["language"], text))
    return found


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    """What stands between backticks; in a table, `\\|` is a plain |."""
    return [code.replace("\\|", "|") for code in INLINE.findall(prose(page))]


def links(page: Path) -> list[str]:
    """The targets of links and pictures."""
    return LINK.findall(INLINE.sub("", prose(page)).replace("![", "["))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, which GitHub and mkdocs name alike: a heading on which they differ has none."""
    headings = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(prose(page))]
    words = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s", "-", each) for each in words if not re.search(r"[-\s]{2}", each) and each.isascii()}
