"""Every link in README.md and docs/ leads somewhere, and the site builds."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # not a package: tests are collected with --import-mode=importlib
markdown = importlib.import_module("markdown_pages")


@pytest.mark.parametrize("page", markdown.PAGES, ids=lambda page: page.name)
def test_links_hold(page):
    for link in markdown.links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in markdown.anchors(target), f"{page.name}: {link}"


def test_readme_reaches_every_page():
    linked = {link.partition("#")[0] for link in markdown.links(markdown.ROOT / "README.md")}
    pages = {f"docs/{page.name}" for page in markdown.PAGES[1:]}
    assert pages - linked <= {"docs/index.md"}  # it is the site's first page, as the README is the repository's


def test_readme_is_short():
    assert len((markdown.ROOT / "README.md").read_text().split()) <= 900


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[dev]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    built = subprocess.run([str(c) for c in command], cwd=markdown.ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    html = (tmp_path / "site" / "index.html").read_text()
    assert "report.html" in html
    for attribute in ('<script src="http', 'rel="stylesheet" href="http', 'rel="preconnect"'):
        assert attribute not in html
