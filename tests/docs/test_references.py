"""Every file and every name in a file that README.md and docs/ mention exists: `data/loader.py:Loader.__iter__`."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # not a package: tests are collected with --import-mode=importlib
markdown = importlib.import_module("markdown_pages")

FILE = re.compile(r"^([\w./]*/[\w.]+\.(?:py|yaml|jsonl))(?::([\w.]+))?$")
ROOTS = (markdown.ROOT, markdown.ROOT / "detector")
EXAMPLES = re.compile(
    r"datasets/(mine|other|mine_split)\.yaml|configs/mine\.yaml|losses/classification/poly_focal\.py|losses/assigners/nearest\.py"
)


def defined(file: Path) -> set[str]:
    """The functions, classes, methods and variables that a module defines."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("page", markdown.PAGES, ids=lambda page: page.name)
def test_files_and_names_exist(page):
    missing = []
    for code in markdown.inline_code(page):
        match = FILE.match(code)
        if not match or EXAMPLES.match(code):
            continue
        files = [root / match[1] for root in ROOTS if (root / match[1]).is_file()]
        if not files or (match[2] and match[2] not in defined(files[0])):
            missing.append(code)
    assert not missing
