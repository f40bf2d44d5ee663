"""Pages in Debian's chromium, without a window, and evaluations of made-up detections to show on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import read_coco
from detector.data.descriptor import Split
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.analysis import analyse
from detector.evaluation.metrics.average_precision import hits_by_class
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.score_thresholds import Goal, choose_thresholds

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


@pytest.fixture(scope="session")
def evaluated() -> Callable:
    """evaluated(folder, names, images=12): see below."""
    return _evaluated


@pytest.fixture(scope="session")
def analysed() -> Callable:
    """analysed(matching, train_counts): its metrics and itself."""
    return _analysed


def _evaluated(folder: Path, names: list[str], images: int = 12):
    """The analysis of detections made up: of every three objects one is found, one is taken for another class, one is
    missed; beside them something is found in every image where nothing is."""
    rng = np.random.default_rng(0)
    coco = {"images": [], "annotations": [], "categories": [{"id": k + 1, "name": n} for k, n in enumerate(names)]}
    found = {"images": [], "boxes": [], "scores": [], "labels": []}

    def find(i: int, box: list, label: int) -> None:
        for key, v in zip(found, (i, box, rng.uniform(0.3, 0.9), label), strict=True):
            found[key].append(v)

    for i in range(images):
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        coco["images"].append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 90})
        for n in range(len(names) if len(names) < 9 else 9):
            x, y, label = 38 * (n % 3) + 2, 28 * (n // 3) + 2, (7 * i + n) % len(names)
            box = {"id": 9 * i + n + 1, "image_id": i, "category_id": label + 1, "iscrowd": 0, "area": 400}
            coco["annotations"].append(box | {"bbox": [x, y, 20, 20]})
            if (i + n) % 3:
                find(i, [x, y, x + 20, y + 20], (label + ((i + n) % 3 - 1) * (1 + i % 2)) % len(names))
        find(i, [100, 70, 118, 88], i % len(names))
    (folder / "val.json").write_text(json.dumps(coco))
    data = read_coco(Split(folder, folder / "val.json"))
    found = {"images": np.array(found["images"]), "boxes": np.array(found["boxes"], np.float32),
             "scores": np.array(found["scores"], np.float32), "labels": np.array(found["labels"])}  # fmt: skip
    counts = np.arange(len(names))[::-1] * 5
    return _analysed(match(Detections(**found), data), counts)


def _analysed(matching, train_counts):
    hits = hits_by_class(matching)
    metrics = analyse(matching, hits, choose_thresholds(hits, Goal()), train_counts)
    return SimpleNamespace(metrics=metrics, matching=matching)
