"""Whether the kernel tracks connections here: it does only while some rule needs it."""

from __future__ import annotations

import socket
from pathlib import Path

from labelgate.netfilter.facts import Family

_LOOPBACK = {"v4": (socket.AF_INET, "127.0.0.1", "ipv4"), "v6": (socket.AF_INET6, "::1", "ipv6")}
# Of this thread, which may be in another network namespace than the process was started in.
_ENTRIES = Path("/proc/thread-self/net/nf_conntrack")


def conntrack_in_use(family: Family) -> bool:
    """Sends one empty datagram to itself over `lo` and looks for its conntrack entry.

    The kernel names no better witness: counters say nothing of a family, and entries outlive their hooks.
    False also where this cannot be seen (`lo` is down, no /proc/net/nf_conntrack): that costs a caller that
    waits for conntrack its time and nothing else.
    """
    address_family, address, name = _LOOPBACK[family]
    with socket.socket(address_family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
            port = probe.getsockname()[1]
            probe.sendto(b"", (address, port))
            with _ENTRIES.open() as entries:
                wanted = f"sport={port} dport={port} "
                return any(
                    entry.startswith(name) and " udp " in entry and wanted in entry for entry in entries
                )
        except OSError:
            return False


# Of this thread's network namespace, as all of /proc/sys/net.
_TCP_LOOSE = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")


def tcp_loose() -> bool:
    """Whether a packet in the middle of an unknown TCP connection begins one (nf_conntrack-sysctl)."""
    try:
        return _TCP_LOOSE.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False


def set_tcp_loose(is_loose: bool) -> bool:
    """Sets that; False if it may not be set."""
    try:
        _TCP_LOOSE.write_text("1" if is_loose else "0", encoding="ascii")
    except OSError:
        return False
    return True
