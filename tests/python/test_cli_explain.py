"""`labelgate explain` for one flow and with staged policies, and how unreadable questions are answered."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from labelgate.cli import cli
from labelgate.flow import Answer, Packet
from labelgate.reference import Reference

POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: try}
spec: {selector: role == 'edge', ingress: [{action: Deny, protocol: TCP, destination: {ports: [9100]}}]}
"""
FLOW = (
    "--in",
    "eth0",
    "--src",
    "192.0.2.5",
    "--dst",
    "198.51.100.10",
    "--protocol",
    "tcp",
    "--dport",
    "9100",
)
LINE = {"id": 7, "hook": "filter-input", "in": "eth0", "src": "192.0.2.5", "dst": "198.51.100.10",
        "protocol": "tcp", "dport": 9100}  # fmt: skip


def explain(tmp_path: Path, *words: str, node: str = "edge1", line: object = None) -> Result:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    given = None if line is None else json.dumps(line)
    return CliRunner().invoke(cli, ["explain", "-f", str(path), "--node", node, *words], input=given)


def test_staged_policies_are_answered_apart(tmp_path: Path) -> None:
    """E-15: a staged policy decides nothing; the second answer says what it would decide."""
    result = explain(tmp_path, *FLOW, "--staged")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "delivered: allowed at filter-input",
        "if every staged policy were in force: denied at filter-input: Deny: rule (M-51) "
        "[HostEndpoint/edge, tier default, StagedGlobalNetworkPolicy/try rule 0]",
    ]
    answer = json.loads(explain(tmp_path, "--packets", "-", "--staged", line=LINE).stdout)
    assert (answer["id"], answer["verdict"], answer["staged"]["verdict"]) == (7, "allow", "deny")
    assert "staged" not in json.loads(explain(tmp_path, "--packets", "-", line=LINE).stdout)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("src", "fe80::1%eth0", "found `fe80::1%eth0`, expected an IPv4 or IPv6 address"),
        ("in", "\ud800", "found `\\ud800`, expected an interface name"),
        ("dport", True, "found `true`, expected a number 0..65535"),
        ("dport", "80", "found text `80`, expected a number 0..65535"),
        ("accepted", 1, "found `1`, expected true or false"),
        ("accepted", "true", "found text `true`, expected true or false"),
        ("protocol", "x" * 200, f"found `{'x' * 80}...`, expected a number 0..255 or one of icmp, tcp, udp, "
                                "icmpv6, sctp, udplite"),
    ],
)  # fmt: skip
def test_an_unreadable_field_is_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    result = explain(tmp_path, "--packets", "-", line={**LINE, field: value})
    expected = {"id": 7, "error": {"message": message, "field": field}}
    assert (json.loads(result.stdout), result.exit_code) == (expected, 0)


def test_a_node_that_nobody_names_is_warned_of(tmp_path: Path) -> None:
    """Every packet would be `continue`: hardly what was asked."""
    assert "no endpoint names" not in explain(tmp_path, *FLOW).stderr
    result = explain(tmp_path, *FLOW, node="other")
    assert "warning: no endpoint names node `other` (nodes found: edge1)" in result.stderr


