"""The cases: one folder of `tests/cases` per scenario, as typed values for every engine.

A folder holds `README.md` (one line), `policy.yaml` (the resources) and `packets.yaml`: the node, what its
host looks like, settings by their names in `labelgate.settings`, the rules shown and packets (fields of a
JSON line) with the expected answer and the step that decides. `connections.yaml`, beside it or in its place,
asks whether workloads reach each other. `rejected/` holds documents that must not load, `selector-texts/`
texts of selectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import labelgate
import yaml
from labelgate.engines import Budgets, ClassesBudget, TreeBudget
from labelgate.flow import (
    Answer,
    Connection,
    Gate,
    Packet,
    Step,
    Verdict,
    connection_from_json,
    packet_from_json,
    protocol_number,
)
from labelgate.settings import Failsafe, HostFacts, Settings
from labelgate.snapshot import Snapshot
from labelgate.table import Decision

FOLDER = Path(__file__).parent.parent / "cases"
SELECTORS = FOLDER / "selector-texts" / "tables.json"
TWIN = "-v6"
"""A folder NAME has its twin, the same in IPv6, in NAME-v6."""

ENGINES = {
    "classes": Budgets(),
    # Addresses as nets where they are nets; ranks of IPv6 mostly are ranges.
    "tree": Budgets(classes=ClassesBudget(clauses=0), tree=TreeBudget(nets=0)),
    # And their ports and protocols as the numbers of services.
    "services": Budgets(
        classes=ClassesBudget(clauses=0), tree=TreeBudget(nets=0, services=0, bytes_per_cuboid=1 << 20)
    ),
    "linear": Budgets.LINEAR,
}
"""Budgets with which each engine answers for all chains that it can: a new engine adds a line and no case."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an engine must answer."""

    verdict: Verdict
    failsafe: bool
    accepted: bool
    decided: Step
    """The last step of the trace."""

    @classmethod
    def of(cls, answer: Answer) -> Expected:
        """The same of an answer."""
        return cls(answer.verdict, answer.failsafe, answer.accepted, answer.trace[-1])

    @classmethod
    def of_decision(cls, found: Decision) -> Expected:
        """The same of a decision."""
        step = Step(
            found.stage, found.endpoint, found.tier, found.policy, found.rule, found.action, found.reason
        )
        return cls(found.verdict, found.failsafe, found.accepted, step)


@dataclass(frozen=True, slots=True)
class Question:
    """One packet of a case."""

    id: str
    packet: Packet
    expected: Expected
    why: str


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario."""

    name: str
    title: str
    policy: Path
    node: str
    host: HostFacts
    settings: Settings
    staged: bool
    """Asked is the second answer, as if staged policies were in force (E-15)."""
    rules: tuple[str, ...]
    """The ids that its answers show."""
    questions: tuple[Question, ...]

    def snapshot(self) -> Snapshot:
        """Its resources."""
        return labelgate.load(self.policy)


@dataclass(frozen=True, slots=True)
class Asked:
    """One connection of a case."""

    id: str
    packet: Packet
    verdict: Literal["allow", "deny"]
    expected: Connection
    why: str


@dataclass(frozen=True, slots=True)
class ConnectionCase:
    """One scenario of workloads, wherever they live."""

    name: str
    policy: Path
    rules: tuple[str, ...]
    """The ids that its answers show."""
    connections: tuple[Asked, ...]

    def snapshot(self) -> Snapshot:
        """Its resources."""
        return labelgate.load(self.policy)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that must not load."""

    name: str
    text: str
    """The document, as YAML."""
    problems: tuple[tuple[str, str], ...]
    """Each rule that refuses it, with the field."""
    shows: tuple[str, ...]
    """Rules that it shows beside."""


@cache
def load_cases() -> list[Case]:
    """Every case, sorted by name."""
    return [_case(file.parent) for file in sorted(FOLDER.glob("*/packets.yaml"))]


def load_connection_cases() -> list[ConnectionCase]:
    """Every case that asks for connections, sorted by name."""
    return [_connection_case(file) for file in sorted(FOLDER.glob("*/connections.yaml"))]


def _connection_case(file: Path) -> ConnectionCase:
    content = yaml.safe_load(file.read_text())
    asked = tuple(map(_asked, content["connections"]))
    return ConnectionCase(file.parent.name, file.parent / "policy.yaml", tuple(content["rules"]), asked)


def _asked(entry: dict[str, Any]) -> Asked:
    expected = Connection(_gate(entry["egress"]), _gate(entry["ingress"]))
    packet = connection_from_json(entry["packet"])
    return Asked(entry["id"], packet, entry["verdict"], expected, entry["why"])


def _gate(entry: dict[str, Any] | None) -> Gate | None:
    absent = {"tier": None, "policy": None, "rule": None}
    return None if entry is None else Gate(**{**absent, **entry})


def load_rejected() -> list[Rejected]:
    """Every document that must not load, with the reason."""
    folder = FOLDER / "rejected"
    entries = _read(folder / "expected.yaml")
    return [_rejected(entry, folder) for entry in entries]


def _rejected(entry: Mapping[str, Any], folder: Path) -> Rejected:
    problems, shows = tuple(entry["problems"].items()), tuple(entry.get("shows", ()))
    if "file" in entry:
        return Rejected(Path(entry["file"]).stem, (folder / entry["file"]).read_text(), problems, shows)
    rules = "+".join(rule for rule, _ in problems)
    return Rejected(f"{rules}: {entry['what']}", yaml.safe_dump(entry["document"]), problems, shows)


def _case(folder: Path) -> Case:
    content = _read(folder / "packets.yaml")
    interfaces = content["host"]["interfaces"].items()
    return Case(
        name=folder.name,
        title=(folder / "README.md").read_text().strip(),
        policy=folder / "policy.yaml",
        node=content["node"],
        host=HostFacts({name: tuple(addresses) for name, addresses in interfaces}),
        settings=_settings(content.get("settings", {})),
        staged=content.get("staged", False),
        rules=tuple(content["rules"]),
        questions=tuple(map(_question, content["packets"])),
    )


def _read(file: Path) -> Any:
    """By the parser in C: all cases together are large."""
    return yaml.load(file.read_text(), Loader=yaml.CSafeLoader)


def _settings(values: Mapping[str, Any]) -> Settings:
    return Settings(**{name: _setting(name, value) for name, value in values.items()})


def _setting(name: str, value: Any) -> Any:
    if name in ("failsafe_inbound", "failsafe_outbound"):
        return tuple(map(_failsafe, value))
    return tuple(value) if isinstance(value, list) else value


def _failsafe(entry: Mapping[str, Any]) -> Failsafe:
    net = ip_network(entry["net"]) if "net" in entry else None
    return Failsafe(protocol_number(entry["protocol"]), entry["port"], net)


_STEP_FIELDS = ("stage", "endpoint", "tier", "policy", "rule", "action", "reason")


def _question(entry: dict[str, Any]) -> Question:
    decided = entry["decided"]
    if unknown := decided.keys() - set(_STEP_FIELDS):
        raise ValueError(f"{entry['id']}: unknown fields in `decided`: {sorted(unknown)}")
    step = Step(**{field: decided.get(field) for field in _STEP_FIELDS})
    expected = Expected(**entry["answer"], decided=step)
    return Question(entry["id"], packet_from_json(entry["packet"]), expected, entry["why"])
