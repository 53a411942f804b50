"""Sessions that are open at servers of this host, as their sockets tell."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from labelgate.flow import TCP, IPAddress
from labelgate.lockout.flows import Flow

# Of this thread, which may be in another network namespace than the process was started in.
_NET = Path("/proc/thread-self/net")
_ESTABLISHED, _LISTENING = "01", "0A"  # net/tcp_states.h


def open_sessions() -> list[Flow]:
    """TCP connections that others have made to servers of this host, whether they are tracked or not."""
    return [*_accepted("tcp"), *_accepted("tcp6")]


def _accepted(name: str) -> Iterable[Flow]:
    try:
        rows = [line.split()[1:4] for line in (_NET / name).read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return
    served = {local.rpartition(":")[2] for local, _, state in rows if state == _LISTENING}
    for local, remote, state in rows:
        if state == _ESTABLISHED and local.rpartition(":")[2] in served:
            (dst, dport), (src, sport) = _endpoint(local), _endpoint(remote)
            yield Flow(TCP, src, dst, sport, dport)


def _endpoint(text: str) -> tuple[IPAddress, int]:
    """Address and port as /proc/net/tcp has them: words of 32 bits in the host's order.

    >>> _endpoint("0A6433C6:0016")
    (IPv4Address('198.51.100.10'), 22)
    """
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)]
    if len(words) == 1:
        return IPv4Address(words[0]), int(port, 16)
    found = IPv6Address(b"".join(words))
    return found.ipv4_mapped or found, int(port, 16)