HOW = ("--src", "192.0.2.5", "--dst", "198.51.100.10", "--protocol")


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (("--in", "eth0", *HOW, "tcp", "--dport", "80"), None),
        (("--in", "eth0", *HOW, "tcp", "--sport", "80"), None),
        (("--in", "eth0", *HOW, "udp", "--fragment"), None),
        (("--in", "eth0", *HOW, "icmp", "--icmp-type", "8"), None),
        (("--in", "cali7", *HOW, "47"), None),
        (("--in", "eth7", *HOW, "47"), "no endpoint here is on interface `eth7`: nothing governs it "
                                       "(interfaces found: eth0)"),
        (("--in", "eth0", *HOW, "tcp"), "no --dport: the packet is judged as one whose ports cannot be read"),
        (("--in", "eth0", *HOW, "icmp"), "no --icmp-type: the packet is judged as one whose type cannot be"),
        (("--in", "eth0", *HOW, "47", "--dport", "80"), "protocol 47 has no ports: --sport and --dport"),
        (("--in", "eth0", *HOW, "47", "--icmp-type", "8"), "protocol 47 is not ICMP: --icmp-type and"),
        (("--in", "eth0", "--out", "cali7", "--hook", "filter-forward", *HOW, "47"), None),
        (("--in", "eth0", "--hook", "filter-forward", *HOW, "47"), "no --out: a forwarded packet has both"),
        (("--out", "eth0", "--hook", "filter-forward", *HOW, "47"), "no --in: a forwarded packet has both"),
    ],
)  # fmt: skip
def test_what_was_hardly_meant_is_warned_of(
    tmp_path: Path, words: tuple[str, ...], warning: str | None
) -> None:
    said = explain(tmp_path, *words).stderr
    assert said.startswith(f"warning: {warning}") if warning else said == "", said


POD = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop}
spec: {node: edge1, interfaceName: cali7, ipNetworks: [10.65.0.2]}
"""


@pytest.mark.parametrize(
    ("where", "src", "dst", "missing"),
    [
        (("--in", "eth0"), "192.0.2.5", "10.65.0.2", "out"),
        (("--in", "eth0", "--dnat", "10.65.0.2:80"), "192.0.2.5", "198.51.100.10", "out"),
        (("--out", "eth0"), "10.65.0.2", "192.0.2.5", "in"),
        (("--in", "eth0", "--dnat", "10.65.0.3:80"), "192.0.2.5", "10.65.0.2", None),
        (("--in", "eth0", "--out", "cali7"), "192.0.2.5", "10.65.0.2", None),
        (("--in", "cali7"), "10.65.0.2", "198.51.100.10", None),
    ],
)
def test_the_way_of_a_local_workload_needs_its_interface(
    tmp_path: Path, where: tuple[str, ...], src: str, dst: str, missing: str | None
) -> None:
    """E-38: without it its policy is not asked, and what is denied was said to be delivered."""
    path = tmp_path / "policy.yaml"
    path.write_text(f"{POLICY}---{POD}")
    command = ["explain", "-f", str(path), "--node", "edge1", "--protocol", "tcp", "--dport", "80"]
    result = CliRunner().invoke(cli, [*command, *where, "--src", src, "--dst", dst])
    said = "missing: 10.65.0.2 is an address of WorkloadEndpoint/shop/web, on interface `cali7`"
    assert (result.exit_code == 2, f"--{missing}: {said}" in result.stderr) == (bool(missing),) * 2
    fields = {name.removeprefix("--"): value for name, value in zip(where[::2], where[1::2], strict=True)}
    line = json.dumps({"id": 1, **fields, "src": src, "dst": dst, "protocol": "tcp", "dport": 80})
    words = ["explain", "-f", str(path), "--node", "edge1", "--path", "--packets", "-"]
    answer = json.loads(CliRunner().invoke(cli, words, input=line).stdout)
    assert answer.get("error") == ({"message": said, "field": missing} if missing else None)


@pytest.mark.parametrize(
    ("kind", "ct", "warns"), [("3", "new", True), ("8", "new", False), ("3", "invalid", False)]
)
def test_errors_about_untracked_packets_are_another_question(
    tmp_path: Path, kind: str, ct: str, warns: bool
) -> None:
    """E-61: to conntrack they are invalid."""
    policy = Path(str(files("labelgate"))) / "examples" / "05-untracked.yaml"
    words = ["--in", "eth1", *HOW, "icmp", "--icmp-type", kind, "--ct", ct]
    result = CliRunner().invoke(cli, ["explain", "-f", str(policy), "--node", "edge1", *words])
    assert ("is --ct invalid (E-61)" in result.stderr) == warns
    assert "--ct invalid" not in explain(tmp_path, "--in", "eth0", *HOW, "icmp", "--icmp-type", "3").stderr


def test_a_host_endpoint_of_all_interfaces_knows_every_name(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(POLICY.replace("interfaceName: eth0", "interfaceName: '*'"))
    words = ["explain", "-f", str(path), "--node", "edge1", "--in", "eth7", *HOW, "47"]
    assert CliRunner().invoke(cli, words).stderr == ""


@pytest.mark.parametrize(
    ("words", "field"),
    [(("--dport", "80"), "dport"), (("--icmp-type", "8"), "icmpType"), (("--ct", "invalid"), "ct")],
)
def test_lines_have_fields_of_their_own(tmp_path: Path, words: tuple[str, ...], field: str) -> None:
    """They would be passed over."""
    result = explain(tmp_path, "--packets", "-", *words, line=LINE)
    assert result.exit_code == 2
    assert f"{words[0]} is of one packet: with --packets each line has its own `{field}`" in result.stderr


def test_a_disagreement_is_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4: the engine and the reference must never differ; if they do, neither is believed."""

    def wrong(self: Reference, packet: Packet) -> Answer:
        return Answer("deny", False, False, ())

    monkeypatch.setattr(Reference, "answer", wrong)
    result = explain(tmp_path, *FLOW)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("table and reference disagree, please report this:\n  table:     {")
    result = explain(tmp_path, "--packets", "-", line=LINE)
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["message"]) == (4, "table and reference disagree")
    assert (error["table"]["verdict"], error["reference"]["verdict"]) == ("allow", "deny")
    assert explain(tmp_path, *FLOW, "--engine", "table").exit_code == 0


