"""Every row of the cases that a packet can show, on real packets: what the cases say, the kernel does.

One node and one daemon for each case, and the packets of all its rows at once. What no packet shows is left
out for a reason of `case_rows`; the end of the run says how many rows were sent, how many not, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from case_node import SECONDS, CaseNode
from case_rows import SENT, Left, Row, rows_of
from case_rules import counters, install, judged
from cases import Case, load_cases
from kit import wait_until
from labelgate.demo.daemon import Daemon
from labelgate.flow import PROTOCOLS
from labelgate.settings import Failsafe, Settings

CASES = load_cases()
BACKENDS = {"nft": CASES, "legacy": [case for case in CASES if case.name.startswith("8.")]}
"""Both variants of iptables show the worked examples, one shows all."""


@pytest.mark.parametrize(
    ("backend", "case"),
    [
        pytest.param(backend, case, id=f"{backend}-{case.name}")
        for backend in BACKENDS
        for case in BACKENDS[backend]
    ],
)
def test_rows(backend: str, case: Case, tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    found = rows_of(case)
    rows = {number: row for number, row in enumerate(found, 1) if isinstance(row, Row)}
    record_property("rows", dict(Counter(row.why if isinstance(row, Left) else SENT for row in found)))
    if not rows:
        return
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(case.settings)), encoding="utf-8")
    options = ("--config", str(config), "--allow-empty")
    with CaseNode.of(case, [row.packet for row in rows.values()]) as node:
        install(node, backend, rows)
        with Daemon(node, case.policy, backend=backend, node=case.node, options=options):
            known = {
                number: row for number, row in rows.items() if row.packet.ct in ("established", "related")
            }
            ask(node, backend, {number: row for number, row in rows.items() if number not in known})
            node.establish(known.values())
            ask(node, backend, known)


def ask(node: CaseNode, backend: str, rows: Mapping[int, Row]) -> None:
    """Sends their packets; each must be judged as its row says."""
    expected = {
        row.question.id: (row.question.expected.verdict, row.question.expected.accepted)
        for row in rows.values()
    }
    node.send(rows)

    def found() -> dict[str, object]:
        counts = counters(node, backend)
        return {row.question.id: judged(row.packet, number, counts) for number, row in rows.items()}

    wait_until(lambda: node.is_idle() and found() == expected, SECONDS)
    assert found() == expected


def configuration(settings: Settings) -> dict[str, Any]:
    """Settings as the configuration file has them."""
    return {
        "defaultEndpointToHostAction": settings.endpoint_to_host,
        "iptablesFilterAllowAction": settings.filter_allow,
        "iptablesFilterDenyAction": settings.filter_deny,
        "disableConntrackInvalidCheck": not settings.invalid_check,
        "chainInsertMode": settings.chain_insert_mode,
        "failsafeInboundHostPorts": _failsafes(settings.failsafe_inbound),
        "failsafeOutboundHostPorts": _failsafes(settings.failsafe_outbound),
        "interfacePrefix": list(settings.workload_prefixes),
        "vxlanPort": settings.workload_vxlan_port or 4789,
        "allowVXLANPacketsFromWorkloads": settings.workload_vxlan_port is None,
        "allowIPIPPacketsFromWorkloads": not settings.workload_ipip_denied,
        "forwardUnmarked": settings.forward_unmarked,
        "exemptLoopback": settings.exempt_loopback,
    }


def _failsafes(entries: Sequence[Failsafe]) -> list[dict[str, Any]] | str:
    names = {number: name for name, number in PROTOCOLS.items()}
    return [
        {
            "protocol": names[entry.protocol],
            "port": entry.port,
            **({"net": str(entry.net)} if entry.net else {}),
        }
        for entry in entries
    ] or "none"


def test_few_rows_are_left_out() -> None:
    """Of every case that asks about policy in force something is sent, and of all rows nearly all."""
    found = {case.name: rows_of(case) for case in CASES if not case.staged}
    sent = {name: sum(isinstance(row, Row) for row in rows) for name, rows in found.items()}
    assert [name for name, count in sent.items() if not count] == []
    assert sum(sent.values()) >= 0.95 * sum(map(len, found.values()))
