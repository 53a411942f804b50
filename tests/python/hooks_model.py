"""The hooks of semantics 4.3 over chains whose answers are given: what rules plus queue must equal.

A chain that depends on the packet answers by a hash of (chain, packet): any answer that it could ever give.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from ipaddress import ip_network

from labelgate.netfilter.facts import ByFamily, Family, HostChains, RulesetFacts, StaticAnswer, WorkloadChains
from rules_interpreter import KernelPacket

NORMAL = ("allow", "deny")
OTHER = ("allow", "deny", "unmarked")
PORTED = {6, 17, 132, 136}


@dataclass(frozen=True)
class Hooks:
    facts: RulesetFacts
    family: Family

    def answer(self, hook: str, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        """The verdict word and bit A afterwards."""
        verdict, after = getattr(self, hook.replace("-", "_"))(packet, accepted)
        return verdict, after and verdict != "deny"

    # Who governs what

    def is_workload(self, name: str | None) -> bool:
        return name is not None and name.startswith(self.facts.settings.workload_prefixes)

    def workload(self, name: str | None) -> WorkloadChains | None:
        return next((w for w in self.facts.workloads if w.interface == name), None)

    def specific(self, name: str | None) -> HostChains | None:
        return next((host for host in self.facts.hosts if name in host.interfaces), None)

    def any_host(self, name: str | None) -> HostChains | None:
        if name is None or (name == "lo" and self.facts.settings.exempt_loopback):
            return None
        return next((host for host in self.facts.hosts if host.any_interface), None)

    def host(self, name: str | None) -> HostChains | None:
        return self.specific(name) or self.any_host(name)

    # One chain

    def chain(
        self, name: str, answers: ByFamily, packet: KernelPacket, ends: tuple[StaticAnswer, ...]
    ) -> str:
        answer = answers.of(self.family)
        if answer != "queue":
            return answer
        text = f"{name} {packet.src} {packet.dst} {packet.protocol} {packet.sport} {packet.dport}"
        return ends[zlib.crc32(text.encode()) % len(ends)]

    def settled(self, packet: KernelPacket) -> str | None:
        if packet.ct in ("established", "related"):
            return "established"
        if packet.ct == "invalid" and self.facts.settings.invalid_check:
            return "deny"
        return None

    def failsafe(self, packet: KernelPacket, inbound: bool, raw: bool = False) -> bool:
        settings = self.facts.settings
        lists = [settings.failsafe_inbound, settings.failsafe_outbound]
        own, other = lists if inbound else reversed(lists)
        remote = packet.src if inbound else packet.dst

        def listed(entries: object, port: int | None) -> bool:
            return packet.protocol in PORTED and any(
                e.protocol == packet.protocol and e.port == port and (e.net is None or remote in e.net)
                for e in entries  # type: ignore[attr-defined]
            )

        return listed(own, packet.dport) or (raw and listed(other, packet.sport))

    def encapsulated(self, packet: KernelPacket) -> bool:
        settings = self.facts.settings
        if packet.protocol == 4:
            return settings.workload_ipip_denied
        return (
            packet.protocol == 17
            and packet.dport is not None
            and packet.dport == settings.workload_vxlan_port
        )

    # The hooks

    def raw_prerouting(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        if self.is_workload(packet.in_):
            workload = self.workload(packet.in_)
            if workload is None:
                return "deny", False
            exempt = packet.src in ip_network("fe80::/10") or str(packet.src) == "::"
            if not exempt and not any(packet.src in net for net in workload.sources):
                return "deny", False
            return "continue", False
        return self.untracked(self.specific(packet.in_), packet, inbound=True)

    def raw_output(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        return self.untracked(self.specific(packet.out), packet, inbound=False)

    def untracked(self, host: HostChains | None, packet: KernelPacket, inbound: bool) -> tuple[str, bool]:
        if host is None or host.untracked is None or self.failsafe(packet, inbound, raw=True):
            return "continue", False
        answers = host.untracked.ingress if inbound else host.untracked.egress
        end = self.chain(f"untracked {inbound} {host.endpoint}", answers, packet, OTHER)
        return {"allow": "allow-notrack", "deny": "deny", "unmarked": "continue"}[end], end == "allow"

    def mangle_prerouting(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        if packet.ct in ("established", "related") or accepted:
            return "continue", accepted
        host = self.specific(packet.in_)
        if host is None or host.prednat is None:
            host = self.any_host(packet.in_)
        if host is None or host.prednat is None:
            return "continue", False
        if self.settled(packet) == "deny":
            return "deny", False
        if self.failsafe(packet, inbound=True):
            return "continue", False
        end = self.chain(f"prednat {host.endpoint}", host.prednat, packet, OTHER)
        return {"allow": "allow-skip-hep", "deny": "deny", "unmarked": "continue"}[end], end == "allow"

    def filter_input(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        if self.is_workload(packet.in_):
            return self.workload_to_host(packet), accepted
        if accepted:
            return "allow", accepted
        return self.normal(self.host(packet.in_), packet, inbound=True), accepted

    def workload_to_host(self, packet: KernelPacket) -> str:
        if (
            packet.protocol == 58
            and self.family == "v6"
            and packet.icmp_type in (130, 131, 132, 133, 135, 136)
        ):
            return "allow"
        workload = self.workload(packet.in_)
        if workload is None:
            return "deny"
        if settled := self.settled(packet):
            return "allow" if settled == "established" else settled
        end = self.chain(f"egress {workload.endpoint}", workload.egress, packet, NORMAL)
        if self.encapsulated(packet) or end == "deny":
            return "deny"
        return {"Drop": "deny", "Accept": "allow", "Return": "continue"}[self.facts.settings.endpoint_to_host]

    def normal(self, host: HostChains | None, packet: KernelPacket, inbound: bool) -> str:
        if host is None:
            return "continue"
        if settled := self.settled(packet):
            return "allow" if settled == "established" else settled
        if self.failsafe(packet, inbound):
            return "allow"
        answers = host.input if inbound else host.output
        return self.chain(f"normal {inbound} {host.endpoint}", answers, packet, NORMAL)

    def filter_output(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        if accepted:
            return "allow", accepted
        if self.is_workload(packet.out) or packet.dnatted:
            return "continue", accepted
        return self.normal(self.host(packet.out), packet, inbound=False), accepted

    def mangle_postrouting(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        if packet.in_ is not None or not packet.dnatted or self.is_workload(packet.out):
            return "continue", accepted
        verdict = self.normal(self.host(packet.out), packet, inbound=False)
        return "deny" if verdict == "deny" else "continue", accepted

    def filter_forward(self, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        stages = []
        from_hep, to_hep = self.host(packet.in_), self.host(packet.out)
        if not accepted and from_hep is not None:
            stages.append((f"from {from_hep.endpoint}", from_hep.forward.ingress, OTHER, False))
        for name, is_source in ((packet.in_, True), (packet.out, False)):
            if self.is_workload(name):
                workload = self.workload(name)
                if workload is None:
                    stages.append(None)
                elif is_source:
                    stages.append((f"egress {workload.endpoint}", workload.egress, NORMAL, True))
                else:
                    stages.append((f"ingress {workload.endpoint}", workload.ingress, NORMAL, False))
        if to_hep is not None:
            stages.append((f"to {to_hep.endpoint}", to_hep.forward.egress, OTHER, False))
        for stage in stages:
            if stage is None:
                return "deny", False
            if settled := self.settled(packet):
                return ("allow", accepted) if settled == "established" else ("deny", False)
            name, answers, ends, may_be_tunnel = stage
            end = self.chain(name, answers, packet, ends)
            if end == "deny" or (may_be_tunnel and self.encapsulated(packet)):
                return "deny", False
            accepted = end == "allow"
        if accepted:
            return "allow", True
        if not stages:
            return "continue", False
        unmarked = {"return": "continue", "accept": "allow", "deny": "deny"}
        return unmarked[self.facts.settings.forward_unmarked], False
