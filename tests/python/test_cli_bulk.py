"""Questions in bulk through the command line: exact lines, bad lines, exit codes, table against reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from labelgate.analysis.matrix import matrix
from labelgate.cli import cli
from labelgate.flow import connection_to_json
from labelgate.reference import Reference
from labelgate.settings import HostFacts
from labelgate.snapshot import load
from random_world import INTERFACES, Dice
from reference_world import SHOP, global_policy, host_endpoint

FAR = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: far, namespace: lab, labels: {app: far}}
spec: {orchestrator: k8s, workload: far, node: edge2, endpoint: eth0, interfaceName: cali111,
       ipNetworks: [10.65.1.9/32, "fd00:65::9/128"], profiles: [kns.shop]}
"""
WEB_ONLY = global_policy(
    "  {selector: app == 'far', ingress: [{action: Allow, protocol: TCP, ipVersion: 4,"
    " source: {selector: app == 'web'}, destination: {ports: [80]}}]}",
    "web-only",
)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text("\n---\n".join((SHOP, FAR, WEB_ONLY, host_endpoint())))
    return str(path)


def run(*words: str, lines: object = ()) -> Result:
    given = lines if isinstance(lines, str | bytes) else "".join(json.dumps(line) + "\n" for line in lines)
    return CliRunner().invoke(cli, words, input=given)


def answers(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def error(identity: object, message: str, field: str | None = None) -> dict[str, Any]:
    return {"id": identity, "error": {"message": message, "field": field}}


# --- selector --------------------------------------------------------------------------------------------


def test_selector() -> None:
    lines = [
        {"id": 1, "selector": "app in {'web','api'}", "labels": {"app": "web"}},
        {"id": "two", "selector": "app != 'web'", "labels": None},
        {"selector": ""},
    ]
    result = run("selector", "-", lines=lines)
    assert (result.exit_code, answers(result)) == (
        0,
        [
            {"id": 1, "match": True, "canonical": 'app in {"api", "web"}'},
            {"id": "two", "match": True, "canonical": 'app != "web"'},
            {"id": None, "match": True, "canonical": "all()"},
        ],
    )


def test_selector_answers_bad_lines_and_goes_on() -> None:
    lines = (
        b'{"id": 1, "selector": 5}\n[1]\n\xff\n\n{"id": 2}\n{"id": 3, "selector": "a", "label": {}}\n'
        b'{"id": 4, "selector": "a", "labels": {"a": 1}}\n{"id": NaN}\n{"id": 5\n' + b"[" * 100_000 + b"\n"
        b'{"id": 6, "selector": "\\ud800"}\n{"id": 7, "selector": "has(a)", "labels": {"a": ""}}'
    )
    result = run("selector", "-", lines=lines)
    assert (result.exit_code, answers(result)) == (
        0,
        [
            error(1, "found `5`, expected text", "selector"),
            error(None, "found `[1]`, expected an object"),
            error(None, "not UTF-8: byte 0xff at 1"),
            error(2, "missing", "selector"),
            error(3, "unknown field, expected one of id, selector, labels", "label"),
            error(4, "found `1` as label `a`, expected text", "labels"),
            error(None, "not JSON: `NaN` is no number"),
            error(None, "not JSON: Expecting ',' delimiter at column 9"),
            error(None, "not JSON: nested too deeply"),
            error(6, "found half of a surrogate pair, expected text", "selector"),
            {"id": 7, "match": True, "canonical": "has(a)"},
        ],
    )


def test_a_file_that_is_not_there() -> None:
    result = run("selector", "/nonexistent")
    assert (result.exit_code, result.output) == (3, "Error: /nonexistent: No such file or directory\n")


# --- connectivity ----------------------------------------------------------------------------------------

OPEN = {"verdict": "allow", "tier": None, "policy": "Profile/kns.shop", "rule": 0}
ENDED = {"verdict": "deny", "tier": "default", "policy": None, "rule": None}
RULE = {"verdict": "allow", "tier": "default", "policy": "GlobalNetworkPolicy/web-only", "rule": 0}
TO_FAR = {"dst": "10.65.1.9", "protocol": "TCP", "sport": 40000, "dport": 80}


@pytest.mark.parametrize("engine", ["table", "reference", "both"])
def test_connectivity(policy: str, engine: str) -> None:
    lines = [
        {"id": 1, "src": "10.65.0.2", **TO_FAR},
        {"id": 2, "src": "10.65.0.3", **TO_FAR},
        {"id": 3, "src": "203.0.113.7", **TO_FAR},
        {"id": 4, "src": "10.65.1.9", "dst": "203.0.113.7", "protocol": "icmp", "icmpType": 8, "icmpCode": 0},
        {"id": 5, "src": "203.0.113.7", "dst": "203.0.113.8", "protocol": 47},
        {"id": 6, "src": "10.65.0.2", **TO_FAR, "in": "eth0"},
    ]
    result = run("connectivity", "-f", policy, "--engine", engine, "--packets", "-", lines=lines)
    fields = "id, src, dst, protocol, sport, dport, icmpType, icmpCode"
    assert (result.exit_code, answers(result)) == (
        0,
        [
            {"id": 1, "verdict": "allow", "egress": OPEN, "ingress": RULE},
            {"id": 2, "verdict": "deny", "egress": OPEN, "ingress": ENDED},
            {"id": 3, "verdict": "deny", "egress": None, "ingress": ENDED},
            {"id": 4, "verdict": "allow", "egress": OPEN, "ingress": None},
            {"id": 5, "verdict": "allow", "egress": None, "ingress": None},
            error(6, f"unknown field, expected one of {fields}", "in"),
        ],
    )


def random_connections() -> Iterator[tuple[Any, Any]]:
    for seed in range(60):
        dice = Dice(seed)
        world = dice.world()
        snapshot = world.snapshot()
        table = snapshot.compile(node=None, settings=world.settings)
        literal = Reference(snapshot, "", HostFacts({}), world.settings)
        for _ in range(20):
            packet = replace(dice.packet(INTERFACES), ct="new", fragment=False)
            yield (
                (seed, packet, connection_to_json(table.connectivity(packet))),
                (seed, packet, connection_to_json(literal.connectivity(packet))),
            )


def test_connectivity_of_table_and_reference() -> None:
    assert [(fast, slow) for fast, slow in random_connections() if fast != slow] == []


def test_matrix(policy: str) -> None:
    result = run("connectivity", "-f", policy, "--matrix", "--port", "80")
    legend = "yes, no, v4 or v6: only in that family, -: itself, or no address family in common"
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "            1   2    3",
            "1 lab/far   -   yes  yes",
            "2 shop/db   no  -    yes",
            "3 shop/web  v4  yes  -",
            f"rows connect to columns; {legend}",
        ],
    )