@pytest.mark.parametrize(
    ("hook", "interfaces", "missing"),
    [
        ("filter-input", (), "--in"),
        ("filter-input", ("--out", "eth0"), "--in"),
        ("mangle-prerouting", ("--out", "eth0"), "--in"),
        ("raw-output", ("--in", "eth0"), "--out"),
        ("mangle-postrouting", ("--in", "eth0"), "--out"),
        ("filter-forward", (), "--in, --out or both"),
        ("filter-forward", ("--in", "eth0"), None),
        ("filter-output", ("--out", "eth0"), None),
    ],
)
def test_a_hook_needs_its_interface(
    tmp_path: Path, hook: str, interfaces: tuple[str, ...], missing: str | None
) -> None:
    """E-45: without one nothing governs."""
    result = explain(tmp_path, "--hook", hook, *interfaces, *FLOW[2:])
    assert (result.exit_code == 2) is (missing is not None), result.output
    if missing is not None:
        assert f"--hook {hook} needs {missing}: policy is that of an interface" in result.stderr


def test_host_facts_that_do_not_load(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        result = explain(tmp_path, *FLOW, "--host", str(path))
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (3, f"Error: {path}: {why}")


def test_what_goes_out_over_lo_comes_in_there(tmp_path: Path) -> None:
    """E-47; behind DNAT, and denied as table and reference have it."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        POLICY.split("---", maxsplit=1)[0].replace("eth0", '"*"')
        + "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: in}\n"
        "spec: {selector: all(), ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080]}}]}\n"
    )
    command = ["explain", "-f", str(path), "--node", "edge1", "--path", "--out", "lo"]
    command += ["--src", "127.0.0.1", "--dst", "198.51.100.10", "--protocol", "tcp", "--dport", "80"]
    denied = CliRunner().invoke(cli, command)
    assert denied.exit_code == 1, denied.output
    hooks = [line.split()[0] for line in denied.stdout.splitlines() if not line.startswith(" ")]
    assert hooks == [
        "raw-output", "filter-output", "mangle-postrouting",
        "raw-prerouting", "mangle-prerouting", "filter-input", "denied",
    ]  # fmt: skip
    sent = CliRunner().invoke(cli, [*command, "--dnat", "198.51.100.10:8080"])
    assert (sent.exit_code, sent.stdout.splitlines()[-1]) == (0, "delivered: allowed at filter-input")
