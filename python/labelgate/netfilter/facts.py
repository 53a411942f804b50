"""What a ruleset is made from: chains that answer statically, who governs which interface, marks, queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, Self, cast

from labelgate.flow import HOOKS, Hook
from labelgate.settings import INTERFACE, Settings

Family = Literal["v4", "v6"]
FAMILIES: tuple[Family, ...] = ("v4", "v6")
StaticAnswer = Literal["queue", "allow", "deny", "unmarked"]
"""What a chain answers to every packet of a family; `queue` where that depends on the packet."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The three private bits of the packet mark."""

    accept: int = 0x0100
    """A: accepted by untracked or preDNAT policy, or by FORWARD (E-48)."""
    decided: int = 0x0400
    """D: our table has its verdict; cleared by our chain before it returns."""
    reject: int = 0x1000
    """R: the verdict is a reject."""

    @classmethod
    def from_mask(cls, mask: int) -> Self:
        """The lowest bit is A, the middle one D, the highest R. ValueError unless exactly three are set."""
        bits = [1 << index for index in range(32) if mask >> index & 1]
        if len(bits) != 3 or mask >> 32:
            raise ValueError(
                f"mark mask {mask:#x} has {mask.bit_count()} bits; exactly 3 of the low 32 are needed"
            )
        return cls(*bits)

    @property
    def exempt(self) -> int:
        """R on its way from raw to filter OUTPUT: accepted by untracked policy, if it is untracked there."""
        return self.reject

    @property
    def mask(self) -> int:
        """All three bits."""
        return self.accept | self.decided | self.reject


@dataclass(frozen=True, slots=True)
class Service:
    """Packets of one protocol; with ports, those that have one of them on this side."""

    protocol: int
    side: Literal["source", "destination"] | None = None
    ports: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges, which one match of iptables holds."""

    @classmethod
    def _read(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["protocol"], value["side"], tuple((first, last) for first, last in value["ports"]))


Services = tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class ByFamily:
    """A chain's static answers."""

    v4: StaticAnswer
    v6: StaticAnswer
    counters: tuple[str, str] = ("", "")
    """For each, the counter of the packets that it answers; empty: they are not counted."""
    services: tuple[Services | None, Services | None] = (None, None)
    """For each `queue`, the packets that have this answer; all others are left unmarked. None: all have."""

    def of(self, family: Family) -> StaticAnswer:
        """The answer in this family."""
        return self.v4 if family == "v4" else self.v6

    def counter(self, family: Family) -> str:
        """The counter in this family."""
        return self.counters[FAMILIES.index(family)]

    def services_of(self, family: Family) -> Services | None:
        """The packets that are queued in this family; None: all, if any."""
        return self.services[FAMILIES.index(family)]

    @classmethod
    def _read(cls, value: Sequence[Any], counters: Sequence[str] | None) -> Self:
        (v4, of_v4), (v6, of_v6) = map(_answer, value)
        return cls(v4, v6, ("", "") if counters is None else (counters[0], counters[1]), (of_v4, of_v6))


def _answer(value: Any) -> tuple[StaticAnswer, Services | None]:
    if isinstance(value, str):
        return cast(StaticAnswer, value), None
    return "queue", tuple(map(Service._read, value["services"]))


@dataclass(frozen=True, slots=True)
class ByDirection:
    """Ingress and egress, seen from the endpoint."""

    ingress: ByFamily
    egress: ByFamily

    @classmethod
    def _read(cls, value: Mapping[str, Sequence[Any]], counters: Mapping[str, Any] | None) -> Self:
        named = counters or {}
        return cls(*(ByFamily._read(value[side], named.get(side)) for side in ("ingress", "egress")))


@dataclass(frozen=True, slots=True)
class HostChains:
    """The chains of one host endpoint that governs something."""

    endpoint: str
    interfaces: tuple[str, ...]
    """Those it governs by name or address (E-45)."""
    any_interface: bool
    """The `*` host endpoint (E-46)."""
    input: ByFamily
    """Normal ingress."""
    output: ByFamily
    """Normal egress."""
    forward: ByDirection
    untracked: ByDirection | None = None
    """None without untracked policy (E-31)."""
    prednat: ByFamily | None = None
    """None without preDNAT policy."""
    denied_answers: frozenset[tuple[str, Family]] = frozenset()
    """Directions in which untracked policy may deny a packet with which the kernel answers another one."""

    @classmethod
    def _read(cls, value: Mapping[str, Any], counters: Mapping[str, Any]) -> Self:
        untracked, prednat = value["untracked"], value["prednat"]
        return cls(
            endpoint=value["endpoint"],
            interfaces=tuple(value["interfaces"]),
            any_interface=value["any"],
            input=ByFamily._read(value["input"], counters.get("input")),
            output=ByFamily._read(value["output"], counters.get("output")),
            forward=ByDirection._read(value["forward"], counters.get("forward")),
            untracked=None if untracked is None else ByDirection._read(untracked, counters.get("untracked")),
            prednat=None if prednat is None else ByFamily._read(prednat, counters.get("prednat")),
            denied_answers=frozenset(
                (direction, family)
                for direction, denies in value["untracked_denies"].items()
                for family, may_deny in zip(FAMILIES, denies, strict=True)
                if may_deny
            ),
        )