TWICE = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: none, namespace: shop}
spec: {selector: kind == 'pod', types: [Ingress], ingress: []}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {kind: pod}}
spec: {nodeName: n1, containers: []}
status: {phase: Running, podIP: 10.65.0.77}
"""


def test_a_matrix_has_a_row_for_each_of_the_same_name(tmp_path: Path) -> None:
    """A Pod and a WorkloadEndpoint may have it; the others are told without their kind."""
    path = tmp_path / "policy.yaml"
    path.write_text("\n---\n".join((SHOP, FAR, TWICE)))
    rows = run("connectivity", "-f", str(path), "--matrix", "--port", "80").stdout.splitlines()
    assert [row.split()[1] for row in rows[1:-1]] == [
        "lab/far", "shop/db", "Pod/shop/web", "WorkloadEndpoint/shop/web"
    ]  # fmt: skip
    assert [row.split()[4] for row in rows[1:3]] == ["no", "no"]
    by = run("connectivity", "-f", str(path), "--matrix", "--port", "80", "--by", "namespace")
    assert [row.split()[1] for row in by.stdout.splitlines()[1:-1]] == ["lab", "shop"]


USUAL = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: usual}
spec:
  selector: app == 'far'
  ingress: [{action: Allow, protocol: TCP, source: {ports: ["1024:65535"]}}]
"""


