"""The kernel, and what this process may ask of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labelgate import _core
from labelgate.config import Config
from labelgate.doctor.diagnosis import Diagnosis
from labelgate.flow import HOOKS
from labelgate.processors import QUEUE_NUMBERS, QUEUES_EACH, Workers
from labelgate.snapshot import Snapshot

OLDEST_KERNEL = (5, 7)
"""POSTROUTING shows the in-interface of forwarded packets from here on."""
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # linux/capability.h
NEARLY_FULL = 0.8
NETFILTER = Path("/proc/sys/net/netfilter")


def kernel_version(release: str) -> Diagnosis:
    """From what `uname -r` prints.

    >>> kernel_version("5.4.0-150-generic").state
    'failure'
    """
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= OLDEST_KERNEL:
        return Diagnosis("kernel", "ok", release)
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return Diagnosis(
        "kernel", "failure", release, "forwarded packets hide their in-interface at POSTROUTING (E-37)",
        f"use kernel {oldest} or newer",
    )  # fmt: skip


def capabilities(status: str) -> Iterator[Diagnosis]:
    """From the text of /proc/self/status."""
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    for name, bit in CAPABILITIES.items():
        if effective >> bit & 1:
            yield Diagnosis(name, "ok", "there")
        else:
            purpose = "rules and queues" if name == "CAP_NET_ADMIN" else "iptables-legacy"
            yield Diagnosis(
                name, "failure", "missing", f"{purpose} need it",
                "run as root; in a container add the capability; what follows may be wrong without it",
            )  # fmt: skip


def queues(config: Config, *, is_running: bool = False) -> Iterator[Diagnosis]:
    """Binds some for a moment, as the daemon does, and where none runs says what buffers it would get."""
    table = Snapshot().compile(node="doctor").core
    nothing, workers = [False] * len(HOOKS), workers_of(config)
    try:
        enforcer = _core.Enforcer(
            table, [], base=QUEUE_NUMBERS - QUEUES_EACH * workers, workers=workers,
            maxlen=config.queue_maxlen, marks=(0x100, 0x400, 0x1000), fail_open=nothing,
            malformed_accept=False, filter_reject=False, filter_return=False, without_repeat=nothing,
        )  # fmt: skip
    except OSError as error:
        yield Diagnosis(
            "NFQUEUE", "failure", str(error), "no packet can be handed to the daemon",
            "load the module nfnetlink_queue (`modprobe nfnetlink_queue`), or use a kernel that has it",
        )  # fmt: skip
        return
    hooks = json.loads(enforcer.counters())["hooks"]
    enforcer.stop()
    yield Diagnosis("NFQUEUE", "ok", "queues can be bound")
    if not is_running:
        yield buffers(hooks)


def buffers(hooks: Mapping[str, Any]) -> Diagnosis:
    """Of the counters of a packet loop: whether bursts fit, and whether any did not."""
    wanted, granted, overruns = (
        sum(hook[name] for hook in hooks.values())
        for name in ("receive_buffer_wanted", "receive_buffer_granted", "overruns")
    )
    if granted >= wanted and not overruns:
        return Diagnosis("receive buffers", "ok", f"{granted} bytes, no overrun")
    return Diagnosis(
        "receive buffers", "warning", f"{granted} of {wanted} bytes granted, {overruns} overruns",
        "bursts lose packets before the queue is full",
        "give the daemon CAP_NET_ADMIN in the initial user namespace, raise net.core.rmem_max, "
        "or set `queues.maxlen` lower",
    )  # fmt: skip


def workers_of(config: Config) -> int:
    """As many as the daemon would start."""
    cpus = config.queue_cpus
    return Workers.planned(config.queue_workers, config.queue_fanout, cpus, base=config.queue_base).count


def workers(config: Config, usable: frozenset[int], configured: int) -> Diagnosis:
    """Of the processors that may be used, and the number of those that the machine can have."""
    count = workers_of(config)
    if missing := sorted({cpu for cpu in config.queue_cpus if cpu >= configured}):
        return Diagnosis(
            "workers", "failure", f"no processor {', '.join(map(str, missing))}", "the daemon cannot start",
            "set `queues.cpus` to processors that are there",
        )  # fmt: skip
    if count > len(usable):
        return Diagnosis(
            "workers", "warning", f"{count} on {len(usable)} processors",
            "workers take time from each other, and from what receives packets",
            "set `queues.workers` to auto, or to no more than there are processors",
        )  # fmt: skip
    return Diagnosis("workers", "ok", f"{count} on {len(usable)} processors")


def conntrack(net: Path = NETFILTER) -> Iterator[Diagnosis]:
    """How full the table is."""
    count, most = _number(net / "nf_conntrack_count"), _number(net / "nf_conntrack_max")
    if count is None or not most:
        yield Diagnosis(
            "conntrack", "note", "not loaded", "it is loaded with the first rule that needs it",
            "sessions that are open become known while the daemon waits (`settle`)",
        )  # fmt: skip
        return
    found = f"{count} of {most} connections"
    if count < NEARLY_FULL * most:
        yield Diagnosis("conntrack", "ok", found)
    else:
        yield Diagnosis(
            "conntrack", "warning", found, "when the table is full new connections are dropped by the kernel",
            f"raise net.netfilter.nf_conntrack_max (sysctl), such as to {most * 4}",
        )  # fmt: skip


def conntrack_checksums(net: Path = NETFILTER) -> bool:
    """Whether packets with other checksums than conntrack works out are INVALID: unless it is told."""
    return _number(net / "nf_conntrack_checksum") != 0


def reverse_path(filters: Mapping[str, int]) -> Diagnosis:
    """From net.ipv4.conf.*.rp_filter by interface; `all` counts for each."""
    strict = sorted(name for name, value in filters.items() if max(value, filters.get("all", 0)) == 1)
    strict = [name for name in strict if name not in ("all", "default", "lo")]
    if not strict:
        return Diagnosis("rp_filter", "ok", "not strict")
    names = ", ".join(strict[:8]) + (f" and {len(strict) - 8} more" if len(strict) > 8 else "")
    return Diagnosis(
        "rp_filter", "note", f"strict on {names}",
        "packets from where no route leads back are dropped before any policy sees them",
        "where routes are asymmetric: sysctl net.ipv4.conf.INTERFACE.rp_filter=2, and `all` not above it",
    )  # fmt: skip


def read_reverse_path(conf: Path = Path("/proc/sys/net/ipv4/conf")) -> dict[str, int]:
    """By interface."""
    try:
        values = {entry.name: _number(entry / "rp_filter") for entry in conf.iterdir()}
    except OSError:
        return {}
    return {name: value for name, value in values.items() if value is not None}


def versions() -> Diagnosis:
    """For whoever is asked for help."""
    found = f"labelgate {_core.__version__}, Python {platform.python_version()}, {platform.machine()}"
    return Diagnosis("versions", "ok", found)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
