"""All that is looked at, in the order in which things go wrong."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labelgate.config import Config
from labelgate.control import ControlError, NoDaemon, ask
from labelgate.doctor import kernel, rules
from labelgate.doctor.diagnosis import Diagnosis
from labelgate.netfilter.routing import read_routing_rules


def examine(config: Config) -> Iterator[Diagnosis]:
    """Looks at the network namespace of the calling thread; changes nothing that stays."""
    yield kernel.versions()
    yield kernel.kernel_version(platform.release())
    yield from kernel.capabilities(Path("/proc/self/status").read_text(encoding="ascii"))
    yield kernel.queues_can_be_bound()
    yield from kernel.conntrack()
    found = rules.read_variants()
    yield from rules.variants(found)
    yield from rules.rules_can_be_written(found)
    status = _status(config)
    yield rules.queue_numbers(rules.read_queues(), config, status["pid"] if status else None)
    yield from rules.foreign_rules(found, config)
    yield from rules.routing(read_routing_rules(), config)
    yield from rules.native_tables()
    yield kernel.reverse_path(kernel.read_reverse_path())
    yield from _daemon(status, config)


def _status(config: Config) -> dict[str, Any] | None:
    try:
        return ask(config.socket, "status", seconds=10)
    except (NoDaemon, ControlError):
        return None


def _daemon(status: dict[str, Any] | None, config: Config) -> Iterator[Diagnosis]:
    """What the daemon says of itself."""
    if status is None:
        yield Diagnosis(
            "daemon", "note", f"nobody answers at {config.socket}", "none runs, or it has another socket",
            "labelgate run, or systemctl start labelgate",
        )  # fmt: skip
        return
    yield Diagnosis("daemon", "ok", f"generation {status['generation']['number']}, pid {status['pid']}")
    if refused := status["refused"]:
        yield Diagnosis(
            "files", "warning", refused["message"].splitlines()[0], "the generation before is in force",
            "correct the files; `labelgate status` has the whole message",
        )  # fmt: skip
    if problem := status["state"]["problem"]:
        yield Diagnosis(
            "state", "warning", problem, "no policy can be applied, and none falls back on it",
            "mend the disk or the permissions, or set `state` to another folder",
        )  # fmt: skip
    yield from _buffers(status["counters"]["hooks"])


def _buffers(hooks: dict[str, Any]) -> Iterator[Diagnosis]:
    """Whether bursts fit, and whether any did not."""
    wanted = sum(hook["receive_buffer_wanted"] for hook in hooks.values())
    granted = sum(hook["receive_buffer_granted"] for hook in hooks.values())
    overruns = sum(hook["overruns"] for hook in hooks.values())
    if granted < wanted or overruns:
        yield Diagnosis(
            "receive buffers", "warning", f"{granted} of {wanted} bytes granted, {overruns} overruns",
            "bursts lose packets before the queue is full",
            "give the daemon CAP_NET_ADMIN in the initial user namespace, raise net.core.rmem_max, "
            "or set `queues.maxlen` lower",
        )  # fmt: skip
    else:
        yield Diagnosis("receive buffers", "ok", f"{granted} bytes, no overrun")
