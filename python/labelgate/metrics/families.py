"""The status of the daemon, as Prometheus metrics (docs/metrics.md); read anew for each scrape.

Needs the package prometheus-client (extra `metrics`). Labels have few values: hooks, verdicts, IP versions,
kinds, workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Status = Mapping[str, Any]
Sample = tuple[tuple[str, ...], float | None]
"""Values of the labels, and what was counted; None where the handler cannot tell."""

PREFIX = "labelgate_"

MOST_POLICIES = 500
"""That have a metric of their own, those met first."""
HOOK_COUNTERS = (
    ("loop_guard", "loop_guard_packets", "Packets that came to a queue although they were decided"),
    ("unknown_interface", "unknown_interface_packets", "Packets of interfaces that are gone: denied"),
    ("notrack_refused", "notrack_refused", "allow-notrack where packets may not pass the table twice"),
    ("batches", "batches", "Batches of packets that were received"),
    ("overruns", "netlink_enobufs", "Times that a queue's socket had no room (ENOBUFS)"),
    ("netlink_errors", "netlink_errors", "Replies that the kernel refused"),
    ("unreadable_messages", "unreadable_messages", "Messages of the kernel that could not be read"),
    ("unsent", "unsent_replies", "Replies that could not be sent; their packets were dropped"),
    ("on_packet_errors", "on_packet_errors", "Packets that a Python handler failed on: denied"),
)
"""Key of the counters, name, help; by hook."""
QUEUE_COUNTERS = (
    ("packets", "queue_packets", "Packets that the kernel queued (id_sequence)"),
    ("queueDropped", "queue_dropped", "Packets dropped as the queue was full (queue_dropped)"),
    ("socketDropped", "queue_user_dropped", "Packets dropped as the socket was full (user_dropped)"),
)
QUEUE_GAUGES = (
    ("waiting", "queue_depth", "Packets without verdict in the fullest queue (queue_total)"),
    ("room", "queue_room", "Packets that may wait in a queue"),
)
KIND_GAUGES = (
    ("policiesByKind", "policies", "Policies loaded"),
    ("endpointsByKind", "endpoints", "Endpoints loaded, those of other nodes included"),
)


class StatusCollector(Collector):
    """Reads a status at each scrape."""

    def __init__(self, read: Callable[[], Status]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All families."""
        return families(self._read())


