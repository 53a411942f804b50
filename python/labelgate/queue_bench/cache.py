"""The case that untracked policy exists for: many short connections to a real memcached.

A small table of connections is one with little room: `nf_conntrack_max` is lowered inside the namespace where
the kernel has it there, else the table is filled with entries of connections that do not end.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from labelgate.demo.namespaces import WorldError
from labelgate.queue_bench import policies
from labelgate.queue_bench.cases import Labelgate, Place
from labelgate.queue_bench.measures import Processors, Sample, connections

ROOM = 256
"""Connections that a small table has room for."""
MOST_FILLED = 1_000_000
"""A host with a larger table is not filled up: that would take minutes."""
FILL_SECONDS = 3600
FILLED_SECONDS = 60.0
"""How long filling a table may take."""
REQUEST = b"get key\r\n"
READY_SECONDS = 20.0
_COUNT, _MOST = "/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max"


@dataclass
class Cache:
    """A memcached behind a host endpoint, reached from the sender; on a router of its own."""

    is_tracked: bool
    is_small: bool
    samples: list[Sample] = field(default_factory=list)

    @property
    def name(self) -> str:
        """In words."""
        policy = "tracked" if self.is_tracked else "untracked"
        return f"memcached {policy}, {'small' if self.is_small else 'ordinary'}"

    def begin(self, place: Place) -> None:
        """Starts daemon and memcached."""
        self._place = place
        self._case = Labelgate(self.name, (), text=policies.memcached(is_tracked=self.is_tracked))
        self._case.begin(place)
        command = (
            "memcached",
            "-u",
            "nobody",
            "-l",
            "0.0.0.0",
            "-p",
            str(policies.MEMCACHED_PORT),
            "-U",
            "0",
        )
        self._server = place.rig.start(place.router.host, *command, "-t", "2", "-c", "4096", "-m", "16")
        self._filling = self._fill() if self.is_small and not self._lowered() else None

    def finish(self, place: Place, processors: Processors) -> None:
        """Waits until both are there and makes the table small."""
        self._case.finish(place)
        self._processors, self._pids = processors, [*self._case.pids, self._server.pid]
        deadline = time.monotonic() + READY_SECONDS
        while connections(place.rig, self._targets[:1], REQUEST, 0.02, processors, [])["perSecond"] == 0:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise WorldError("memcached does not answer")
        if self._filling is not None and self._filling.wait(FILLED_SECONDS) != 0:
            raise WorldError("the table of connections cannot be filled")
        self._forget()
        self._before = self._entries()

    @property
    def _targets(self) -> list[str]:
        return [f"{address}:{policies.MEMCACHED_PORT}" for address in self._place.router.own]

    def measure(self, seconds: float) -> None:
        """One round: connections, and what they leave in the table."""
        rig = self._place.rig
        sample = connections(rig, self._targets, REQUEST, seconds, self._processors, self._pids)
        self.samples.append({**sample, "entries": self._entries() - self._before})
        self._forget()

    def _entries(self) -> int:
        return int(self._place.rig.call(self._place.router.host, Path(_COUNT).read_text))

    def _forget(self) -> None:
        """Connections of before count no more: they would stay for two minutes."""
        self._place.rig.run(self._place.router.host, "conntrack", "-D", "-p", "tcp", check=False)

    def _lowered(self) -> bool:
        """Whether the table of this namespace can be made small by itself."""
        try:
            self._place.rig.call(self._place.router.host, Path(_MOST).write_text, str(ROOM))
        except OSError:  # It is that of the whole host, and so not ours to change.
            return False
        return True

    def _fill(self) -> subprocess.Popen[str]:
        """Begins to fill it up but for that room."""
        host = self._place.router.host
        file = self._place.folder / f"{host}.conntrack"
        file.write_text(_endless(most_entries() - ROOM), encoding="ascii")
        return self._place.rig.start(host, "conntrack", "-R", str(file), stderr=subprocess.DEVNULL)


def most_entries() -> int:
    """How many connections a namespace of this host may have; 0 if the kernel does not track any."""
    try:
        return int(Path(_MOST).read_text(encoding="ascii"))
    except OSError:
        return 0


def _endless(count: int) -> str:
    """Entries that a full table does not give up: answered connections, far from their end."""
    lines = (
        f"-I -p udp -s 192.0.2.{number >> 14} -d 198.51.100.1 --sport {1 + (number & 0x3FFF)} --dport 9 "
        f"-t {FILL_SECONDS} -u SEEN_REPLY,ASSURED"
        for number in range(count)
    )
    return "\n".join(lines) + "\n"
