"""Metrics and health of the daemon over HTTP, where `metrics.listen` is set (docs/metrics.md)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from labelgate.agent.health import Health, Part, table
from labelgate.agent.rate_limit import RateLimited
from labelgate.config.values import Listen
from labelgate.metrics.server import HttpServer, Response, Route

LIVE = ("/livez", "/liveness", "/healthz")
READY = ("/readyz", "/readiness")


def exporter(
    listen: Listen,
    status: Callable[[], dict[str, Any]],
    health: Callable[[], Health],
    say: Callable[[str], None],
) -> HttpServer:
    """Answers until it is stopped; both functions are called on threads of its own."""
    told = RateLimited(say, "messages of the metrics server")
    return HttpServer(listen.address, listen.port, routes(status, health, say), told, ("/metrics",))


def routes(
    status: Callable[[], dict[str, Any]], health: Callable[[], Health], say: Callable[[str], None]
) -> Mapping[str, Route]:
    """Every path; health has Felix's names as well."""

    def live(_: str) -> Response:
        found = health()
        return _health(found.live, found.is_live)

    def ready(_: str) -> Response:
        found = health()
        return _health(found.ready, found.is_ready)

    return {
        "/metrics": _metrics(status, say),
        **dict.fromkeys(LIVE, live),
        **dict.fromkeys(READY, ready),
    }


def _health(parts: tuple[Part, ...], is_good: bool) -> Response:
    good, bad = HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE
    return Response(table(parts).encode(), status=good if is_good else bad)


def _metrics(status: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> Route:
    """One scrape at a time."""
    try:
        from prometheus_client.exposition import choose_encoder

        from labelgate.metrics.families import registry
    except ImportError:
        text = "metrics need the package prometheus-client: pip install 'labelgate[metrics]'"
        say(f"warning: {text}")
        return lambda accept: Response(f"{text}\n".encode(), status=HTTPStatus.NOT_IMPLEMENTED)
    read, lock = registry(status), threading.Lock()

    def metrics(accept: str) -> Response:
        encode, kind = choose_encoder(accept)
        with lock:
            return Response(encode(read), kind)

    return metrics
