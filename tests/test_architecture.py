"""Imports point one way, every module has a room, and loading a detector stays light."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "detector"

# From top to bottom. A room imports itself and rooms in lower lines, never a neighbour in its own line.
# "checkpoint" is the module checkpoint.py; every other name is a folder.
LAYERS = (
    ("doctor",),
    ("training",),
    ("inference",),
    ("checkpoint",),
    ("evaluation",),
    ("data", "models", "losses"),
    ("config", "ops", "pages"),
    ("utils",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


class Import(NamedTuple):
    """One import of a module of this project. `module`: where it stands, `target`: what it names, both dotted."""

    module: str
    target: str
    name: str | None  # what `from target import name` takes; None where the whole module is imported
    line: int
    typing_only: bool  # under `if TYPE_CHECKING:`

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}:{self.line} imports {self.target}"


def files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in files("detector")}


def room(module: str) -> str:
    """detector.data.coco → data; the package itself → ''."""
    return (module + "..").split(".")[1]


def project_imports(file: Path) -> list[Import]:
    """All imports of `detector` in a file: at the top, in functions, and under `if TYPE_CHECKING:`."""
    tree, module = ast.parse(file.read_text(), str(file)), module_name(file)
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    return [
        Import(module, target, name, node.lineno, id(node) in typing_only)
        for node in ast.walk(tree)
        for target, name in _targets(node)
        if target.split(".")[0] == "detector"
    ]


def _targets(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import; this project writes absolute ones"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield (whole, None) if whole in MODULES else (str(node.module), alias.name)


IMPORTS = [found for file in files("detector", "tools", "benchmarks") for found in project_imports(file)]


def test_imports_point_one_way():
    """Imports in functions and for annotations count too: an arrow back up means code in the wrong room."""
    wrong = [
        str(found)
        for found in IMPORTS
        if found.module.startswith("detector.")  # the package itself and the tools are above all rooms
        and room(found.target) != room(found.module)
        and (room(found.target) not in LEVEL or LEVEL[room(found.target)] <= LEVEL[room(found.module)])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_cycle_between_modules():
    """Imports for annotations are left out: they never run."""
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        if not found.typing_only:
            graph.setdefault(found.module, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(" → ".join(cycle.args[1]))


def test_what_is_imported_exists():
    """The benchmarks are not run by the tests, so that a renamed function would break them unseen."""
    defined = {module: _top_level_names(file) for module, file in MODULES.items()}
    missing = [
        f"{found}, name {found.name}"
        for found in IMPORTS
        if found.target not in MODULES or (found.name and found.name not in defined[found.target])
    ]
    assert not missing, "\n".join(missing)


def _top_level_names(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_nothing_imports_the_scripts():
    """tools/, datasets/ and tests/ are programs; benchmarks/ may import one another."""
    scripts = {"tools", "tests", "datasets", "benchmarks"}
    for file in files("detector", "tools", "benchmarks"):
        for node in ast.walk(ast.parse(file.read_text())):
            for target, _ in _targets(node):
                assert target.split(".")[0] not in scripts, f"{file}:{node.lineno} imports {target}"


def test_every_module_is_in_a_room():
    ignored = {"__pycache__"}
    at_the_root = {path.name for path in PACKAGE.iterdir()} - ignored
    rooms = set(LEVEL) - {"checkpoint"}
    assert at_the_root == rooms | {"__init__.py", "checkpoint.py", "py.typed"}
    folders = {file.parent for file in MODULES.values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("tool", files("tools"), ids=lambda file: file.name)
def test_a_tool_is_thin(tool):
    assert len(tool.read_text().splitlines()) <= 60


DETECTS = """
import json, sys
import detector
alone = sorted({name.split(".")[0] for name in sys.modules})
detect = detector.load(sys.argv[1], device="cpu", threshold=0)
found = detect(sys.argv[2])
assert len(found["boxes"]) > 0
print(json.dumps([alone, sorted(sys.modules)]))
"""


def test_detecting_imports_only_what_it_needs(trained):
    command = [sys.executable, "-c", DETECTS, str(trained / "run"), str(trained / "val" / "1.png")]
    done = subprocess.run(command, cwd=trained, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone, modules = json.loads(done.stdout)
    assert "torch" not in alone and "numpy" not in alone  # `import detector` itself is quick
    heavy = {"tensorboard", "albumentations", "matplotlib", "pycocotools", "pandas", "jinja2"}
    assert heavy & {name.split(".")[0] for name in modules} == set()
    assert [name for name in modules if name.startswith(("detector.training", "detector.doctor"))] == []
