"""Who may import whom (ARCHITECTURE.md), read from the sources themselves."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "python" / "labelgate"

CORE = "_core"
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {CORE, "compiler", "engines", "flow", "resources", "settings", "snapshot", "table"},
    "__main__": {"cli", "interrupts", "streams"},
    "interrupts": set(),
    "streams": set(),
    "regular": set(),
    "printable": set(),
    "arguments": set(),
    "errors": set(),
    "settings": {"arguments"},
    "flow": {"errors", "printable"},
    "resources": {CORE, "arguments", "errors", "printable"},
    "sources": {"printable", "regular", "resources"},
    "engines": {CORE},
    "columns": {CORE, "arguments", "flow"},
    "tabular": set(),
    "tally": {"flow", "tabular"},
    "table": {CORE, "arguments", "columns", "engines", "flow", "printable", "settings", "tabular", "tally"},
    "snapshot": {CORE, "arguments", "config", "conversion", "engines", "model", "printable", "resources",
                 "settings", "sources", "table"},
    "compiler": {CORE, "arguments", "engines", "model", "resources", "settings", "snapshot", "table"},
    "conversion": {"flow", "resources"},
    "model": {"resources", "conversion", "settings"},
    "reference": {"resources", "snapshot", "flow", "settings"},
    "path": {"flow"},
    "ways": {"flow", "path", "table"},
    "netlink": set(),
    "config": {"flow", "processors", "regular", "resources", "settings"},
    "links": {"settings"},
    "out_of_reach": {"links", "printable", "snapshot", "table"},
    "netfilter": {"errors", "flow", "netlink", "settings"},
    "processors": set(),
    "control": {"errors"},
    "metrics": set(),
    "lockout": {CORE, "columns", "errors", "flow", "links", "netlink", "path", "settings", "table", "ways"},
    "doctor": {CORE, "config", "control", "flow", "links", "netfilter", "out_of_reach", "processors",
               "resources", "settings", "snapshot"},
    "handlers": {CORE, "flow", "links", "table"},
    "agent": {CORE, "compiler", "config", "control", "engines", "errors", "events", "flow", "handlers",
              "links", "lockout", "metrics", "model", "netfilter", "out_of_reach", "printable", "processors",
              "reference", "regular", "resources", "settings", "snapshot", "sources", "table"},
    "events": set(),
    "demo": {"flow", "interrupts", "path", "settings", "snapshot", "table"},
    "analysis": {CORE, "arguments", "columns", "conversion", "errors", "flow", "lockout", "model", "path",
              "printable", "reference", "resources", "settings", "snapshot", "sources", "table", "tabular",
              "ways"},
    "expect": {CORE, "analysis", "config", "conversion", "flow", "model", "path", "reference", "resources",
              "settings", "snapshot", "sources", "table", "tabular"},
    "bench": {CORE},
    "queue_bench": {CORE, "bench", "config", "demo", "flow", "netfilter", "processors", "snapshot", "table"},
    "cli": {CORE, "agent", "analysis", "bench", "config", "control", "demo", "doctor", "errors", "events",
              "expect", "flow", "handlers", "interrupts", "links", "lockout", "model", "netfilter", "path",
              "printable", "queue_bench", "reference", "regular", "resources", "settings", "snapshot",
              "sources", "streams", "table"},
    "pytest_plugin": {"config", "expect", "resources"},
}  # fmt: skip
MOST_LINES, MOST_FUNCTION_LINES = 620, 100


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def top(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def for_type_checkers_only(tree: ast.AST) -> set[ast.AST]:
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }


def imports(path: Path) -> set[str]:
    """The modules of ours that a file names at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    skipped = for_type_checkers_only(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "labelgate":
            names += [f"labelgate.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("labelgate.")} - {top(path)}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    assert imports(path) <= MAY_IMPORT[top(path)]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def test_no_two_modules_import_each_other() -> None:
    """Nor more of them in a circle, for type checkers neither; what the package hands out does not count."""
    files = {module_of(path): path for path in modules() if path.parent != ROOT or path.stem != "__init__"}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in files else str(node.module) for name in names]
            graph[module] |= set(names) & files.keys() - {module}
    TopologicalSorter(graph).prepare()  # CycleError names them.


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_relative_imports(path: Path) -> None:
    """A relative import would not be seen by the test above."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= MOST_FUNCTION_LINES, node.name
