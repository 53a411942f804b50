"""The semantics, executable and literal: one packet at one hook judged straight from a snapshot.

This is the oracle of the tests and the voice of `explain`. It shares no code with the compiled engines:
selectors, inheritance, the conversion of Kubernetes policies and the hooks are written here a second time,
each function next to the rule ids that it follows. It is slow and easy to check.
"""

from __future__ import annotations

from labelgate.flow import Answer, Connection, Packet
from labelgate.reference.chains import Passage
from labelgate.reference.cluster import Cluster
from labelgate.reference.connectivity import connection
from labelgate.reference.hooks import HOOKS
from labelgate.reference.interfaces import Interfaces
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot

__all__ = ["Reference"]


class Reference:
    """Judges packets of one node by the letter of the semantics.

    Args:
        snapshot: all resources of the cluster.
        node: whose endpoints are enforced; None: nobody's, so that no hook finds an endpoint.
        host: the interfaces of that node and their addresses.
        settings: values that change verdicts.
        staged: answer as if every staged policy of the snapshot were in force, beside all others (E-15).
    """

    def __init__(
        self,
        snapshot: Snapshot,
        node: str | None,
        host: HostFacts,
        settings: Settings,
        *,
        staged: bool = False,
    ) -> None:
        self._settings = settings
        self._cluster = Cluster.of(snapshot, settings.workload_prefixes[0], staged=staged)
        self._interfaces = Interfaces(self._cluster, node, host, settings)

    def answer(self, packet: Packet) -> Answer:
        """The verdict of one hook on one packet, with every step that led to it."""
        passage = Passage(self._cluster, self._settings, packet, packet.accepted)
        verdict = HOOKS[packet.hook](passage, self._interfaces)
        accepted = passage.accepted and verdict != "deny"
        return Answer(verdict, passage.failsafe, accepted, tuple(passage.steps))

    def connectivity(self, packet: Packet) -> Connection:
        """Whether policy lets a new connection through between workloads, wherever they live.

        Of the packet only addresses, protocol, ports and ICMP type and code count.
        """
        return connection(self._cluster, self._settings, packet)
