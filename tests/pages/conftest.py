"""Pages in Debian's chromium, without a window."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

WIDTHS = (1400, 380)  # a desk, a phone


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Callable:
    """Opens a file as a reader would: fails on an error on the console, a request for anything but the file, a picture
    that does not show, ids used twice, or a page wider than the window, on a desk and on a phone. Returns the page."""
    contexts = []

    def visit(path: Path, width: int | None = None):
        for w in WIDTHS if width is None else (width,):
            contexts.append(browser.new_context(viewport={"width": w, "height": 900}))
            page = contexts[-1].new_page()
            errors, requests = [], []
            page.on("console", lambda m, errors=errors: errors.append(m.text) if m.type in ("error", "warning") else 0)
            page.on("pageerror", lambda e, errors=errors: errors.append(str(e)))
            page.on("request", lambda r, requests=requests: requests.append(r.url))
            page.goto(path.as_uri())
            page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
            _load_pictures(page)
            assert errors == []
            assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
            assert sum(url.startswith("file:") for url in requests) == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= w
            ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
            assert len(ids) == len(set(ids)), "ids used twice"
        return page

    yield visit
    for context in contexts:
        context.close()


def _load_pictures(page) -> None:
    """Fails if one does not show."""
    widths = page.evaluate(
        """async () => Promise.all([...document.images].map(async image => {
            await image.decode().catch(() => {});
            return image.naturalWidth;
        }))"""
    )
    assert all(width > 0 for width in widths)