def test_a_matrix_asks_from_a_usual_source_port(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("\n---\n".join((SHOP, FAR, USUAL)))
    rows = run("connectivity", "-f", str(path), "--matrix", "--port", "80").stdout.splitlines()
    assert rows[3].split() == ["3", "shop/web", "yes", "yes", "-"]
    table = load(str(path)).compile(node=None)
    for sport, reached in ((None, "yes"), (1024, "yes"), (1023, "no")):
        assert matrix(table, port=80, protocol=6, sport=sport).cells[2][0] == reached


def test_matrix_by_namespace(policy: str) -> None:
    words = ("connectivity", "-f", policy, "--matrix", "--by", "namespace", "--port", "81")
    assert run(*words).stdout.splitlines()[:3] == [
        "        1     2",
        "1 lab   -     all",
        "2 shop  none  all",
    ]


def test_a_grid_of_too_many_workloads(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelgate.analysis.matrix.MOST_PAIRS", 8)
    result = run("connectivity", "-f", policy, "--matrix", "--port", "80")
    message = (
        "--matrix: 3 workloads are 9 pairs, and a grid has at most 8: ask by namespace (--by namespace),"
        " or load fewer"
    )
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {message}")
    assert run("connectivity", "-f", policy, "--matrix", "--port", "80", "--by", "namespace").exit_code == 0


def test_a_matrix_says_how_far_it_is(policy: str) -> None:
    told: list[tuple[int, int]] = []
    table = load(policy).compile(node=None)
    matrix(table, port=80, protocol=6, progress=lambda done, whole: told.append((done, whole)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"by": "x"}, ValueError, "by: found 'x', expected one of workload, namespace"),
        ({"protocol": 1}, ValueError, "protocol: found 1, expected one that has ports: 6, 17, 132, 136"),
        ({"port": 0}, ValueError, "port: found 0, expected 1..65535"),
        ({"table": 5}, TypeError, "table: found 5, expected a DecisionTable"),
    ],
)
def test_a_matrix_of_what_does_not_fit(
    policy: str, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    fitting: dict[str, Any] = {"table": load(policy).compile(node=None), "port": 80, "protocol": 6}
    with pytest.raises(kind) as caught:
        matrix(**(fitting | given))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "ask with --packets, or for a --matrix"),
        (("--matrix",), "--matrix needs --port"),
        (("--matrix", "--port", "1", "--engine", "reference"), "--engine needs --packets"),
        (("--matrix", "--port", "1", "--packets", "-"), "ask with --packets, or for a --matrix"),
        (
            ("--matrix", "--port", "1", "--protocol", "icmp"),
            "--protocol: found `icmp`, expected one that has ports",
        ),
        (("--packets", "-", "--port", "80"), "--port needs --matrix"),
        (("--packets", "-", "--protocol", "udp"), "--protocol needs --matrix"),
        (("--packets", "-", "--by", "workload"), "--by needs --matrix"),
    ],
)
def test_connectivity_usage(policy: str, words: tuple[str, ...], message: str) -> None:
    result = run("connectivity", "-f", policy, *words)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {message}")


# --- explain ---------------------------------------------------------------------------------------------

LOCAL = {"src": "198.51.100.10", "dst": "192.0.2.5", "protocol": "tcp", "sport": 40000, "dport": 80}


def explain(policy: str, *words: str, lines: object = ()) -> Result:
    return run("explain", "-f", policy, "--node", "edge1", *words, lines=lines)


def hooks(answer: dict[str, Any]) -> list[tuple[str, str, int, str, str]]:
    return [
        (hook["hook"], hook["dst"], hook["dport"], hook["verdict"], hook["trace"][-1]["reason"])
        for hook in answer["hooks"]
    ]


@pytest.mark.parametrize("engine", ["table", "reference", "both"])
def test_packets_in_bulk_are_answered_as_one_by_one(policy: str, engine: str) -> None:
    lines = [{"id": 1, "hook": "filter-output", "out": "eth0", **LOCAL}, {"id": 2}]
    result = explain(policy, "--engine", engine, "--packets", "-", lines=lines)
    step = {
        "stage": "normal", "endpoint": "HostEndpoint/out", "tier": None, "policy": None, "rule": None,
        "action": "Deny", "reason": "no profile allows (E-25)",
    }  # fmt: skip
    denied = {"id": 1, "verdict": "deny", "failsafe": False, "accepted": False, "trace": [step]}
    assert (result.exit_code, answers(result)) == (0, [denied, error(2, "missing", "hook")])


