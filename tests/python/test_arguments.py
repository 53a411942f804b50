"""What the functions of the package say to arguments of wrong types; and how a snapshot shows itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import labelgate
import pytest
from labelgate import _core
from labelgate.analysis.diff import diff
from labelgate.analysis.lint import UnknownRules
from labelgate.analysis.reach import reach
from labelgate.flow import Packet
from labelgate.resources import Resource, load_text
from labelgate.settings import Failsafe

NODE = "node: found 5, expected a name, or None for all workloads of the cluster"
PREFIXES = "a tuple of beginnings of names, one at least"
V4: Any = ip_address("192.0.2.5")
WRONG: dict[str, tuple[Callable[..., object], type[Exception], str]] = {
    "text as an address": (
        lambda: Packet("filter-input", "192.0.2.5", V4, 6),  # type: ignore[arg-type]
        ValueError,
        "src: found text `192.0.2.5`, expected an IPv4Address or IPv6Address",
    ),
    "a number as an address": (
        lambda: Packet("filter-input", V4, 5, 6),  # type: ignore[arg-type]
        ValueError,
        "dst: found `5`, expected an IPv4Address or IPv6Address",
    ),
    "a node": (lambda: labelgate.Snapshot().compile(node=5), TypeError, NODE),  # type: ignore[arg-type]
    "a node of a compiler": (
        lambda: labelgate.Compiler(labelgate.Snapshot(), node=5),  # type: ignore[arg-type]
        TypeError,
        NODE,
    ),
    "paths as a list": (
        lambda: labelgate.load(["a", "b"]),  # type: ignore[arg-type]
        TypeError,
        'load: found a list, expected paths, one by one: load("a.yaml", "b/")',
    ),
    "settings of a node": (lambda: labelgate.Snapshot().settings(5), TypeError, NODE),  # type: ignore[arg-type]
    "a node of diff": (
        lambda: diff(labelgate.Snapshot(), labelgate.Snapshot(), node=5),  # type: ignore[arg-type]
        TypeError,
        NODE,
    ),
    **{
        f"{name} of {function}": (
            partial(call, **{name: 5}),
            TypeError,
            f"{name}: found 5, expected {kind}, or None",
        )
        for function, call in (
            ("compile", partial(labelgate.Snapshot().compile, node=None)),
            ("a compiler", partial(labelgate.Compiler, labelgate.Snapshot(), node=None)),
        )
        for name, kind in (("host", "HostFacts"), ("settings", "Settings"), ("budgets", "Budgets"))
    },
    "the host of diff": (
        lambda: diff(labelgate.Snapshot(), labelgate.Snapshot(), host={}),  # type: ignore[arg-type]
        TypeError,
        "host: found a dict, expected HostFacts, or None",
    ),
    "interfaces": (
        lambda: labelgate.HostFacts(5),  # type: ignore[arg-type]
        TypeError,
        "interfaces: found 5, expected names with tuples of addresses",
    ),
    "addresses of an interface": (
        lambda: labelgate.HostFacts({"eth0": 5}),  # type: ignore[dict-item]
        ValueError,
        "interfaces: eth0: found 5, expected a tuple of addresses without prefix length",
    ),
    **{
        f"addresses {addresses!r}": (
            partial(labelgate.HostFacts, {"eth0": addresses}),
            ValueError,
            f"interfaces: eth0: found {addresses!r}, expected a tuple of addresses without prefix length",
        )
        for addresses in ((5,), (True,), {"192.0.2.1"}, {"192.0.2.1": 1}.keys(), ("fe80::1%eth0",), (V4,))
    },
    "the name of an interface": (
        lambda: labelgate.HostFacts({5: ()}),  # type: ignore[dict-item]
        TypeError,
        "interfaces: found 5, expected names with tuples of addresses",
    ),
    **{
        f"settings: {name} {value!r}": (partial(labelgate.Settings, **{name: value}), error, f"{name}{said}")
        for name, value, error, said in (
            ("filter_deny", "drop", ValueError, ": found 'drop', expected one of Drop, Reject"),
            ("endpoint_to_host", 5, ValueError, ": found 5, expected one of Drop, Accept, Return"),
            ("forward_unmarked", [], ValueError, ": found a list, expected one of return, accept, deny"),
            ("invalid_check", 1, TypeError, ": found 1, expected True or False"),
            ("workload_prefixes", "cali", TypeError, f": found 'cali', expected {PREFIXES}"),
            ("workload_prefixes", (), ValueError, f": found (), expected {PREFIXES}"),
            ("workload_prefixes", ("",), ValueError, f": found ('',), expected {PREFIXES}"),
            ("workload_prefixes", (5,), TypeError, f"[0]: found 5, expected {PREFIXES} only"),
            ("workload_vxlan_port", 99999, ValueError, ": found 99999, expected a number 1..65535"),
            ("workload_vxlan_port", True, ValueError, ": found True, expected a number 1..65535"),
            ("failsafe_inbound", "tcp:22", TypeError, ": found 'tcp:22', expected a tuple of Failsafe"),
            ("failsafe_outbound", (22,), TypeError, "[0]: found 22, expected a tuple of Failsafe only"),
        )
    },
    **{
        f"a failsafe port: {values}": (partial(Failsafe, *values), error, said)
        for values, error, said in (
            (("tcp", 22), ValueError, "protocol: found 'tcp', expected a number 0..255"),
            ((6, 0), ValueError, "port: found 0, expected a number 1..65535"),
            (
                (6, 22, "::/0"),
                TypeError,
                "net: found '::/0', expected an IPv4Network or IPv6Network, or None",
            ),
        )
    },
    "whether staged of compile": (
        lambda: labelgate.Snapshot().compile(node=None, staged="no"),  # type: ignore[arg-type]
        TypeError,
        "staged: found 'no', expected True or False",
    ),
    "whether staged of a compiler": (
        lambda: labelgate.Compiler(labelgate.Snapshot(), node=None, staged=1),  # type: ignore[arg-type]
        TypeError,
        "staged: found 1, expected True or False",
    ),
    "half a character in a node": (
        lambda: labelgate.Snapshot().compile(node="\ud800"),
        ValueError,
        "node: found '\\ud800', expected a name",
    ),
    "half a character in an interface": (
        lambda: labelgate.Snapshot().compile(node=None).interface_ids(["\ud800"]),
        ValueError,
        "names: found '\\ud800', expected names",
    ),
    "text to follow": (
        lambda: labelgate.Compiler(labelgate.Snapshot(), node=None).follow("x"),  # type: ignore[arg-type]
        TypeError,
        "resources: expected a list of resources, found one str",
    ),
    "numbers to follow": (
        lambda: labelgate.Compiler(labelgate.Snapshot(), node=None).follow([1]),  # type: ignore[list-item]
        TypeError,
        "resources: expected resources, found int",
    ),
    **{
        f"True as {field}": (
            partial(Packet, "filter-input", V4, V4, **{"protocol": 6, field: True}),
            ValueError,
            f"{field}: found True, expected a number",
        )
        for field in ("protocol", "sport", "dport", "icmp_type", "icmp_code")
    },
    "the snapshot of a compiler": (
        lambda: labelgate.Compiler(5, node=None),  # type: ignore[arg-type]
        TypeError,
        "snapshot: found 5, expected a Snapshot",
    ),
    "the snapshot of reach": (
        lambda: reach("a.yaml"),  # type: ignore[arg-type]
        TypeError,
        "snapshot: found 'a.yaml', expected a Snapshot",
    ),
    "services of reach": (
        lambda: reach(labelgate.Snapshot(), services=80),  # type: ignore[arg-type]
        TypeError,
        "services: found 80, expected ServiceClasses, or None",
    ),
    "the old snapshot of diff": (
        lambda: diff("a.yaml", labelgate.Snapshot()),  # type: ignore[arg-type]
        TypeError,
        "old: found 'a.yaml', expected a Snapshot",
    ),
    "the new snapshot of diff": (
        lambda: diff(labelgate.Snapshot(), None),  # type: ignore[arg-type]
        TypeError,
        "new: found None, expected a Snapshot",
    ),
    "a number to lint": (
        lambda: labelgate.lint(5),  # type: ignore[arg-type]
        TypeError,
        "what: found 5, expected a Snapshot, or paths",
    ),
    "a number among paths to lint": (
        lambda: labelgate.lint(["a.yaml", 5]),  # type: ignore[list-item]
        TypeError,
        "what: found 5, expected a Snapshot, or paths",
    ),
    "rules that are no words": (
        lambda: labelgate.lint(labelgate.Snapshot(), select=[101]),  # type: ignore[list-item]
        TypeError,
        "select: found 101, expected ids or names of rules, or `ALL`",
    ),
    "a severity": (
        lambda: labelgate.lint(labelgate.Snapshot(), severity="grave"),  # type: ignore[arg-type]
        ValueError,
        "severity: found 'grave', expected one of error, warning, info",
    ),
    "a number as resources": (
        lambda: labelgate.Snapshot.of(5),  # type: ignore[arg-type]
        TypeError,
        "resources: found 5, expected resources, in a list for example",
    ),
    "a text among resources": (
        lambda: labelgate.Snapshot.of(["Tier/a"]),  # type: ignore[list-item]
        TypeError,
        "resources: found 'Tier/a', expected resources only",
    ),
    "a path as a text": (
        lambda: load_text(Path("a.yaml")),  # type: ignore[arg-type]
        TypeError,
        "text: found a PosixPath, expected text, or bytes of it",
    ),
    **{
        f"a packet of {method}": (
            partial(getattr(labelgate.Snapshot().compile(node=None), method), None),
            TypeError,
            "packet: found None, expected a Packet",
        )
        for method in ("answer", "decide_packet", "connectivity", "connectivity_trace")
    },
    "a rule": (
        lambda: labelgate.lint(labelgate.Snapshot(), select=["LG9999"]),
        UnknownRules,
        "no rule is called `LG9999`: `labelgate lint --rules` lists them",
    ),
    "the name of a rule": (
        lambda: labelgate.lint(labelgate.Snapshot(), ignore="shadow-rule"),
        UnknownRules,
        "no rule is called `shadow-rule`: did you mean `shadowed-rule`?",
    ),
}


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e19])
@pytest.mark.parametrize("name", ["seconds", "patience"])
def test_a_time_that_no_clock_has_is_an_error(name: str, seconds: float) -> None:
    """It ended in a panic where adding it to an instant went too far."""
    times = {"seconds": 0.0, "patience": 0.0, name: seconds}
    with pytest.raises(ValueError, match=r"expected 0.*seconds"):
        _core.connect_many(["127.0.0.1:9"], threads=1, most=1, request=b"", **times)


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_named(what: str) -> None:
    call, error, text = WRONG[what]
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call()


def tiers(*names: str) -> labelgate.Snapshot:
    documents = [
        f"{{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {{name: {name}}}}}" for name in names
    ]
    resources: list[Resource] = load_text("\n---\n".join(documents), "tiers.yaml")
    return labelgate.Snapshot.of(resources)


def test_facts_of_a_host_are_its_own() -> None:
    given: dict[str, Any] = {"eth0": ["192.0.2.1"], "eth1": ()}
    facts = labelgate.HostFacts(given)
    given["eth2"] = "later"
    assert facts == labelgate.HostFacts({"eth1": (), "eth0": ("192.0.2.1",)})
    assert len({facts, labelgate.HostFacts({"eth1": (), "eth0": ("192.0.2.1",)})}) == 1


def test_one_text_is_one_rule() -> None:
    assert labelgate.lint(tiers("a"), select="LG1") == labelgate.lint(tiers("a"), select=["LG1"])


def test_a_snapshot_shows_how_much_there_is() -> None:
    assert repr(tiers("a", "b")) == "Snapshot(tiers: 2)"
    assert repr(labelgate.Snapshot()) == "Snapshot()"
