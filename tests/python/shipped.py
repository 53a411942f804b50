"""What the dashboard and the alerts in `deploy/` ask of Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD, ALERTS = DEPLOY / "grafana-dashboard.json", DEPLOY / "prometheus-alerts.yaml"
_QUOTED = re.compile(r'"[^"]*"')
_NAME = re.compile(r"(?<![\w:$])(?:labelgate|process)_\w+")


def expressions() -> Iterator[str]:
    """Every expression of both files."""
    yield from _dashboard(json.loads(DASHBOARD.read_text(encoding="utf-8")))
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def _dashboard(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "definition"):
                yield inner
            else:
                yield from _dashboard(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _dashboard(inner)


def names_used() -> set[str]:
    """The metrics that they name."""
    return {name for text in expressions() for name in _NAME.findall(_QUOTED.sub("", text))}