@pytest.mark.parametrize(
    ("hook", "there", "field", "message"),
    [
        ("filter-input", "out", "in", "missing: a packet at filter-input has one"),
        ("filter-output", "in", "out", "missing: a packet at filter-output has one"),
        ("filter-forward", "", "in", "missing: say where the packet is seen by `in`, `out` or both"),
    ],
)
def test_a_line_needs_the_interface_of_its_hook(
    policy: str, hook: str, there: str, field: str, message: str
) -> None:
    """Nothing governs without: `continue` was the answer."""
    line = {"id": 1, "hook": hook, **LOCAL} | ({there: "eth0"} if there else {})
    result = explain(policy, "--packets", "-", lines=[line])
    assert (result.exit_code, answers(result)) == (0, [error(1, message, field)])


def test_path_of_an_incoming_packet_with_dnat(policy: str) -> None:
    asked = {"src": "203.0.113.7", "dst": "198.51.100.10", "protocol": "tcp", "sport": 40000, "dport": 30080}
    lines = [{"id": 1, "in": "eth1", "out": "cali111", **asked, "dnat": "10.65.0.2:443"}]
    [answer] = answers(explain(policy, "--path", "--packets", "-", lines=lines))
    assert (answer["id"], answer["outcome"], answer["at"]) == (1, "delivered", "filter-forward")
    assert hooks(answer) == [
        ("raw-prerouting", "198.51.100.10", 30080, "continue", "no endpoint here (E-39)"),
        ("mangle-prerouting", "198.51.100.10", 30080, "continue", "no endpoint here (E-39)"),
        ("filter-forward", "10.65.0.2", 443, "allow", "profile rule (M-54)"),
    ]


def test_path_of_a_local_packet_with_dnat(policy: str) -> None:
    lines = [{"id": 1, "out": "eth0", **LOCAL}, {"id": 2, "out": "eth0", **LOCAL, "dnat": "192.0.2.6"}]
    plain, translated = answers(explain(policy, "--path", "--packets", "-", lines=lines))
    assert (plain["outcome"], plain["at"]) == ("denied", "filter-output")
    assert (translated["outcome"], translated["at"]) == ("denied", "mangle-postrouting")
    assert hooks(translated) == [
        ("raw-output", "192.0.2.5", 80, "continue", "no untracked policy here (E-31)"),
        ("filter-output", "192.0.2.6", 80, "continue", "DNATed, judged in mangle POSTROUTING (E-37)"),
        ("mangle-postrouting", "192.0.2.6", 80, "deny", "no profile allows (E-25)"),
    ]


def test_untracked_packets_pass_no_nat(policy: str) -> None:
    lines = [{"out": "eth0", "ct": "untracked", **LOCAL, "dnat": "192.0.2.6:1"}]
    [answer] = answers(explain(policy, "--path", "--packets", "-", lines=lines))
    assert [hook[:3] for hook in hooks(answer)] == [
        ("raw-output", "192.0.2.5", 80),
        ("filter-output", "192.0.2.5", 80),
    ]


@pytest.fixture
def untracked(tmp_path: Path) -> str:
    """What is untracked is let in, and out to all but one; pods let nothing in."""
    rules = (
        "ingress: [{action: Allow}], egress: [{action: Deny, destination: {nets: [198.51.100.77/32]}},"
        " {action: Allow}]"
    )
    host = f"  {{selector: has(role), doNotTrack: true, applyOnForward: true, {rules}}}"
    pods = "  {selector: app == 'web', ingress: [{action: Deny}]}"
    path = tmp_path / "untracked.yaml"
    path.write_text(
        "\n---\n".join((SHOP, host_endpoint(), global_policy(host, "host"), global_policy(pods, "pods")))
    )
    return str(path)


NODE_PORT = {
    "in": "eth0", "out": "cali111", "src": "203.0.113.7", "dst": "198.51.100.10", "protocol": "tcp",
    "sport": 40000, "dport": 30080, "dnat": "10.65.0.2:443",
}  # fmt: skip


