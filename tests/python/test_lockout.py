"""What a host cannot do without is judged on every interface that the new policy governs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labelgate.compiler import Compiler
from labelgate.config import load_config
from labelgate.links import Link, Links
from labelgate.lockout import Host, check, findings
from labelgate.resources import Loading
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable

NO_FAILSAFES = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
---
"""
ENDPOINT = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth9}
"""
LINKS = Links((Link(9, "eth9", ("2001:db8:9::10", "192.0.2.10")),))
PERMANENT, FOR_A_TIME = 0x80, 0x0


class Message(dict[str, Any]):
    """An address as netlink tells it."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


class Netlink:
    """An interface with addresses, all of the same kind, and routes that lead over it."""

    flags = PERMANENT

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass

    def get_addr(self, family: int = 0) -> Iterator[Message]:
        for address in LINKS.links[0].addresses:
            if not family or (family == 10) == (":" in address):
                yield Message(index=9, flags=self.flags, IFA_FLAGS=self.flags, IFA_ADDRESS=address)

    def route(self, _verb: str, dst: str) -> list[Message]:
        return [Message(RTA_OIF=9)]


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "IPRoute", Netlink)
    monkeypatch.setattr("labelgate.lockout.flows.IPRoute", Netlink)
    monkeypatch.setattr(check, "RESOLVER_FILES", ())


def table(text: str) -> DecisionTable:
    loading = Loading()
    loading.add(text.encode(), "policy.yaml")
    snapshot = Snapshot.of(loading.result())
    settings = load_config(None, snapshot.felix_configurations, "edge1").settings
    return Compiler(snapshot, node="edge1", host=LINKS.host_facts, settings=settings).table


def found(before: str, after: str) -> list[tuple[str, str]]:
    with Host(LINKS) as host:
        return [(one.what, one.subject) for one in findings(table(before), table(after), host, [])]


NEIGHBOURS = [
    ("IPv6 neighbour discovery", f"{what} {way} on eth9")
    for what in ("solicitations", "advertisements")
    for way in ("out", "in")
]


def test_the_first_endpoint_of_an_interface() -> None:
    """It governs what nothing governed: by default all is denied (E-53)."""
    assert found(NO_FAILSAFES, NO_FAILSAFES + ENDPOINT) == NEIGHBOURS


def test_the_first_endpoint_without_failsafe_ports() -> None:
    """The ports that were exempt are those that somebody may rely on."""
    said = found("", NO_FAILSAFES + ENDPOINT)
    assert ("failsafe port", "tcp 22 in on eth9") in said
    assert ("failsafe port", "udp 53 out on eth9") in said


def test_addresses_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Netlink, "flags", FOR_A_TIME)
    assert set(found(NO_FAILSAFES, NO_FAILSAFES + ENDPOINT)) - set(NEIGHBOURS) == {
        ("DHCP", "requests out on eth9"),
        ("DHCP", "answers in on eth9"),
        ("IPv6 router discovery", "solicitations out on eth9"),
        ("IPv6 router discovery", "advertisements in on eth9"),
    }


def test_name_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text("search example.org\nnameserver 203.0.113.53\nnameserver nothing\n")
    monkeypatch.setattr(check, "RESOLVER_FILES", (str(resolvers), str(tmp_path / "gone")))
    assert set(found(NO_FAILSAFES, NO_FAILSAFES + ENDPOINT)) - set(NEIGHBOURS) == {
        ("DNS", "udp to 203.0.113.53")
    }
