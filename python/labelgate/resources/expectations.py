"""`PolicyTest`: what policies are expected to decide; it stands beside them and never changes a verdict."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PlainValidator, PrivateAttr

from labelgate.resources.errors import Finding, Findings, Wrong, describe, quote
from labelgate.resources.metadata import Resource
from labelgate.resources.part import Part
from labelgate.resources.positions import Place
from labelgate.resources.rule import Icmp
from labelgate.resources.values import (
    ICMP,
    ICMPV6,
    PROTOCOLS,
    WITH_PORTS,
    Address,
    IPNetwork,
    PortRange,
    Protocol,
    did_you_mean,
    loose_network,
    one_of,
    port,
    port_number,
    selector,
)
from labelgate.resources.versions import OURS

_HOOKS = (
    "raw-prerouting", "raw-output", "mangle-prerouting", "filter-input", "filter-forward", "filter-output",
    "mangle-postrouting",
)  # fmt: skip
_STATES = ("new", "established", "related", "invalid", "untracked")
_EXPECTED = ("allow", "deny", "allow-notrack", "allow-skip-hep", "continue")
_NAMED = ("HostEndpoint", "WorkloadEndpoint", "Pod", "GlobalNetworkSet", "NetworkSet")


@dataclass(frozen=True, slots=True)
class AskedPeer:
    """One of `from` or `to`."""

    text: str
    """As messages name it."""
    net: IPNetwork | None = None
    """An address or network; every address of it is meant."""
    name: str | None = None
    """`namespace/name` of a workload, or `Kind/name` and `Kind/namespace/name`."""
    selector: str | None = None
    """Workloads by their effective labels."""
    namespace: str | None = None
    """With a selector: only workloads of it."""


def _peer(value: Any) -> AskedPeer:
    if isinstance(value, dict):
        return _selected(value)
    if not isinstance(value, str) or not value:
        raise Wrong("test-peer", describe(value))
    if re.match(r"[0-9.]+(/[0-9]+)?\Z", value) or ":" in value:
        return AskedPeer(value, net=loose_network("test-peer")(value))
    parts = value.split("/")
    if len(parts) == 2 and all(parts) and parts[0] == parts[0].lower():
        return AskedPeer(value, name=value)
    if parts[0] not in _NAMED or len(parts) not in (2, 3) or not all(parts):
        raise Wrong("test-peer", quote(value), hint=did_you_mean(parts[0], _NAMED))
    return AskedPeer(value, name=value)


def _selected(value: dict[str, Any]) -> AskedPeer:
    unknown = sorted(str(name) for name in value if name not in ("selector", "namespace"))
    if unknown or not all(isinstance(text, str) and text for text in value.values()) or not value:
        raise Wrong("test-peer", quote(unknown[0]) if unknown else describe(value))
    chosen, namespace = selector(value.get("selector", "all()")), value.get("namespace")
    text = f"{{selector: {chosen}" + (f", namespace: {namespace}}}" if namespace else "}")
    return AskedPeer(text, selector=chosen, namespace=namespace)


def _number_range(value: Any) -> PortRange:
    found = port(value)
    if isinstance(found, str):
        raise Wrong("test-port", quote(found))
    return found


def _listed(value: Any) -> Any:
    """One value stands for a list of it."""
    return value if isinstance(value, list) or value is None else [value]


def _word(code: str, words: tuple[str, ...]) -> Any:
    parse: Callable[[Any], str] = one_of(code, *words)
    return PlainValidator(parse, json_schema_input_type=str)


Peers = Annotated[
    list[Annotated[AskedPeer, PlainValidator(_peer, json_schema_input_type=str | dict[str, str])]],
    BeforeValidator(_listed, json_schema_input_type=list[str | dict[str, str]] | str | dict[str, str]),
    Field(min_length=1),
]
Ports = Annotated[
    list[Annotated[PortRange, PlainValidator(_number_range, json_schema_input_type=int | str)]],
    BeforeValidator(_listed, json_schema_input_type=list[int | str] | int | str),
]


class DecidedBy(Part):
    """What is expected to have decided."""

    policy: str | None = None
    """`Kind/namespace/name` or `Kind/name`, as `labelgate explain` prints it."""
    rule: int | None = None
    """Counts from 0 within its direction."""
    direction: Annotated[str | None, _word("test-direction", ("ingress", "egress"))] = None
    """Of the policy's rules; None is either, where only one of them decides."""
    tier: str | None = None

    def findings(self) -> Findings:
        """Something is named, and a rule is one of a policy."""
        if self.policy is None and self.tier is None:
            yield Finding((), Wrong("test-decided", "neither"), (("policy",), ("tier",)))
        elif self.rule is not None and self.policy is None:
            yield Finding(("rule",), Wrong("test-decided", f"`rule: {self.rule}` alone"), (("policy",),))