@pytest.mark.parametrize(
    ("before", "last"), [({}, "filter-input"), ({"outBeforeDnat": "eth1"}, "filter-forward")]
)
def test_untracked_packets_go_where_they_were_sent(untracked: str, before: dict[str, Any], last: str) -> None:
    """No NAT sends them to the pod (E-62), whose policy they do not meet."""
    [answer] = answers(explain(untracked, "--path", "--packets", "-", lines=[NODE_PORT | before]))
    assert (answer["outcome"], answer["at"]) == ("delivered", last)
    assert [(*hook[:4], hook[4][-6:]) for hook in hooks(answer)] == [
        ("raw-prerouting", "198.51.100.10", 30080, "allow-notrack", "(M-50)"),
        ("mangle-prerouting", "198.51.100.10", 30080, "continue", "(E-48)"),
        (last, "198.51.100.10", 30080, "allow", "(E-48)"),
    ]


def test_raw_output_sees_the_interface_before_dnat(untracked: str) -> None:
    """There is none of the host endpoint's policy towards the pod (E-32, E-37)."""
    packet = {**LOCAL, "dst": "198.51.100.77", "out": "cali111", "dnat": "10.65.0.2:443"}
    lines = [packet, {**packet, "outBeforeDnat": "eth0"}]
    after, before = answers(explain(untracked, "--path", "--packets", "-", lines=lines))
    assert (after["outcome"], after["at"]) == ("delivered", "mangle-postrouting")
    assert (before["outcome"], before["at"]) == ("denied", "raw-output")
    result = explain(untracked, "--path", "--packets", "-", "--out-before-dnat", "eth0", lines=[packet])
    assert answers(result)[0]["at"] == "raw-output"
    words = ("--out cali111 --src 198.51.100.10 --dst 198.51.100.77 --protocol tcp --dport 80"
             " --dnat 10.65.0.2:443 --out-before-dnat eth0")  # fmt: skip
    result = explain(untracked, *words.split())
    assert (result.exit_code, result.stdout.splitlines()[-1][:21]) == (1, "denied at raw-output:")


def test_the_interface_before_dnat_needs_dnat(untracked: str) -> None:
    words = "--out eth0 --src 198.51.100.10 --dst 192.0.2.5 --protocol tcp --dport 80 --out-before-dnat eth1"
    result = explain(untracked, *words.split())
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "Error: --out-before-dnat needs --dnat: without it --out is the only one",
    )


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        (
            {"outBeforeDnat": "eth1"},
            "outBeforeDnat",
            "found `eth1`, expected none: without `dnat` only `out` counts",
        ),
        (
            {"dnat": "192.0.2.6", "outBeforeDnat": 5},
            "outBeforeDnat",
            "found `5`, expected an interface's name",
        ),
        ({"hook": "filter-input"}, "hook", "found `filter-input`, expected none: --path passes all hooks"),
        ({"out": None}, "in", "missing: say where the packet is seen by `in`, `out` or both"),
        ({"dnat": "fd00::1"}, "dnat", "found `fd00::1`, expected the IP version of dst `192.0.2.5`"),
        ({"dnat": "[fd00::1]:0"}, "dnat", "found port `0`, expected a number 1..65535"),
        ({"dnat": "web:80"}, "dnat", "found `web:80`, expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"),
        ({"dnat": 5}, "dnat", "found `5`, expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"),
    ],
)
def test_path_lines_that_cannot_be_read(
    policy: str, fields: dict[str, Any], field: str, message: str
) -> None:
    result = explain(policy, "--path", "--packets", "-", lines=[{"id": 1, "out": "eth0", **LOCAL, **fields}])
    assert (result.exit_code, answers(result)) == (0, [error(1, message, field)])


def test_path_as_text(policy: str) -> None:
    words = (
        "--path --in eth1 --out cali111 --src 203.0.113.7 --dst 198.51.100.10 --protocol tcp --dport 30080"
    )
    result = explain(policy, *words.split(), "--dnat", "10.65.0.2:443")
    assert (result.exit_code, result.stdout.splitlines()[-4:]) == (
        0,
        [
            "DNAT                to 10.65.0.2 port 443",
            "filter-forward      allow  [marked]",
            "    workload-ingress Allow: profile rule (M-54) [WorkloadEndpoint/shop/web, "
            "Profile/kns.shop rule 0]",
            "delivered: allowed at filter-forward",
        ],
    )


