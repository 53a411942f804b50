"""An event as one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 136: "udplite"}


def line(event: Mapping[str, Any]) -> str:
    """Time, kind, packet, place, and the rule with its reason.

    >>> line({"time": 0, "kind": "deny", "protocol": 6, "src": "192.0.2.1", "sport": 1000, "dst": "192.0.2.2",
    ...       "dport": 80, "icmp": None, "in": "eth0", "out": None, "hook": "filter-input",
    ...       "endpoint": "HostEndpoint/a", "tier": "default", "policy": "GlobalNetworkPolicy/web",
    ...       "direction": "Ingress", "rule": 0, "reason": "rule (M-51)"})
    '1970-01-01T00:00:00.000Z deny tcp 192.0.2.1:1000 > 192.0.2.2:80 eth0>- filter-input HostEndpoint/a \
GlobalNetworkPolicy/web Ingress rule 0: rule (M-51)'
    """
    time = datetime.fromtimestamp(event["time"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    number = event["protocol"]
    protocol = "?" if number is None else _NAMES.get(number, str(number))
    icmp = "" if event["icmp"] is None else " type {} code {}".format(*event["icmp"])
    ends = [_end(event["src"], event["sport"]), _end(event["dst"], event["dport"])]
    place = f"{event['in'] or '-'}>{event['out'] or '-'} {event['hook']}"
    tier = f"tier {event['tier']}" if event["tier"] and not event["policy"] else None
    rule = None if event["rule"] is None else f"rule {event['rule']}"
    who = " ".join(filter(None, (event["endpoint"], event["policy"] or tier, event["direction"], rule)))
    return (
        f"{time} {event['kind']} {protocol} {' > '.join(ends)}{icmp} {place} {who or '-'}: {event['reason']}"
    )


def _end(address: str | None, port: int | None) -> str:
    if address is None or port is None:
        return address or "?"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
