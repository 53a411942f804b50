"""Counters of a kernel that is none: what `netfilter.nfacct` does, without it."""

from __future__ import annotations

import errno

from labelgate.netfilter.nfacct import Counter


class FakeNfacct:
    def __init__(self) -> None:
        self.packets: dict[str, int] = {}
        self.used: set[str] = set()
        """Names that rules use."""
        self.is_there = True

    def create(self, name: str) -> bool:
        self._refuse()
        is_new = name not in self.packets
        self.packets.setdefault(name, 0)
        return is_new

    def remove(self, name: str) -> bool:
        self._refuse()
        return name not in self.used and self.packets.pop(name, None) is not None

    def counters(self, prefix: str) -> dict[str, Counter]:
        self._refuse()
        return {
            name: Counter(packets, name in self.used)
            for name, packets in self.packets.items()
            if name.startswith(prefix)
        }

    def _refuse(self) -> None:
        if not self.is_there:
            raise OSError(errno.EINVAL, "Invalid argument")
