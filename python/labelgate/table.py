"""The decision table for Python: one packet at one hook in, a decision with its reason out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from labelgate import _core
from labelgate.flow import (
    Action,
    Answer,
    Connection,
    CtState,
    Gate,
    Hook,
    IPAddress,
    Packet,
    Stage,
    Step,
    Verdict,
    protocol_number,
    read_address,
)
from labelgate.settings import HostFacts, Settings


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with what decided it."""

    verdict: Verdict
    failsafe: bool
    """A failsafe port settled it (E-40)."""
    accepted: bool
    """Accept mark after our last rule of this hook (E-48)."""
    stage: Stage
    endpoint: str | None
    tier: str | None
    policy: str | None
    rule: int | None
    """Counts from 0 within its direction; None where no rule decided."""
    action: Action | None
    reason: str
    """One short phrase with the rule id of `docs/semantics.md`."""
    outcome: int
    """Its row in `DecisionTable.outcomes`, which also tells the Log rules passed."""


class DecisionTable:
    """Compiled policy of one node, bound to the interfaces of a host. Made by `Snapshot.compile`."""

    def __init__(self, program: _core.Program, host: HostFacts, settings: Settings) -> None:
        self.program = program
        self.host = host
        self.settings = settings
        facts = {"interfaces": host.interfaces, "workload_prefixes": settings.workload_prefixes}
        self.core = _core.Table(program, json.dumps(facts).encode())

    @property
    def warnings(self) -> list[str]:
        """What does nothing here, or not what it says, although it is no error; sorted."""
        return sorted([*self.program.warnings, *self.core.warnings])

    def decide(
        self,
        *,
        hook: Hook,
        src: IPAddress | str,
        dst: IPAddress | str,
        protocol: int | str,
        sport: int | None = None,
        dport: int | None = None,
        icmp_type: int | None = None,
        icmp_code: int | None = None,
        in_: str | None = None,
        out: str | None = None,
        ct: CtState = "new",
        accepted: bool = False,
        dnatted: bool = False,
        fragment: bool = False,
    ) -> Decision:
        """Decides one packet at one hook; the fields are those of `labelgate.flow.Packet`.

        Raises:
            ValueError: an address, the hook, the protocol or a number cannot be read.
        """
        packet = Packet(
            hook, _address(src, "src"), _address(dst, "dst"), protocol_number(protocol), sport, dport,
            icmp_type, icmp_code, in_, out, ct, accepted, dnatted, fragment,
        )  # fmt: skip
        return self.decide_packet(packet)

    def decide_packet(self, packet: Packet) -> Decision:
        """The same for a `Packet`."""
        verdict, failsafe, mark, outcome, step = self.core.decide(packet)
        return Decision(verdict, failsafe, mark, *step, outcome)

    def answer(self, packet: Packet) -> Answer:
        """The decision with every step on the way, as `labelgate explain` prints it."""
        verdict, failsafe, mark, steps = self.core.trace(packet)
        return Answer(verdict, failsafe, mark, tuple(Step(*step) for step in steps))

    def connectivity(self, packet: Packet) -> Connection:
        """Whether policy lets a new connection through between workloads, wherever they live.

        Of the packet only addresses, protocol, ports and ICMP type and code count. A table of one node knows
        the workloads of that node, `Snapshot.compile(node=None)` those of the cluster.
        """
        egress, ingress = self.core.connectivity(packet)
        return Connection(egress and Gate(*egress), ingress and Gate(*ingress))

    def workloads(self) -> dict[str, list[str]]:
        """Every workload by name, sorted, with the addresses that are its own."""
        return dict(self.core.workloads())

    def on_host(self, host: HostFacts) -> DecisionTable:
        """The same program on other interfaces or addresses."""
        return DecisionTable(self.program, host, self.settings)

    def rule_facts(self) -> dict[str, Any]:
        """What kernel rules may answer ahead of the queue, and which interfaces must be queued where."""
        facts: dict[str, Any] = json.loads(self.core.rule_facts())
        return facts

    @property
    def governs_something(self) -> bool:
        """Whether any interface has an endpoint."""
        facts = self.rule_facts()
        return bool(facts["hosts"] or facts["workloads"])

    @property
    def has_untracked_policy(self) -> bool:
        """Whether a host endpoint here has untracked policy."""
        return any(host["untracked"] is not None for host in self.rule_facts()["hosts"])


def _address(value: IPAddress | str, field: str) -> IPAddress:
    return read_address(value, field) if isinstance(value, str) else value