@dataclass(frozen=True, slots=True)
class WorkloadChains:
    """The chains of one workload, and the addresses that it may send from (E-30)."""

    endpoint: str
    interface: str
    sources: tuple[IPv4Network | IPv6Network, ...]
    ingress: ByFamily
    egress: ByFamily

    @classmethod
    def _read(cls, value: Mapping[str, Any], counters: Mapping[str, Any]) -> Self:
        return cls(
            endpoint=value["endpoint"],
            interface=value["interface"],
            sources=tuple(ip_network(source) for source in value["sources"]),
            ingress=ByFamily._read(value["ingress"], counters.get("ingress")),
            egress=ByFamily._read(value["egress"], counters.get("egress")),
        )


@dataclass(frozen=True, slots=True)
class RulesetFacts:
    """Everything that decides what the rules look like.

    ValueError if an interface name cannot be written in a rule, or has two owners.
    """

    hosts: tuple[HostChains, ...]
    workloads: tuple[WorkloadChains, ...]
    settings: Settings = field(default_factory=Settings)
    marks: Marks = field(default_factory=Marks)
    queue_base: int = 4200
    workers: int = 1
    """Queues of each hook and family."""
    by_cpu: bool = False
    """The packet's processor chooses among them (`--queue-cpu-fanout`), not its addresses."""
    fail_open: frozenset[Hook] = frozenset()
    """Hooks whose packets pass while nobody listens (`--queue-bypass`)."""
    without_repeat: frozenset[Hook] = frozenset()
    """Hooks where bit D cannot be trusted, because rules of others ahead of ours can write it."""
    kept: frozenset[Hook] = frozenset()
    """Hooks that keep their chain although nothing needs it any more: a verdict may be under way."""
    keeps_mark: bool = False
    """Packets of this host leave raw OUTPUT with the mark that they came with: no others are there."""
    open: bool = False
    """Every queue rule is replaced by RETURN (`stop: open`); what the kernel settles still holds."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Names of counters, by the reason for which kernel rules answer without any chain (E-40, E-20.2)."""

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        named = [(name, host.endpoint) for host in self.hosts for name in host.interfaces]
        for name, owner in named + [(workload.interface, workload.endpoint) for workload in self.workloads]:
            if not INTERFACE.fullmatch(name):
                raise ValueError(f"{owner}: interface name {name!r} cannot be written in a netfilter rule")
            if name in owners:
                raise ValueError(f"interface {name} is claimed by {owners[name]} and {owner}")
            owners[name] = owner
        for prefix in self.settings.workload_prefixes:
            if not INTERFACE.fullmatch(prefix) or len(prefix) > 14:
                raise ValueError(f"workload prefix {prefix!r} cannot be written in a netfilter rule")
        if sum(host.any_interface for host in self.hosts) > 1:
            raise ValueError("more than one `*` host endpoint governs; E-46 allows one")

    @classmethod
    def read(cls, chains: Mapping[str, Any], counters: Mapping[str, Any] | None = None, **rest: Any) -> Self:
        """From `DecisionTable.rule_facts()` as parsed JSON; `rest` are the other fields.

        `counters` has the same shape, and the name of a counter, or nothing, for each answer of a chain.
        """
        hosts, workloads = chains["hosts"], chains["workloads"]
        of_hosts, of_workloads = ((counters or {}).get(name) for name in ("hosts", "workloads"))
        return cls(
            hosts=tuple(map(HostChains._read, hosts, of_hosts or [{}] * len(hosts))),
            workloads=tuple(map(WorkloadChains._read, workloads, of_workloads or [{}] * len(workloads))),
            **rest,
        )

    @property
    def is_empty(self) -> bool:
        """Nobody governs anything: no rules at all."""
        return not self.hosts and not self.workloads

    @property
    def counters(self) -> frozenset[str]:
        """Names of all counters."""
        answers: list[ByFamily | None] = []
        for host in self.hosts:
            both = [host.forward] if host.untracked is None else [host.forward, host.untracked]
            answers += [host.input, host.output, host.prednat]
            answers += [answer for sides in both for answer in (sides.ingress, sides.egress)]
        for workload in self.workloads:
            answers += [workload.ingress, workload.egress]
        counters = (counter for answer in answers if answer is not None for counter in answer.counters)
        return frozenset(filter(None, (*counters, *self.reasons.values())))

    def queues(self, hook: Hook, family: Family) -> range:
        """The queue numbers: per hook and family, because raw and mangle look alike in a message."""
        first = self.queue_base + (HOOKS.index(hook) * 2 + FAMILIES.index(family)) * self.workers
        return range(first, first + self.workers)