def test_a_disagreement_is_an_error_line_and_exit_4(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Reference.answer
    monkeypatch.setattr(Reference, "answer", lambda self, packet: replace(right(self, packet), failsafe=True))
    lines = [{"id": 1, "hook": "raw-output", "out": "eth0", **LOCAL}]
    result = explain(policy, "--packets", "-", lines=lines)
    [answer] = answers(result)
    assert (result.exit_code, answer["error"]["message"]) == (4, "table and reference disagree")
    assert answer["error"]["reference"] == {**answer["error"]["table"], "failsafe": True}
    assert sorted(answer["error"]["table"]) == ["accepted", "failsafe", "trace", "verdict"]


# --- check and schema ------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["text", "json"])
def test_check_warns_whatever_its_output_is(output: str) -> None:
    result = run(
        "check", "-f", "-", "-o", output, lines=global_policy("  {tier: none, selector: all()}", "none.p")
    )
    assert result.exit_code == 0
    assert [line[:8] for line in result.stderr.splitlines()] == ["warning:"]
    assert "`none`" in result.stderr


def test_check_as_json() -> None:
    text = """apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: p}
spec: {ingress: [{action: Allowed}], selector: a =}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: t}
"""
    result = run("check", "-f", "-", "-o", "json", lines=text)
    report = json.loads(result.stdout)
    found = [
        [document.pop(key) for key in ("index", "line", "kind", "namespace", "name", "valid")]
        for document in report["documents"]
    ]
    assert (result.exit_code, found, report["errors"]) == (
        1,
        [[0, 1, "GlobalNetworkPolicy", None, "p", False], [1, 6, "Tier", None, "t", True]],
        [],
    )
    errors = [
        [(error["path"], error["line"]) for error in document["errors"]] for document in report["documents"]
    ]
    assert errors == [[("spec.ingress[0].action", 4), ("spec.selector", 4)], []]
    assert {frozenset(error) for error in report["documents"][0]["errors"]} == {
        frozenset(("path", "line", "column", "message", "rule"))
    }


def test_schema() -> None:
    result = run("schema", "Tier")
    found = json.loads(result.stdout)
    assert (
        result.exit_code,
        found["properties"]["apiVersion"],
        sorted(found["$defs"]["TierSpec"]["properties"]),
    ) == (
        0,
        {"const": "projectcalico.org/v3"},
        ["defaultAction", "order"],
    )


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"),
        ("NetworkPolicy", "projectcalico.org/v3"),
        ("KubernetesNetworkPolicy", "networking.k8s.io/v1"),
    ],
)
def test_schema_by_the_kind_of_documents(kind: str, version: str) -> None:
    found = json.loads(run("schema", kind).output)["properties"]
    assert found["apiVersion"] == {"const": version}
    assert found["kind"] == {"const": kind.removeprefix("Kubernetes")}


def test_schema_of_no_kind() -> None:
    result = run("schema", "Teer")
    message = result.stderr.splitlines()[-1]
    assert (result.exit_code, message.startswith("Error: KIND: found `Teer`, expected one of ")) == (2, True)


def test_one_is_not_many(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(WEB_ONLY)
    assert run("check", "-f", str(file)).stdout == "1 document is valid\n"
    file.write_text("{")
    assert run("check", "-f", str(file)).stderr.splitlines()[-1] == "1 error in 0 documents"


def test_check_of_nothing_is_noted(tmp_path: Path) -> None:
    result = run("check", "-f", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "0 documents are valid\n")
    assert result.stderr == "note: no documents in these files: is it the right path?\n"
    (tmp_path / "a.yaml").write_text(WEB_ONLY)
    (tmp_path / "b.yaml").write_text("# nothing\n")
    assert run("check", "-f", str(tmp_path)).stderr == f"note: no documents in {tmp_path / 'b.yaml'}\n"


@pytest.mark.parametrize("words", [("check", "--live", "--socket", "/none"), ("bench", "match", "--quick")])
def test_a_node_that_nobody_names_is_no_answer(words: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing governs there: that nothing would be denied is no news."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("""
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge}
spec: {node: edge1, interfaceName: eth0}
""")
    result = run(*words, "-f", str(policy), "--node", "other")
    assert result.exit_code == 3
    assert "no endpoint names node `other` (nodes found: edge1)" in result.stderr
    assert "nothing that works now" not in result.stdout
