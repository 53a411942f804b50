"""The file of `--host`: what there is to know of a host that need not be this one."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from labelgate.cli.options import EnvironmentProblem
from labelgate.errors import Portable
from labelgate.resources.documents import Document, decode, documents
from labelgate.resources.errors import Path, Wrong, describe, path_text
from labelgate.resources.positions import Place, SyntaxProblem
from labelgate.resources.values import address
from labelgate.settings import HostFacts

_KEYS = ("node", "interfaces", "workloadPrefixes")
_address = address("address")


def read_host(path: str) -> tuple[str | None, HostFacts, tuple[str, ...] | None]:
    """Host facts from a YAML or JSON file: node, interfaces with addresses, workload prefixes.

    Raises `EnvironmentProblem` with the place of what is wrong.
    """
    document = _document(path)
    try:
        facts = _mapping(document.data, (), ", ".join(_KEYS))
        if unknown := sorted(facts.keys() - set(_KEYS)):
            expected = f"one of {', '.join(map('`{}`'.format, _KEYS))}"
            raise _Refused((unknown[0],), f"unknown key, expected {expected}", key=True)
        interfaces = _mapping(facts.get("interfaces") or {}, ("interfaces",), "names of interfaces")
        found = {name: _addresses(listed, ("interfaces", name)) for name, listed in interfaces.items()}
        prefixes = facts.get("workloadPrefixes")
        if prefixes is not None and not (
            isinstance(prefixes, list) and all(isinstance(prefix, str) and prefix for prefix in prefixes)
        ):
            raise _Refused(("workloadPrefixes",), f"found {describe(prefixes)}, expected a list of names")
    except _Refused as refused:
        place = document.place(refused.path, key=refused.key)
        where = f"{path_text(refused.path)}: " if refused.path else ""
        raise _problem(path, place, f"{where}{refused}") from None
    node = facts.get("node")
    return node and str(node), HostFacts(found), None if prefixes is None else tuple(prefixes)


class _Refused(Portable):
    """A value is not as it must be."""

    def __init__(self, path: Path, message: str, *, key: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.key = key


def _mapping(value: Any, path: Path, keys: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(path, f"found {describe(value)}, expected a mapping with {keys}")
    return value


def _addresses(listed: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(listed or [], list):
        raise _Refused(path, f"found {describe(listed)}, expected a list of addresses")
    found = []
    for number, one in enumerate(listed or ()):
        try:
            found.append(str(_address(one)))
        except Wrong as wrong:
            raise _Refused((*path, number), f"found {_told(wrong)}") from None
    return tuple(found)


def _document(path: str) -> Document:
    try:
        found = list(documents(decode(FilePath(path).read_bytes()), is_json=path.endswith(".json")))
    except OSError as error:
        raise EnvironmentProblem(f"{path}: {error.strerror or error}") from None
    except SyntaxProblem as problem:
        raise _problem(path, problem.place, f"{problem.wrong.message}: {_told(problem.wrong)}") from None
    for document in found:
        for wrong, place, at in document.problems:
            raise _problem(path, place, f"{path_text(at)}: {wrong.message}: {_told(wrong)}")
    if len(found) != 1:
        raise EnvironmentProblem(f"{path}: found {len(found)} documents, expected one")
    return found[0]


def _told(wrong: Wrong) -> str:
    return f"{wrong.found}, expected {wrong.expected} ({wrong.hint})"


def _problem(path: str, place: Place, message: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{path}:{place.line}:{place.column}: {message}")
