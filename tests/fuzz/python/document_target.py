"""Bytes to resources, and on to decisions: what must hold for any file that somebody loads."""

from __future__ import annotations

import re
from zlib import crc32

from labelgate.config import load_config
from labelgate.reference import Reference
from labelgate.reference.labels import Endpoint, members
from labelgate.resources import Loading, Problem, Resource
from labelgate.resources.documents import decode, documents
from labelgate.resources.positions import SyntaxProblem
from labelgate.snapshot import Snapshot
from random_world import HOST, Dice, aims

NODE = "edge1"
PACKETS = 4
"""Asked of both engines, of each file that loads."""


def check(content: bytes) -> None:
    """Every file is refused, with places that it has, or goes all the way to decisions."""
    for file in ("fuzz.json", "fuzz.yaml"):
        loading = Loading()
        loading.add(content, file)
        for problem in loading.problems:
            check_problem(problem, content)
    if not loading.problems:
        check_resources(loading.result(), content)


def check_problem(problem: Problem, content: bytes) -> None:
    """It can be printed, and its place is in the file as editors count lines, or as YAML does."""
    assert problem.code != "fault", problem
    assert all(map(str.isprintable, str(problem).split("\n")))
    text = content.decode("utf-8-sig", "replace")
    for breaks in ("\n", "\r\n|[\n\r\x85\u2028\u2029]"):
        lines = re.split(breaks, text)
        if 1 <= problem.line <= len(lines) and 1 <= problem.column <= len(lines[problem.line - 1]) + 1:
            return
    raise AssertionError(f"{problem.line}:{problem.column} is not in the file: {problem}")


def check_resources(resources: list[Resource], content: bytes) -> None:
    """Whatever loads is compiled, for its nodes and for a cluster, and both engines answer alike."""
    snapshot = Snapshot.of(resources)
    settings = load_config(None, snapshot.felix_configurations, NODE, environ={}).settings
    dice = Dice(crc32(content))
    staged = dice.chance(33)
    local, cluster, *_ = tables = [
        snapshot.compile(node=node, host=HOST, settings=settings, staged=staged)
        for node in (NODE, None, *snapshot.nodes()[:1])
    ]
    for table in tables:
        assert table.warnings == sorted(table.warnings)
        table.rule_facts()
    assert snapshot.warnings == sorted(set(snapshot.warnings))
    assert all(map(str.isprintable, [*snapshot.warnings, *local.warnings]))
    reference = Reference(snapshot, NODE, HOST, settings, staged=staged)
    aimed, names = tuple(aims(plain(content))), interfaces(snapshot, settings.workload_prefixes[0])
    for _ in range(PACKETS):
        packet = dice.packet(names, aimed)
        assert local.answer(packet) == reference.answer(packet), packet
        assert cluster.connectivity(packet) == reference.connectivity(packet), packet


def plain(content: bytes) -> list[object]:
    """The documents as data; of a file that is none, those before its error."""
    found = []
    try:
        for document in documents(decode(content)):
            found.append(document.data)
    except SyntaxProblem:
        pass
    return found


def interfaces(snapshot: Snapshot, prefix: str) -> tuple[str, ...]:
    """Those that endpoints have, also those of pods."""
    endpoints = [member for member in members(snapshot, prefix) if isinstance(member, Endpoint)]
    return tuple(sorted({endpoint.interface for endpoint in endpoints} - {"", "*"}))
