"""Which rules are exercised, for each kind of rule and of policy that a packet may pass on its way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from labelgate.cli import cli

CALICO = "projectcalico.org/v3"


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": CALICO, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def workload(name: str, number: int) -> dict[str, Any]:
    spec = {
        "orchestrator": "k8s", "workload": name, "node": "n", "endpoint": "eth0",
        "interfaceName": f"cali{number}", "ipNetworks": [f"10.0.0.{number}/32"], "profiles": ["open"],
    }  # fmt: skip
    return document("WorkloadEndpoint", name, spec, namespace="s", labels={"app": name})


def rules(*actions: str, **more: Any) -> list[dict[str, Any]]:
    """Rule number n is about port 100 + n, but for the Log rule, which is about the two behind it."""
    found = []
    for number, action in enumerate(actions):
        ports = ["101:102"] if action == "Log" else [100 + number]
        found.append({"action": action, "protocol": "TCP", "destination": {"ports": ports}, **more})
    return found


def policy(
    name: str, actions: tuple[str, ...], kind: str = "GlobalNetworkPolicy", **more: Any
) -> dict[str, Any]:
    spec = {"selector": "app == 'web'", "types": ["Ingress"], "ingress": rules(*actions), **more}
    return document(kind, name, spec)


ENDPOINTS = [
    workload("web", 1), workload("db", 2),
    document("HostEndpoint", "h", {"node": "n", "interfaceName": "eth0", "expectedIPs": ["192.0.2.1"]},
             labels={"role": "host"}),
    document("Profile", "open", {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}),
    document("Tier", "first", {"order": 1}),
]  # fmt: skip
FIRST = policy("first.p", ("Log", "Pass", "Deny", "Pass"), tier="first", order=1)
LAST = policy("last", ("Allow", "Allow", "Deny", "Allow"), order=2)
HOST: dict[str, Any] = {"selector": "role == 'host'"}


def missed(folder: Path, policies: list[dict[str, Any]], expectations: list[str]) -> list[str]:
    """`policy:number` of the rules that are not exercised."""
    file = folder / "all.yaml"
    head = "apiVersion: labelgate/v1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n  expectations:\n"
    rows = "".join(f"  - {row}\n" for row in expectations)
    texts = [json.dumps(one) for one in (*ENDPOINTS, *policies)]
    file.write_text("\n---\n".join([*texts, head + rows]))
    result = CliRunner().invoke(cli, ["test", str(file), "--coverage"])
    assert result.exit_code == 0, result.output
    return [
        f"{name}:{number}"
        for name, number in re.findall(r"exercised: \S+/(\S+) \w+ rule (\d)", result.output)
    ]


@pytest.mark.parametrize("source", ["s/db", "10.0.0.0/30", "{selector: app == 'db'}"])
@pytest.mark.parametrize(
    ("port", "verdict", "left"),
    [
        ("101", "allow", "p:2 p:3 last:0 last:2 last:3"),
        ("102", "deny", "p:1 p:3 last:0 last:1 last:2 last:3"),
        ("103", "allow", "p:0 p:1 p:2 last:0 last:1 last:2"),
        ("104", "deny", "p:0 p:1 p:2 p:3 last:0 last:1 last:2 last:3"),
        ("['101', '103']", "allow", "p:2 last:0 last:2"),
    ],
)
def test_pass_log_and_tier_ends(tmp_path: Path, source: str, port: str, verdict: str, left: str) -> None:
    """A rule that logs or passes counts wherever it is met; the end of a tier (E-21) is no rule."""
    asked = f"{{from: {source}, to: s/web, port: {port}, expect: {verdict}}}"
    found = missed(tmp_path, [FIRST, LAST], [asked])
    assert [one.removeprefix("first.") for one in found] == left.split()


def test_two_ways_to_one_answer_are_both_exercised(tmp_path: Path) -> None:
    """One rule allows what two rules pass: the outcome is the same, and yet both have matched."""
    last = policy("last", ("Allow",), order=2, ingress=[{"action": "Allow"}])
    for source in ("s/db", "0.0.0.0/0"):
        first = policy("first.p", ("Pass", "Pass", "Deny"), tier="first", order=1)
        asked = f"{{from: {source}, to: s/web, port: 101, expect: allow}}"
        assert missed(tmp_path, [first, last], [asked]) == ["first.p:0", "first.p:2"]
        asked = f"{{from: {source}, to: s/web, port: '100:101', expect: allow}}"
        assert missed(tmp_path, [first, last], [asked]) == ["first.p:2"]


def test_staged_policies_and_profiles_have_no_rules_here(tmp_path: Path) -> None:
    staged = policy("staged", ("Deny", "Deny"), "StagedGlobalNetworkPolicy")
    asked = "{from: s/db, to: s/web, port: 101, expect: allow}"
    assert missed(tmp_path, [staged, policy("one", ("Deny", "Allow"))], [asked]) == ["one:0"]


@pytest.mark.parametrize(
    ("name", "more", "way"),
    [
        ("normal", {}, "to: HostEndpoint/h"),
        ("untracked", {"doNotTrack": True, "applyOnForward": True}, "to: HostEndpoint/h"),
        ("prednat", {"preDNAT": True, "applyOnForward": True}, "to: HostEndpoint/h"),
        ("forward", {"applyOnForward": True}, "to: s/db, node: n, in: eth0"),
    ],
)
def test_policies_of_host_endpoints(tmp_path: Path, name: str, more: dict[str, Any], way: str) -> None:
    """On the way that each of the kinds is met on."""
    there = policy(name, ("Log", "Allow", "Deny"), selector="role == 'host'", **more)
    allowed, denied = (
        f"{{from: 203.0.113.0/24, {way}, port: {port}, expect: {verdict}}}"
        for port, verdict in ((101, "allow"), (102, "deny"))
    )
    assert missed(tmp_path, [there], [allowed]) == [f"{name}:2"]
    assert missed(tmp_path, [there], [denied]) == [f"{name}:1"]
    assert missed(tmp_path, [there], [allowed, denied]) == []
