"""What a new table would deny of that which works now, and without which somebody is locked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from labelgate.errors import Portable
from labelgate.flow import ICMPV6, TCP, UDP, IPAddress
from labelgate.lockout.flows import Flow
from labelgate.lockout.host import Host
from labelgate.lockout.judge import denial, denied_at
from labelgate.settings import Failsafe
from labelgate.table import DecisionTable

if TYPE_CHECKING:
    from labelgate.ways import Flows

SSH = 22
FEW = 200
"""Sessions that are asked about one by one."""
MOST_NAMED = 10
"""Of sessions that are denied alike."""
_SESSION = "session"
RESOLVER_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_PERMANENT = 0x80  # IFA_F_PERMANENT: not from DHCP or router advertisements
_ANYBODY = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Addresses for documentation: no policy has a reason to name them."""
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT = 133, 134


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that works now and would be denied."""

    what: str
    """Such as `ssh session`."""
    subject: str
    reason: str
    is_lockout: bool
    """Whoever manages the host would be locked out, or the host could not be reached any more."""

    def __str__(self) -> str:
        return f"{self.what}: {self.subject}: denied ({self.reason})"

    def to_json(self) -> dict[str, str | bool]:
        """For the control socket."""
        return {"what": self.what, "subject": self.subject, "reason": self.reason, "lockout": self.is_lockout}


class LockOutError(Portable):
    """A change is refused because of what it would deny."""

    def __init__(self, found: Iterable[Finding]) -> None:
        self.findings = tuple(found)
        lines = "\n".join(f"  {finding}" for finding in self.findings)
        super().__init__(f"this works now and would be denied:\n{lines}")


def findings(
    before: DecisionTable | None,
    after: DecisionTable,
    host: Host,
    sessions: Sequence[Flow],
    tracked: Sequence[Flows] = (),
    *,
    mine: Flow | None = None,
) -> list[Finding]:
    """All that `after` denies and `before` does not; without `before`, all that `after` denies.

    `mine` is the session of who asks, over SSH. Of sessions that are denied alike some are named, the others
    counted.

    Raises:
        OSError: the kernel does not tell its routes.
    """
    first = [*([mine] if mine else []), *sessions]
    if tracked or len(first) > FEW:
        found = list(_of_many(before, after, host, first, tracked, mine))
    else:
        found = list(_of_few(before, after, host, first, mine))
    known = {(finding.what, finding.subject) for finding in found}
    for what, subject, flow, in_, out in _necessities(before or after, after, host):
        if (what, subject) in known:
            continue  # The other IP version has said so.
        reason = denied_at(after, flow, in_, out)
        if reason is not None and (before is None or denied_at(before, flow, in_, out) is None):
            known.add((what, subject))
            found.append(Finding(what, subject, reason, is_lockout=True))
    return found


def _of_few(
    before: DecisionTable | None, after: DecisionTable, host: Host, flows: list[Flow], mine: Flow | None
) -> Iterator[Finding]:
    """One by one: nothing has to be imported for that."""
    denied = [
        (flow, reason)
        for flow in dict.fromkeys(flows)
        if (reason := denial(after, flow, host)) is not None
        and (before is None or denial(before, flow, host) is None)
    ]
    yield from _told(((_kind(flow, host, mine), why) for flow, why in denied), lambda at: denied[at][0])


def _of_many(
    before: DecisionTable | None,
    after: DecisionTable,
    host: Host,
    flows: list[Flow],
    tracked: Sequence[Flows],
    mine: Flow | None,
) -> Iterator[Finding]:
    """By column."""
    from labelgate.lockout.many import by_column, distinct, flow_of, newly_denied

    for part in distinct([*by_column(flows), *tracked]):
        denied = newly_denied(before, after, part, host)
        rows = list(denied)
        may_be_ssh = ((part.protocol == TCP) & (part.dport == SSH)).tolist()
        kinds = [
            # The one that asks is the first of all.
            _kind(flow_of(part, row), host, mine) if row == 0 or may_be_ssh[row] else _SESSION
            for row in rows
        ]
        alike = zip(kinds, denied.values(), strict=True)
        yield from _told(alike, lambda at, part=part, rows=rows: flow_of(part, rows[at]))  # type: ignore[misc]


def _told(denied: Iterable[tuple[str, str]], flow_at: Callable[[int], Flow]) -> Iterator[Finding]:
    """Of what and why each is denied: those alike together, in the order in which they come first."""
    alike: dict[tuple[str, str], list[int]] = {}
    for at, kind_and_reason in enumerate(denied):
        alike.setdefault(kind_and_reason, []).append(at)
    for (what, reason), places in alike.items():
        is_lockout = what != _SESSION
        for at in places[:MOST_NAMED]:
            yield Finding(what, str(flow_at(at)), reason, is_lockout)
        if (more := len(places) - MOST_NAMED) > 0:
            yield Finding(what, f"{more} more", reason, is_lockout)


def _kind(flow: Flow, host: Host, mine: Flow | None) -> str:
    if flow == mine:
        return "the session that asks"
    is_ssh = flow.protocol == TCP and flow.dport == SSH and host.is_local(flow.target or flow.dst)
    return "ssh session" if is_ssh else _SESSION


def is_ssh_exempt(table: DecisionTable) -> bool:
    """Whether a failsafe port lets everybody in (E-40)."""
    return any(
        (failsafe.protocol, failsafe.port, failsafe.net) == (TCP, SSH, None)
        for failsafe in table.settings.failsafe_inbound
    )


_Necessity = tuple[str, str, Flow, str | None, str | None]
"""What, of which, as a flow, in- and out-interface."""


def _necessities(before: DecisionTable, after: DecisionTable, host: Host) -> Iterator[_Necessity]:
    """On each interface that a host endpoint of `after` governs; failsafe ports are those of `before`."""
    governed = _governed(after)
    prefixes = after.settings.workload_prefixes
    for link in host.links.links:
        if link.name in governed or ("*" in governed and not link.name.startswith(prefixes)):
            addresses = [ip_address(address) for address in link.addresses]
            yield from _failsafes(before, link.name, addresses)
            yield from _neighbours(link.name, addresses)
    yield from _resolvers(host)
    yield from _leases(host)


def _governed(table: DecisionTable) -> set[str]:
    """Interfaces of host endpoints; `*` where one governs all that are not of workloads."""
    names: set[str] = set()
    for endpoint in table.rule_facts()["hosts"]:
        names |= {*endpoint["interfaces"], *(["*"] if endpoint["any"] else [])}
    return names


def _failsafes(table: DecisionTable, name: str, addresses: list[IPAddress]) -> Iterator[_Necessity]:
    """The ports that are exempt now (E-40)."""
    for own in {address.version: address for address in addresses if not address.is_link_local}.values():
        for failsafe, is_inbound in [
            *((failsafe, True) for failsafe in table.settings.failsafe_inbound),
            *((failsafe, False) for failsafe in table.settings.failsafe_outbound),
        ]:
            other = _peer(failsafe, own.version)
            if other is None or name == "lo":
                continue
            ends = (other, own) if is_inbound else (own, other)
            flow = Flow(failsafe.protocol, *ends, 40000, failsafe.port)
            where = (name, None) if is_inbound else (None, name)
            direction = "in" if is_inbound else "out"
            subject = f"{_NAMES[failsafe.protocol]} {failsafe.port} {direction} on {name}"
            yield "failsafe port", subject, flow, *where


_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


def _peer(failsafe: Failsafe, version: int) -> IPAddress | None:
    if failsafe.net is None:
        return _ANYBODY[version]
    return failsafe.net.network_address if failsafe.net.version == version else None


def _neighbours(name: str, addresses: list[IPAddress]) -> Iterator[_Necessity]:
    """E-53; without them no IPv6 packet finds its way over the link."""
    own = next((a for a in addresses if a.version == 6 and not (a.is_link_local or a.is_loopback)), None)
    if own is None:
        return
    router, group = IPv6Address("fe80::1"), IPv6Address("ff02::1:ff00:1")
    for kind in (_SOLICITATION, _ADVERTISEMENT):
        word = "solicitations" if kind == _SOLICITATION else "advertisements"
        what, icmp = "IPv6 neighbour discovery", (kind, 0, 0)
        out = group if kind == _SOLICITATION else router
        yield what, f"{word} out on {name}", Flow(ICMPV6, own, out, icmp=icmp), None, name
        yield what, f"{word} in on {name}", Flow(ICMPV6, router, own, icmp=icmp), name, None


def _resolvers(host: Host) -> Iterator[_Necessity]:
    """The name servers of this host."""
    servers: dict[IPAddress, None] = {}
    for file in RESOLVER_FILES:
        try:
            lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for words in map(str.split, lines):
            if len(words) >= 2 and words[0] == "nameserver":
                try:
                    servers[ip_address(words[1].partition("%")[0])] = None
                except ValueError:
                    continue
    for server in servers:
        flow = Flow(UDP, _own(host, server), server, 40000, 53)
        for in_, out in host.ways(flow):
            yield "DNS", f"udp to {server}", flow, in_, out


def _own(host: Host, other: IPAddress) -> IPAddress:
    """An address of ours towards another."""
    if host.is_local(other):
        return other
    name = host.interface(other)
    for link in host.links.links:
        if link.name == name:
            for address in map(ip_address, link.addresses):
                if address.version == other.version and address.is_link_local == other.is_link_local:
                    return address
    return next((a for a in sorted(host.addresses, key=str) if a.version == other.version), other)


def _leases(host: Host) -> Iterator[_Necessity]:
    """What renews an address that is one for a time: DHCP, and for IPv6 what routers advertise."""
    names = {link.index: link.name for link in host.links.links}
    with IPRoute() as netlink:
        leased = [
            (
                names[message["index"]],
                ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")),
            )
            for message in netlink.get_addr()
            if not (message.get_attr("IFA_FLAGS") or message["flags"]) & _PERMANENT
            and message["index"] in names
        ]
    for name, own in leased:
        if isinstance(own, IPv6Address):
            yield from _routers(name, own)
            continue
        everybody, server = IPv4Address("255.255.255.255"), ip_network(f"{own}/24", strict=False)[1]
        yield "DHCP", f"requests out on {name}", Flow(UDP, own, everybody, 68, 67), None, name
        yield "DHCP", f"answers in on {name}", Flow(UDP, server, own, 67, 68), name, None


def _routers(name: str, own: IPv6Address) -> Iterator[_Necessity]:
    what, router = "IPv6 router discovery", IPv6Address("fe80::1")
    asked = Flow(ICMPV6, own, IPv6Address("ff02::2"), icmp=(_ROUTER_SOLICITATION, 0, 0))
    yield what, f"solicitations out on {name}", asked, None, name
    told = Flow(ICMPV6, router, IPv6Address("ff02::1"), icmp=(_ROUTER_ADVERTISEMENT, 0, 0))
    yield what, f"advertisements in on {name}", told, name, None
