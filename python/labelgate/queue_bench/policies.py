"""One meaning, written as policies, as rules of iptables, and as an ipset.

UDP from the sender to each of N ports passes without connection tracking, and so do TCP and the echo;
nothing else is said. Packets are for the last tenth of the ports: lists of rules are bad at that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from labelgate.queue_bench.rig import SOURCES

NODE = "router"
ECHO_PORT, TCP_PORT, BULK_PORT, MEMCACHED_PORT = 7, 8000, 8001, 11211
FIRST_PORT = 20_000
"""Of the ports that rules are about."""
MOST_RULES = 40_000


def hit_ports(count: int) -> range:
    """The ports of the last tenth of so many rules."""
    return range(FIRST_PORT + count - max(1, count // 10), FIRST_PORT + count)


HALF_PORT = 32_768
"""Every other packet comes from a port below."""
MARK_RULES = f"""*raw
-A PREROUTING -p udp --sport 0:{HALF_PORT - 1} -j MARK --set-xmark 0x1/0x1
COMMIT
"""
"""Every other packet has a mark of others on it: no two that follow each other can share a verdict."""


def untracked(
    count: int, *, behind_others: bool = False, denies_half: bool = False, names_tcp: bool = True
) -> str:
    """`count` policies with doNotTrack, one for each port, and one for the rest.

    Without `names_tcp` none is about TCP, which then goes past the queue.
    `denies_half`: ahead of them, one that denies every other packet, those that `MARK_RULES` mark.
    """
    ports = range(FIRST_PORT, FIRST_PORT + count)
    policies = [
        _policy(f"port-{port}", order, [_udp(port)], doNotTrack=True) for order, port in enumerate(ports)
    ]
    felix = [_document("FelixConfiguration", {"name": "default"}, {"chainInsertMode": "Append"})]
    half = {**_from_sender("UDP"), "action": "Deny", "destination": {"ports": [f"{ports[0]}:{ports[-1]}"]}}
    half["source"] = {**half["source"], "ports": [f"1:{HALF_PORT - 1}"]}
    first = [_policy("half", -1, [half], doNotTrack=True)] if denies_half else []
    rest = [rule for rule in _REST if names_tcp or rule["protocol"] != "TCP"]
    documents = [*_hosts(), *first, *policies, _policy("rest", count, rest, doNotTrack=True)]
    return _list(documents + (felix if behind_others else []))


def denying(count: int) -> str:
    """`count` policies with doNotTrack, each of which denies one port."""
    ports = range(FIRST_PORT, FIRST_PORT + count)
    policies = [
        _policy(f"port-{port}", port, [{**_udp(port), "action": "Deny"}], doNotTrack=True) for port in ports
    ]
    return _list([*_hosts(), *policies, _policy("rest", FIRST_PORT + count, _REST, doNotTrack=True)])


def forwarded(count: int, *, prednat: bool) -> str:
    """Policies of tracked connections: in FORWARD, and in mangle PREROUTING, too, if `prednat`."""
    ports = range(FIRST_PORT, FIRST_PORT + count)
    policies = [_policy(f"port-{port}", order, [_udp(port)]) for order, port in enumerate(ports)]
    policies.append(_policy("rest", count, _REST, types=["Ingress", "Egress"], egress=[{"action": "Allow"}]))
    if (
        prednat
    ):  # An allowance there would settle FORWARD, too (E-38); a rule of a protocol is asked about that only.
        other = {"action": "Deny", "source": {"nets": ["192.0.2.1/32"]}}
        policies.append(_policy("prednat", 0, [other], preDNAT=True))
    return _list([*_hosts("eth0"), *policies])


def memcached(*, is_tracked: bool) -> str:
    """A host endpoint in front of a memcached."""
    ingress = [{**_from_sender("TCP"), "destination": {"ports": [MEMCACHED_PORT]}}]
    if is_tracked:
        return _list([*_hosts("eth0"), _policy("cache", 1, ingress, applyOnForward=False)])
    answers = {"action": "Allow", "protocol": "TCP", "source": {"ports": [MEMCACHED_PORT]}}
    both = {"types": ["Ingress", "Egress"], "egress": [answers]}
    return _list([*_hosts("eth0"), _policy("cache", 1, ingress, doNotTrack=True, **both)])


def linear_rules(count: int) -> str:
    """The same as `untracked`, for iptables-restore: one rule for each port, in order."""
    ports = range(FIRST_PORT, FIRST_PORT + count)
    return _raw(f"-A PREROUTING -s {SOURCES} -p udp --dport {port} -g pass" for port in ports)


def ipset_rules(name: str) -> str:
    """The same with one rule and a set."""
    return _raw([f"-A PREROUTING -p udp -m set --match-set {name} src,dst -g pass"])


def ipset_entries(name: str, count: int) -> str:
    """The set, for `ipset restore`."""
    ports = range(FIRST_PORT, FIRST_PORT + count)
    lines = [f"create {name} hash:net,port maxelem {max(count, 16)}"]
    return "\n".join([*lines, *(f"add {name} {SOURCES},udp:{port}" for port in ports), ""])


CONNTRACK_RULES = """*raw
:keep - [0:0]
-A keep -m conntrack --ctstate INVALID -j RETURN
COMMIT
"""
"""Switches connection tracking on and does nothing else."""


def least_rules(queues: range) -> str:
    """The first packet of a connection is queued, and accepted when it comes again with the answer's mark."""
    which = f"--queue-balance {queues[0]}:{queues[-1]} --queue-cpu-fanout"
    return f"""*filter
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m mark --mark 0x500/0x500 -j ACCEPT
-A FORWARD -j NFQUEUE {which if len(queues) > 1 else f"--queue-num {queues[0]}"}
COMMIT
"""


def _raw(rules: Iterable[str]) -> str:
    """Untracked packets of both directions, with connection tracking on as `labelgate run` keeps it."""
    echo = (f"-A PREROUTING -p udp --{side} {ECHO_PORT} -g pass" for side in ("dport", "sport"))
    lines = [
        "*raw",
        ":pass - [0:0]",
        ":keep - [0:0]",
        *rules,
        *echo,
        "-A PREROUTING -p tcp -g pass",
        "-A pass -j CT --notrack",
        "-A keep -m conntrack --ctstate INVALID -j RETURN",
        "COMMIT",
        "",
    ]
    return "\n".join(lines)


_REST: list[dict[str, Any]] = [
    {"action": "Allow", "protocol": "TCP"},
    {"action": "Allow", "protocol": "UDP", "destination": {"ports": [ECHO_PORT]}},
    {"action": "Allow", "protocol": "UDP", "source": {"ports": [ECHO_PORT]}},
]


def _from_sender(protocol: Literal["TCP", "UDP"]) -> dict[str, Any]:
    return {"action": "Allow", "protocol": protocol, "source": {"nets": [SOURCES]}}


def _udp(port: int) -> dict[str, Any]:
    return {**_from_sender("UDP"), "destination": {"ports": [port]}}


def _policy(name: str, order: int, ingress: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    spec = {"order": order, "selector": "role == 'router'", "types": ["Ingress"], "applyOnForward": True}
    return _document("GlobalNetworkPolicy", {"name": name}, {**spec, "ingress": ingress, **more})


def _hosts(*interfaces: str) -> list[dict[str, Any]]:
    return [
        _document(
            "HostEndpoint",
            {"name": f"router-{name}", "labels": {"role": "router"}},
            {"node": NODE, "interfaceName": name},
        )
        for name in interfaces or ("eth0", "eth1")
    ]


def _document(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


def _list(items: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
