"""The rule ids of `docs/semantics.md`, and who cites them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "semantics.md"
CITED = re.compile(r"(?<![\w-])[RVSMEKP]-\d+[a-z]?(?![\w-])")
"""An id as texts cite it; `E-20.5` cites E-20."""
_DEFINED = re.compile(r'^(?:- |\| )<a id="([^"]+)"></a>\*\*([^*]+)\*\*', re.MULTILINE)
_SUFFIXES = {".rs", ".py", ".pyi", ".yaml", ".json", ".txt", ".md"}


@cache
def defined() -> list[tuple[str, str]]:
    """Anchor and id of every rule, in the order of the document."""
    return _DEFINED.findall(DOCUMENT.read_text())


def ids() -> set[str]:
    """Every id that the document defines."""
    return {rule for _, rule in defined()}


def citations() -> dict[str, set[str]]:
    """Every id cited in sources, tests and documents, with the files that cite it."""
    found: dict[str, set[str]] = {}
    for file in _files():
        for rule in CITED.findall(file.read_text(errors="replace")):
            found.setdefault(rule, set()).add(str(file.relative_to(ROOT)))
    return found


def _files() -> list[Path]:
    folders = ("src", "python", "tests", "docs", "benches", "examples")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*")]
    return [file for file in [*files, *ROOT.glob("*.md")] if file.suffix in _SUFFIXES and file.is_file()]