def registry(read: Callable[[], Status]) -> CollectorRegistry:
    """The metrics of the daemon, and of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(StatusCollector(read))
    ProcessCollector(registry=made)
    return made


def families(status: Status) -> Iterator[Metric]:
    """Every metric of a status."""
    yield from _daemon(status)
    yield from _table(status)
    yield from _changes(status)
    yield from _packets(status["counters"]["hooks"])
    yield from _queues(status["queues"])
    yield from _hits(status["hits"])
    yield from _events(status.get("events", {}))
    yield from _workers(status["workers"])
    yield from _shadow(status["counters"].get("shadow"))


def _daemon(status: Status) -> Iterator[Metric]:
    labels = {"version": status["labelgate"], "node": status["node"], "variant": status["rules"]["variant"]}
    yield _gauges("build_info", "Version, node and variant of iptables; always 1", labels, [
        (tuple(labels.values()), 1),
    ])  # fmt: skip
    yield _gauge("live", "1: every worker has come round lately", status["health"]["live"])
    yield _gauge("ready", "1: table in force, rules present, queues bound", status["health"]["ready"])
    restored = status["counters"]["rulesRestored"]
    yield _counter("rules_restored", "Times that rules changed by others were put back", restored)


def _table(status: Status) -> Iterator[Metric]:
    table = status["generation"]
    yield _gauge("table_generation", "Number of the policy in force", table["number"])
    since = datetime.fromisoformat(table["since"]).timestamp()
    yield _gauge("table_in_force_timestamp_seconds", "Since when that is in force", since)
    yield _gauge("table_bytes", "Memory of the engines", table["tableBytes"])
    yield _gauge("table_chains", "Chains of the table", table["tableChains"])
    yield _gauge("table_rules", "Rules of the policies loaded", table["policyRules"])
    for key, name, text in KIND_GAUGES:
        yield _gauges(name, text, ["kind"], [((kind,), count) for kind, count in table[key].items()])
    local = (("host",), table["hostEndpoints"]), (("workload",), table["workloads"])
    yield _gauges("local_endpoints", "Endpoints of this node that have an interface", ["kind"], local)


def _changes(status: Status) -> Iterator[Metric]:
    compiled = status["changes"]["compiled"]
    bounds = [*map(str, compiled["bounds"]), "+Inf"]
    counts = itertools.accumulate(compiled["counts"])
    yield HistogramMetricFamily(
        f"{PREFIX}table_compile_seconds",
        "Time to compile a policy and to build its table",
        buckets=list(zip(bounds, counts, strict=True)),
        sum_value=compiled["seconds"],
    )
    refused = [((reason,), count) for reason, count in status["changes"]["refused"].items()]
    yield _counters("reload_errors", "Changes that did not come into force", ["reason"], refused)
    yield _gauge("change_refused", "1: the last change is not in force", bool(status["refused"]))
    yield _gauge("trial", "1: a policy is on trial", bool(status.get("trial")))


def _packets(hooks: Mapping[str, Any]) -> Iterator[Metric]:
    for name, key, label, text in (
        ("packets", "verdicts", "verdict", "Packets that the table judged"),
        ("malformed_packets", "malformed", "kind", "Packets that could not be read"),
        ("fail_open", "fail_open", "cause", "Packets that passed unjudged, where that can be counted"),
    ):
        samples = [
            ((hook, word), count) for hook, counted in hooks.items() for word, count in counted[key].items()
        ]
        yield _counters(name, text, ["hook", label], samples)
    for key, name, text in HOOK_COUNTERS:
        yield _counters(name, text, ["hook"], [((hook,), found.get(key)) for hook, found in hooks.items()])
    for what in ("wanted", "granted"):
        told = [((hook,), counted[f"receive_buffer_{what}"]) for hook, counted in hooks.items()]
        yield _gauges(f"receive_buffer_{what}_bytes", f"Receive buffers {what}", ["hook"], told)


def _queues(rows: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    rows = list(rows)
    labels = ["hook", "family"]
    for key, name, text in QUEUE_COUNTERS:
        yield _counters(name, text, labels, [((row["hook"], row["family"]), row[key]) for row in rows])
    for key, name, text in QUEUE_GAUGES:
        yield _gauges(name, text, labels, [((row["hook"], row["family"]), row[key]) for row in rows])
    unbound = sum(len(row["unbound"]) for row in rows)
    yield _gauge("queues_unbound", "Queues of ours that nobody listens to", unbound)


def _hits(hits: Mapping[str, Any]) -> Iterator[Metric]:
    """Each policy that denied, up to a bound; each rule only where `metrics.rules` is set."""
    shown = dict(itertools.islice(hits["denied"].items(), MOST_POLICIES))
    others = sum(hits["denied"].values()) - sum(shown.values())
    denied = [((policy,), count) for policy, count in shown.items()]
    text = "Packets denied, by policy or by what denied without one; `(others)` are those met later"
    yield _counters("denied_packets", text, ["policy"], [*denied, (("(others)",), others)])
    if hits["stagedDenied"] is not None:
        text = "Packets that passed, and staged policies would deny"
        yield _counter("staged_would_deny", text, hits["stagedDenied"])
    if hits["rules"] is not None:
        labels = ["tier", "policy", "direction", "rule", "action", "id"]
        samples = [
            (tuple("" if row[label] is None else str(row[label]) for label in labels), row["packets"])
            for row in hits["rules"]
        ]
        yield _counters("rule_hits", "Packets that met a rule", labels, samples)


def _events(events: Mapping[str, Any]) -> Iterator[Metric]:
    if unwritten := events.get("unwritten"):
        rows = [((target,), count) for target, count in unwritten.items()]
        yield _counters("events_unwritten", "Events that could not be written", ["target"], rows)


def _workers(rows: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    numbered = [((str(number),), row) for number, row in enumerate(rows)]
    silent = [(number, row["silentSeconds"]) for number, row in numbered]
    yield _gauges("worker_silent_seconds", "Since a worker came round last", ["worker"], silent)
    seconds = [(number, row["cpuSeconds"]) for number, row in numbered]
    yield _counters("worker_cpu_seconds", "Processor time of a worker", ["worker"], seconds)


def _shadow(counted: Mapping[str, int] | None) -> Iterator[Metric]:
    """Only where `shadow` is set."""
    if counted is not None:
        yield _counter("shadow_checked", "Decisions that the reference was asked about", counted["checked"])
        yield _counter("shadow_wrong", "Decisions on which it disagreed", counted["wrong"])


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _counters(name: str, text: str, labels: Iterable[str], samples: Iterable[Sample]) -> Metric:
    return _filled(CounterMetricFamily(PREFIX + name, text, labels=list(labels)), samples)


def _gauges(name: str, text: str, labels: Iterable[str], samples: Iterable[Sample]) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, text, labels=list(labels)), samples)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, samples: Iterable[Sample]) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(list(labels), value)
    return family
