"""All that is looked at, in the order in which things go wrong."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from labelgate.config import Config
from labelgate.control import ControlError, NoDaemon, ask, is_elsewhere
from labelgate.doctor import kernel, rules
from labelgate.doctor.diagnosis import Diagnosis
from labelgate.doctor.files import event_file, files, program
from labelgate.doctor.policies import not_reached, policies
from labelgate.links import read_links
from labelgate.netfilter.apply import Tables
from labelgate.netfilter.routing import read_routing_rules


def examine(
    config: Config, config_file: str | None = None, *, running: int | None = None
) -> Iterator[Diagnosis]:
    """Looks at the network namespace of the calling thread; changes nothing that stays.

    `running` is the process id of the daemon of this network namespace, 0 if it cannot be seen, None if
    none runs as far as that can be told: one that runs need not answer at the socket of `config`.
    """
    answer = _status(config)
    status = None if answer is None or is_elsewhere(answer) else answer
    daemon = status["pid"] if status else running
    usable, configured = frozenset(os.sched_getaffinity(0)), os.cpu_count() or 1
    capabilities = Path("/proc/self/status")
    found: dict[str, Tables] = {}
    looks: list[tuple[str, Callable[[], Iterable[Diagnosis]]]] = [
        ("versions", lambda: [kernel.versions()]),
        ("kernel", lambda: [kernel.kernel_version(platform.release())]),
        ("capabilities", lambda: kernel.capabilities(capabilities.read_text(encoding="ascii"))),
        ("NFQUEUE", lambda: kernel.queues(config, is_running=daemon is not None)),
        ("workers", lambda: [kernel.workers(config, usable, configured)]),
        ("conntrack", kernel.conntrack),
        ("iptables", lambda: rules.variants(found)),
        ("rules", lambda: rules.rules_can_be_written(found)),
        ("our rules", lambda: [rules.our_rules(found, is_running=daemon is not None)]),
        ("kernel counters", lambda: rules.kernel_counters(found, config)),
        ("queues", lambda: [rules.queue_numbers(rules.read_queues(), config, daemon)]),
        ("rules of others", lambda: rules.foreign_rules(found, config)),
        ("saved rules", rules.saved_rules),
        ("ip rule", lambda: rules.routing(read_routing_rules(), config)),
        ("nftables", rules.native_tables),
        ("rp_filter", lambda: [kernel.reverse_path(kernel.read_reverse_path())]),
        ("program", lambda: [program()]),
        ("files", lambda: files([*([config_file] if config_file else []), *config.policies])),
        (
            "policies",
            lambda: policies(
                config,
                read_links(),
                config_file,
                conntrack_checksums=kernel.conntrack_checksums(),
            ),
        ),
        ("events.file", lambda: event_file(config.event_file)),
        ("daemon", lambda: _daemon(answer, config, running)),
    ]
    for subject, look in looks:
        if subject == "iptables":
            found |= rules.read_variants()
        yield from _looked(subject, look)


def _looked(subject: str, look: Callable[[], Iterable[Diagnosis]]) -> Iterator[Diagnosis]:
    """One thing that cannot be looked at leaves the others to be."""
    try:
        yield from look()
    except (OSError, ValueError, LookupError, NetlinkError, subprocess.SubprocessError) as error:
        yield Diagnosis(
            subject, "warning", f"cannot be looked at: {error!r}", "what it would have shown is not known",
            "run as root, on a host that has processes and descriptors left",
        )  # fmt: skip


def _status(config: Config) -> dict[str, Any] | None:
    try:
        return ask(config.socket, "status", seconds=10)
    except (NoDaemon, ControlError):
        return None


def _daemon(status: dict[str, Any] | None, config: Config, running: int | None) -> Iterator[Diagnosis]:
    """What the daemon says of itself."""
    if status is None and running is not None:
        who = f"labelgate runs (pid {running})" if running else "labelgate runs (in a container)"
        yield Diagnosis(
            "daemon", "warning", f"{who}, but nobody answers at {config.socket}",
            "it has another socket, or somebody has removed it",
            "use --socket as it was started with; one that was removed is made anew within seconds",
        )  # fmt: skip
        return
    if status is None:
        yield Diagnosis(
            "daemon", "note", f"nobody answers at {config.socket}", "none runs, or it has another socket",
            "labelgate run, or systemctl start labelgate",
        )  # fmt: skip
        return
    if status is not None and is_elsewhere(status):
        yield Diagnosis(
            "daemon", "warning",
            f"the daemon at {config.socket} (pid {status['pid']}) is that of another network namespace",
            "what it says is not of this one" + ("" if running is None else ", whose own has another socket"),
            "go there (nsenter -n), or name the socket of the daemon that is meant by --socket",
        )  # fmt: skip
        return
    yield Diagnosis("daemon", "ok", f"generation {status['generation']['number']}, pid {status['pid']}")
    if refused := status["refused"]:
        yield Diagnosis(
            "files", "warning", refused["message"].splitlines()[0], "the generation before is in force",
            "correct the files; `labelgate status` has the whole message",
        )  # fmt: skip
    if (unreached := status.get("outOfReach")) and not config.policies:  # Else they have been looked at.
        yield not_reached(unreached)
    if problem := status["state"]["problem"]:
        yield Diagnosis(
            "state", "warning", problem, "no policy can be applied, and none falls back on it",
            "mend the disk or the permissions, or set `state` to another folder",
        )  # fmt: skip
    yield kernel.buffers(status["counters"]["hooks"])