class Expectation(Part):
    """One question, or every combination of its lists, with the answer that all of them must have."""

    field_hints: ClassVar[dict[str, str]] = {
        "ports": "`port` takes a list, too",
        "source": "use `from`",
        "destination": "use `to`",
        "verdict": "use `expect`",
        "policy": "`policy` stands under `decidedBy`",
        "rule": "`rule` stands under `decidedBy`",
    }

    name: str | None = None
    from_: Peers = Field(alias="from")
    to: Peers
    protocol: Protocol | None = None
    """None is TCP where there is a port."""
    port: Ports = Field(default_factory=list)
    """Of the destination; every port of a range is meant, and every port where none is given."""
    icmp: Icmp | None = None
    source_port: Annotated[
        int | None, PlainValidator(port_number("test-source-port"), json_schema_input_type=int)
    ] = None
    expect: Annotated[str, _word("test-expect", _EXPECTED)]
    decided_by: DecidedBy | None = None
    node: str | None = None
    hook: Annotated[str | None, _word("test-hook", _HOOKS)] = None
    in_: str | None = Field(default=None, alias="in")
    out: str | None = None
    state: Annotated[str, _word("test-state", _STATES)] = "new"
    dnat: str | None = None

    def findings(self) -> Findings:
        """What goes with what."""
        number = self.protocol
        if number in (ICMP, ICMPV6):
            if self.icmp is None or self.icmp.type is None:
                yield Finding(("protocol",), Wrong("test-icmp", "no ICMP type"), (("icmp",),))
        elif self.icmp is not None:
            yield Finding(("icmp",), Wrong("test-icmp", "`icmp`"), (("protocol",),))
        if number is None and not self.port and self.icmp is None:
            yield Finding((), Wrong("test-service", "neither"), (("protocol",), ("port",)))
        if self.port and number is not None and number not in (*WITH_PORTS, PROTOCOLS["UDPLite"]):
            yield Finding(("port",), Wrong("test-ports", "`port`"), (("protocol",),))
        if self.hook is None and self.expect not in ("allow", "deny"):
            yield Finding(("expect",), Wrong("test-word", quote(self.expect)), (("hook",),))
        if self.hook is not None and self.dnat is not None:
            yield Finding(("dnat",), Wrong("test-dnat", "`hook` and `dnat`"), (("hook",),))


class PolicyTestSpec(Part):
    """`spec` of a PolicyTest."""

    policies: list[str] | None = None
    """Files and folders, seen from this file; None is the folder that it is in."""
    node: str | None = None
    """Whose way through the node is meant where an expectation says nothing else."""
    interfaces: dict[str, list[Address]] = Field(default_factory=dict)
    """What that node looks like: interfaces and their addresses."""
    expectations: list[Expectation]

    def findings(self) -> Findings:
        """A test without expectations would be no test."""
        if not self.expectations:
            yield Finding(("expectations",), Wrong("test-empty", "an empty list"))


class PolicyTest(Resource):
    """Expectations (docs/policy-tests.md)."""

    version: ClassVar[str] = OURS
    kind_name: ClassVar[str] = "PolicyTest"

    spec: PolicyTestSpec

    _places: tuple[Place, ...] = PrivateAttr(default=())

    @property
    def count(self) -> int:
        """How many expectations it has."""
        return len(self.spec.expectations)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where each expectation stands."""
        return self._places

    def put_places(self, places: tuple[Place, ...]) -> None:
        """Notes where each expectation stands: the loader knows."""
        self._places = places
