"""Expectations: what they ask, what a failure says, and which rules they exercise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import labelgate
import pytest
import yaml
from click.testing import CliRunner, Result
from junitparser import Error, Failure, JUnitXml
from labelgate.cli import cli
from labelgate.expect.results import Results
from labelgate.expect.suite import Suite, read_tests

EXAMPLES = Path(str(files("labelgate"))) / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
HEAD = "apiVersion: labelgate/v1\nkind: PolicyTest\nmetadata: {name: shop}\nspec:\n  policies: [%s]\n"


def written(folder: Path, expectations: str, policy: str = "01-workload.yaml", more: str = "") -> Path:
    file = folder / "shop.yaml"
    head = HEAD % (EXAMPLES / policy)
    file.write_text(f"{head}{more}  expectations:\n  - {expectations}\n")
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["test", *map(str, arguments)])


@pytest.mark.parametrize("name", NAMES)
def test_every_example_has_expectations_that_hold_and_exercise_every_rule(name: str) -> None:
    result = run(EXAMPLES / "tests" / name, "--coverage", "--fail-under", "100")
    assert result.exit_code == 0, result.output
    assert "not exercised" not in result.output


def test_a_folder_is_run_whole_and_its_policies_are_left_alone() -> None:
    result = run(EXAMPLES)
    assert result.exit_code == 0, result.output
    assert len({test.metadata.name for test in read_tests([EXAMPLES])}) == len(NAMES)


def test_expectations_are_no_resources(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text((EXAMPLES / "01-workload.yaml").read_text())
    written(tmp_path, "{from: shop/web, to: shop/db, port: 5432, expect: allow}")
    plain, beside = labelgate.load(EXAMPLES / "01-workload.yaml"), labelgate.load(tmp_path)
    assert beside == plain
    assert CliRunner().invoke(cli, ["check", "-f", str(tmp_path)]).exit_code == 0


def test_without_policies_those_of_the_folder_are_meant(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text((EXAMPLES / "01-workload.yaml").read_text())
    file = written(tmp_path, "{from: shop/web, to: shop/db, port: 5432, expect: allow}")
    file.write_text(re.sub("  policies.*\n", "", file.read_text()))
    assert run(file).exit_code == 0


def test_a_failure_says_what_decided_and_what_would_have(tmp_path: Path) -> None:
    file = written(tmp_path, "{from: 203.0.113.7, to: shop/web, port: 80, expect: allow}")
    result = run(file)
    policy = EXAMPLES / "01-workload.yaml"
    line = next(
        number
        for number, text in enumerate(policy.read_text().splitlines(), 1)
        if text == "  - action: Allow"
    )
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"{file}:7:5: shop[0]: 203.0.113.7 -> shop/web TCP 80 allow",
        "  expected: allow",
        "  found:    deny: 203.0.113.7 -> shop/web (10.65.0.2), protocol 6 port 80",
        "  decided:  no rule: end of tier (E-21), ingress [WorkloadEndpoint/shop/web, tier default]",
        f"  would match: NetworkPolicy/shop/web-front ingress rule 0 at {policy}:{line}, "
        "but for: destination port",
        "0 as expected, 1 not as expected (1 question)",
    ]


@pytest.mark.parametrize(
    ("expectation", "policy", "why"),
    [
        (
            "{from: shop/wbe, to: shop/db, port: 1, expect: allow}",
            "01-workload.yaml",
            "did you mean `shop/web`?",
        ),
        (
            "{from: {selector: a == 'b'}, to: shop/db, port: 1, expect: deny}",
            "01-workload.yaml",
            "no workload",
        ),
        (
            "{from: 192.0.2.1, to: 192.0.2.2, port: 1, expect: allow}",
            "01-workload.yaml",
            "no policy is asked",
        ),
        (
            "{from: 192.0.2.0/24, to: 192.0.2.2, protocol: TCP, expect: allow}",
            "01-workload.yaml",
            "no policy is asked",
        ),
        (
            "{from: {selector: app == 'web', namespace: shpo}, to: shop/db, port: 1, expect: deny}",
            "01-workload.yaml",
            "selects no workload of the policies' files; did you mean `shop`?",
        ),
        (
            "{from: shop/web, to: shop/db, port: 1, expect: deny, decidedBy: {policy: db-from-web}}",
            "01-workload.yaml",
            "is `db-from-web`; did you mean `NetworkPolicy/shop/db-from-web`?",
        ),
        (
            "{from: shop/web, to: shop/db, port: 1, expect: deny, decidedBy: {policy: nothing}}",
            "01-workload.yaml",
            "is `nothing`; expected `Kind/namespace/name`",
        ),
        ("{from: shop/web, to: shop/web, port: 1, expect: allow}", "01-workload.yaml", "nothing to ask"),
        ("{from: shop/web, to: 'fd00::1', port: 1, expect: deny}", "01-workload.yaml", "nothing to ask"),
        (
            "{from: [203.0.113.7, '2001:db8::1', '::/0'], to: shop/web, port: 1, expect: deny}",
            "01-workload.yaml",
            "nothing to ask of `2001:db8::1`, `::/0`:",
        ),
        (
            "{from: shop/web, to: [shop/web, shop/db, 'fd00::1'], port: 1, expect: deny}",
            "01-workload.yaml",
            "nothing to ask of `shop/web`, `fd00::1`:",
        ),
        (
            "{from: 192.0.2.1, to: 198.51.100.10, node: edge1, in: eth00, port: 80, expect: allow}",
            "02-host-endpoint.yaml",
            "`in: eth00`: no endpoint of node `edge1` has this interface; did you mean `eth0`?",
        ),
        (
            "{from: HostEndpoint/edge1-out, to: 192.0.2.1, out: eth00, port: 80, expect: allow}",
            "02-host-endpoint.yaml",
            "`out: eth00`: no endpoint",
        ),
        (
            "{from: 192.0.2.1, to: 192.0.2.2, in: eth0, port: 1, expect: deny}",
            "02-host-endpoint.yaml",
            "give `out`",
        ),
        (
            "{from: 192.0.2.1, to: 192.0.2.2, out: eth0, port: 1, expect: deny}",
            "02-host-endpoint.yaml",
            "give `in`",
        ),
        (
            "{from: 192.0.2.1, to: HostEndpoint/edge1-out, hook: filter-forward, port: 1, expect: deny}",
            "02-host-endpoint.yaml",
            "needs `in` and `out`",
        ),
        (
            "{from: 192.0.2.1, to: HostEndpoint/edge1-out, dnat: x, port: 1, expect: deny}",
            "02-host-endpoint.yaml",
            "expected ADDRESS",
        ),
        (
            "{from: 192.0.2.1, to: HostEndpoint/edge1-out, node: edge9, port: 1, expect: deny}",
            "02-host-endpoint.yaml",
            "the host endpoint is one of `edge1`",
        ),
        (
            "{from: 192.0.2.1, to: 198.51.100.10, in: eth0, node: edge9, port: 1, expect: deny}",
            "02-host-endpoint.yaml",
            "no endpoint names node `edge9`",
        ),
    ],
)
def test_what_cannot_be_asked_is_no_success(tmp_path: Path, expectation: str, policy: str, why: str) -> None:
    result = run(written(tmp_path, expectation, policy))
    assert result.exit_code == 1
    assert "cannot be asked" in result.output
    assert why in result.output


@pytest.mark.parametrize(
    ("kind", "spec", "status", "lack"),
    [
        ("Pod", "{nodeName: n, hostNetwork: true}", "{podIP: 10.0.0.1}", "is on the network of its host"),
        ("Pod", "{}", "{}", "has no node yet"),
        ("Pod", "{nodeName: n}", "{phase: Succeeded, podIP: 10.0.0.1}", "is finished (Succeeded)"),
        ("Pod", "{nodeName: n}", "{phase: Pending}", "has no address"),
        ("WorkloadEndpoint", "{node: n, interfaceName: cali1}", None, "has no `ipNetworks`"),
    ],
)
def test_what_is_no_endpoint_is_told_why(
    tmp_path: Path, kind: str, spec: str, status: str | None, lack: str
) -> None:
    policy = tmp_path / "policy.yaml"
    version = "v1" if kind == "Pod" else "projectcalico.org/v3"
    document = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
    policy.write_text(document + (f"status: {status}\n" if status else ""))
    for name in ("shop/x", f"{kind}/shop/x"):
        file = written(tmp_path, f"{{from: 192.0.2.1, to: {name}, port: 1, expect: deny}}", str(policy))
        assert f"`{name}` is no endpoint: it {lack} (R-30)" in run(file).output


def test_nothing_to_ask_is_a_wrong_call(tmp_path: Path) -> None:
    file = written(tmp_path, "{from: shop/web, to: shop/db, port: 5432, expect: allow}")
    assert run(file, "-k", "5432").exit_code == 0
    assert run(file, "-k", "no such words").exit_code == 2
    assert run(EXAMPLES / "01-workload.yaml").exit_code == 2
    assert run(file, "--fail-under", "3").exit_code == 2


def test_files_that_do_not_load_say_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("kind: PolicyTest\n")
    for arguments in ([tmp_path / "absent.yaml"], [broken], [EXAMPLES / "tests", "-f", tmp_path / "absent"]):
        result = CliRunner().invoke(cli, ["test", *map(str, arguments)])
        assert isinstance(result.exception, labelgate.LoadError)
    program = [sys.executable, "-m", "labelgate", "test", str(broken)]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 3


def test_policies_that_are_not_there_are_told_of_where_they_are_named(tmp_path: Path) -> None:
    file = written(tmp_path, "{from: shop/web, to: shop/db, port: 1, expect: deny}", "01-worklaod.yaml")
    error = run(file).exception
    assert isinstance(error, labelgate.LoadError)
    (problem,) = error.problems
    assert (problem.file, problem.line, problem.path) == (str(file), 5, "spec.policies[0]")
    assert problem.found == f"`{EXAMPLES / '01-worklaod.yaml'}`"


def test_the_deciding_rule_is_part_of_the_answer(tmp_path: Path) -> None:
    asked = "{from: shop/web, to: shop/db, port: 5432, expect: allow, decidedBy: {policy: %s, rule: %d}}"
    for policy, rule, code in (
        ("other", 0, 1),
        ("web-front", 0, 0),
        ("db-from-web", 0, 0),
        ("db-from-web", 1, 1),
    ):
        result = run(written(tmp_path, asked % (f"NetworkPolicy/shop/{policy}", rule)))
        assert result.exit_code == code, result.output
    assert "would match: NetworkPolicy/shop/db-from-web has no such rule" in result.output


UNTRACKED = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: edge}}
spec: {node: n, interfaceName: eth0, expectedIPs: [198.51.100.10]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: w, namespace: shop, labels: {app: web}}
spec: {orchestrator: k8s, workload: w, node: n, endpoint: e, interfaceName: cali1, ipNetworks: [10.65.0.2/32]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: untracked}
spec:
  selector: has(role)
  doNotTrack: true
  applyOnForward: true
  ingress: [{action: Allow}]
  egress: [{action: Deny, destination: {nets: [198.51.100.77/32]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec: {selector: app == 'web', types: [Ingress]}
"""


@pytest.mark.parametrize(
    "expectation",
    [
        # Nothing sends an untracked packet to the pod (E-62), which lets nothing in.
        "{from: 192.0.2.5, to: HostEndpoint/h, port: 1, dnat: '10.65.0.2:1', expect: allow}",
        # The host endpoint's interface is the one before DNAT (E-32).
        "{from: HostEndpoint/h, to: 198.51.100.77, port: 1, dnat: '10.65.0.2:1', expect: deny,"
        " decidedBy: {policy: GlobalNetworkPolicy/untracked, direction: egress, rule: 0}}",
    ],
)
def test_untracked_policy_is_met_before_dnat(tmp_path: Path, expectation: str) -> None:
    (tmp_path / "untracked.yaml").write_text(UNTRACKED)
    result = run(written(tmp_path, expectation, str(tmp_path / "untracked.yaml")))
    assert result.exit_code == 0, result.output


def test_where_nat_does_not_send_a_packet_is_no_answer(tmp_path: Path) -> None:
    """Untracked packets to an address that is nobody's here: by which interface they go is not known."""
    (tmp_path / "untracked.yaml").write_text(UNTRACKED)
    asked = "{from: 192.0.2.5, to: 10.96.0.1, in: eth0, port: 1, dnat: '10.65.0.2:1', expect: allow}"
    result = run(written(tmp_path, asked, str(tmp_path / "untracked.yaml")))
    assert (result.exit_code, "It is untracked, no NAT sends it to `dnat` (E-62)" in result.output) == (
        1,
        True,
    )


def test_interfaces_are_known_by_the_test_or_governed_by_a_star(tmp_path: Path) -> None:
    asked = "{from: 192.0.2.1, to: 198.51.100.10, node: edge1, in: %s, port: 81, expect: %s}"
    given = "  interfaces: {eth7: [192.0.2.7]}\n"
    result = run(written(tmp_path, asked % ("eth7", "allow"), "02-host-endpoint.yaml", given))
    assert result.exit_code == 0, result.output
    star = tmp_path / "star.yaml"
    star.write_text(
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: any}\n"
        "spec: {node: edge1, interfaceName: '*', expectedIPs: [198.51.100.10]}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: none}\n"
        "spec: {selector: all(), types: [Ingress], preDNAT: true, applyOnForward: true,\n"
        "       ingress: [{action: Deny, protocol: TCP, destination: {ports: [81]}}]}\n"
    )
    result = run(written(tmp_path, asked % ("eth9", "deny"), str(star)))
    assert result.exit_code == 0, result.output
    result = run(written(tmp_path, asked % ("cali1", "deny"), str(star)))
    assert "`in: cali1`: no endpoint" in result.output


def test_a_rule_of_both_directions_needs_its_direction(tmp_path: Path) -> None:
    more = """
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: both}
spec:
  selector: all()
  order: 1
  types: [Ingress, Egress]
  egress: [{action: Allow}]
  ingress: [{action: Deny, protocol: UDP}, {action: Allow}]
"""
    policy = tmp_path / "policy.yaml"
    policy.write_text((EXAMPLES / "01-workload.yaml").read_text() + more)
    by = "{policy: GlobalNetworkPolicy/both%s}"
    question = "{from: shop/web, to: shop/db, port: 80, expect: allow, decidedBy: %s}"

    def asked(how: str) -> Result:
        return run(written(tmp_path, question % (by % how), str(policy)))

    found = asked(", rule: 0")
    assert found.exit_code == 1
    assert "ambiguous: egress rule 0 and ingress rule 1 of GlobalNetworkPolicy/both" in found.output
    for how, code in (
        ("", 0),
        (", rule: 0, direction: egress", 0),
        (", rule: 1, direction: ingress", 0),
        (", rule: 0, direction: ingress", 1),
        (", rule: 1, direction: egress", 1),
    ):
        found = asked(how)
        assert found.exit_code == code, found.output
    assert "decided by GlobalNetworkPolicy/both egress rule 1" in found.output


def test_a_rule_that_comes_too_late_is_told_of(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    more = """
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: first}
spec: {selector: app == 'db', order: 1, ingress: [{action: Allow}]}
"""
    policy.write_text((EXAMPLES / "01-workload.yaml").read_text() + more)
    by = "{policy: NetworkPolicy/shop/db-from-web, rule: 0}"
    asked = f"{{from: shop/web, to: shop/db, port: 5432, expect: allow, decidedBy: {by}}}"
    result = run(written(tmp_path, asked, str(policy)))
    assert result.exit_code == 1
    assert re.search(
        r"would match: NetworkPolicy/shop/db-from-web ingress rule 0 at \S+, but another", result.output
    )
    assert "decided:  GlobalNetworkPolicy/first ingress rule 0" in result.output


def test_failsafes_of_one_node_are_told_apart(tmp_path: Path) -> None:
    felix = """
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.edge1}
spec: {failsafeInboundHostPorts: [{protocol: TCP, port: 7777}]}
"""
    policy = tmp_path / "policy.yaml"
    policy.write_text((EXAMPLES / "02-host-endpoint.yaml").read_text() + felix)
    asked = "{from: 192.0.2.5, to: HostEndpoint/edge1-out, port: '7000:8000', expect: deny}"
    result = run(written(tmp_path, asked, str(policy)))
    assert result.exit_code == 1
    assert "found:    allow at filter-input: 192.0.2.5 -> HostEndpoint/edge1-out" in result.output
    assert "protocol 6 port 7777" in result.output


def test_other_policies_can_be_asked(tmp_path: Path) -> None:
    text = (EXAMPLES / "01-workload.yaml").read_text()
    changed = tmp_path / "candidate.yaml"
    changed.write_text(text.replace("ports: [5432]", "ports: [5433]"))
    result = run(EXAMPLES / "tests" / "01-workload.yaml", "-f", changed)
    assert result.exit_code == 1
    assert "web asks db" in result.output
    assert f"{changed}:" in result.output


def test_a_rule_that_is_never_asked_is_named_with_its_line(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "{from: shop/web, to: kube-system/dns, port: 53, expect: allow}",
        "kubernetes-default-deny.yaml",
    )
    result = run(file, "--coverage", "--fail-under", "20.1")
    policy = (EXAMPLES / "kubernetes-default-deny.yaml").read_text().splitlines()
    assert result.exit_code == 1
    missed = re.findall(r":(\d+): not exercised: (\S+) (\w+) rule (\d)", result.output)
    assert [(name.rpartition("/")[2], number) for _, name, _, number in missed] == [
        ("allow-dns", "1"), ("db-from-web", "0"), ("web-open", "0"), ("web-to-db", "0"),
    ]  # fmt: skip
    assert all(policy[int(line) - 1].lstrip().startswith(("- from", "- to")) for line, *_ in missed)
    assert "1 of 5 rules exercised (20.0 %)" in result.output


@pytest.mark.parametrize("above", ['{"apiVersion": "v1", "kind": "List", "items": [', "["])
def test_rules_of_items_of_json_have_their_lines(above: str, tmp_path: Path) -> None:
    documents = yaml.safe_load_all((EXAMPLES / "kubernetes-default-deny.yaml").read_text())
    lines = [json.dumps(one) for one in documents if one]
    policy = tmp_path / "policy.json"
    policy.write_text(f"{above}\n" + ",\n".join(lines) + "\n]" + "}" * above.count("{"))
    file = written(tmp_path, "{from: shop/web, to: kube-system/dns, port: 53, expect: allow}", str(policy))
    result = run(file, "--coverage", "--fail-under", "20.1")
    missed = dict(re.findall(r":(\d+): not exercised: \S+/(\S+) \w+ rule", result.output))
    assert len(missed) == 4
    assert all(f'"name": "{name}"' in lines[int(line) - 2] for line, name in missed.items())


def test_rules_that_pass_and_log_are_exercised_between_workloads(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    more = """
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: first}
spec:
  selector: app == 'db'
  order: 1
  ingress: [{action: Log}, {action: Deny, protocol: UDP}, {action: Pass}]
"""
    policy.write_text((EXAMPLES / "01-workload.yaml").read_text() + more)
    file = written(tmp_path, "{from: shop/web, to: shop/db, port: 5432, expect: allow}", str(policy))
    result = run(file, "--coverage", "-f", policy)
    missed = re.findall(r"not exercised: GlobalNetworkPolicy/first ingress rule (\d)", result.output)
    assert (result.exit_code, missed) == (0, ["1"]), result.output


def test_a_file_that_is_named_and_does_not_parse_is_no_file_without_tests(tmp_path: Path) -> None:
    """Of a folder only files with tests count: others may be templates."""
    file = tmp_path / "bad.yaml"
    file.write_text("a: [1\n")
    with pytest.raises(labelgate.LoadError, match=f"{file}:2:1: not valid YAML"):
        read_tests([file])
    assert read_tests([tmp_path]) == []


def test_junit_is_as_its_readers_want_it(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '{name: "<&> it", from: 203.0.113.7, to: shop/web, port: 80, expect: allow}'
        + "\n  - {from: shop/web, to: shop/db, port: 5432, expect: allow}"
        + "\n  - {from: shop/nobody, to: shop/db, port: 5432, expect: allow}",
    )
    xml = tmp_path / "results.xml"
    assert run(file, "--junit", xml).exit_code == 1
    root = ElementTree.parse(xml).getroot()
    check_junit(root)
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    report = JUnitXml.fromfile(str(xml))
    read = [(case.name, [type(one) for one in case.result]) for suite in report for case in suite]
    assert read == [("<&> it [0]", [Failure]), (read[1][0], []), (read[2][0], [Error])]
    counted = (report.tests, report.failures, report.errors, report.skipped)
    report.update_statistics()
    assert counted == (report.tests, report.failures, report.errors, report.skipped) == (3, 1, 1, 0)
    cases = root.findall("testsuite/testcase")
    assert [[child.tag for child in case] for case in cases] == [["failure"], [], ["error"]]
    assert cases[0].get("name") == "<&> it [0]"
    assert [suite.get("file") for suite in root] == [str(file)]
    assert (cases[0][0].text or "").startswith(f"{file}:7:5: ")
    assert "would match: NetworkPolicy/shop/web-front" in (cases[0][0].text or "")


def test_junit_says_nothing_that_xml_cannot(tmp_path: Path) -> None:
    """Control characters in names, and a name without any text."""
    names = (r'"\u0007bell"', '"<![CDATA[ & ]]>"', "\"'quoted'\"", r'"\uFFFE"', '" "')
    rows = (f"{{name: {name}, from: shop/web, to: shop/db, port: 5432, expect: allow}}" for name in names)
    file, xml = written(tmp_path, "\n  - ".join(rows)), tmp_path / "results.xml"
    result = run(file, "--junit", xml)
    assert result.exit_code == 0, result.output
    root = ElementTree.parse(xml).getroot()
    check_junit(root)
    assert len(list(root.iter("testcase"))) == len(names)
    assert sum(len(suite) for suite in JUnitXml.fromfile(str(xml))) == len(names)


COUNTS = {"tests", "failures", "errors"}
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time"} | COUNTS, {"testsuite"}),
    "testsuite": (
        {"name"} | COUNTS,
        {"file", "group", "hostname", "id", "log", "package", "skipped", "time", "timestamp", "url"},
        {"testcase", "testsuite", "properties", "system-out", "system-err"},
    ),
    "testcase": ({"name"}, {"classname", "group", "time"}, {"failure", "error", "skipped", "system-out"}),
    "failure": (set(), {"message", "type"}, set()),
    "error": (set(), {"message", "type"}, set()),
}
"""What junit-10 of Jenkins' xunit plugin, the strictest of the usual readers, wants and allows: attributes
that must be there, others, and children. Its `time` is digits with a point."""


def check_junit(element: ElementTree.Element) -> None:
    needed, others, children = JUNIT[element.tag]
    assert needed <= set(element.attrib) <= needed | others
    assert {child.tag for child in element} <= children
    assert re.fullmatch(r"[0-9]+\.[0-9]*", element.get("time", "0.0"))
    if element.tag in ("testsuites", "testsuite"):
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            assert element.get(name) == str(len(list(element.iter(tag))))
    for child in element:
        check_junit(child)


def test_a_whole_network_is_meant_by_its_name(tmp_path: Path) -> None:
    """One address in it is treated otherwise, and found."""
    asked = "{from: %s, to: shop/web, port: 443, expect: allow}"
    assert run(written(tmp_path, asked % "203.0.113.0/26")).exit_code == 0
    result = run(written(tmp_path, asked % "203.0.113.0/24"))
    assert result.exit_code == 1
    assert "found:    deny: 203.0.113.99 ->" in result.output


def test_sources_that_a_workload_may_use_besides_its_own_are_told_apart(tmp_path: Path) -> None:
    """E-30: by the addresses that the answers name."""
    policy = tmp_path / "policy.yaml"
    policy.write_text((EXAMPLES / "01-workload.yaml").read_text().replace("10.65.0.2/32", "fd00::2/128"))
    asked = "{from: '%s', to: '2001:db8::1', in: cali111, hook: raw-prerouting, port: 443, expect: continue}"
    for source, code in (
        ("::", 0), ("::/127", 1), ("fe80::/10", 0), ("fe80::/9", 1), ("fd00::2", 0), ("fd00::2/127", 1),
    ):  # fmt: skip
        result = run(written(tmp_path, asked % source, str(policy)))
        assert result.exit_code == code, result.output
    assert "found:    deny at raw-prerouting: fd00::3 ->" in result.output


def test_expectations_are_asked_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the reference, which only explains."""
    monkeypatch.setattr("labelgate.reference.Reference.answer", None)
    monkeypatch.setattr("labelgate.reference.Reference.connectivity", None)
    suite = Suite()
    results = list(suite.results(read_tests([EXAMPLES / "tests"])))
    assert all(result.is_as_expected for result in results)
    assert sum(result.asked for result in results) >= 96


def pytest_run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "labelgate.pytest_plugin",
        "-q",
    ]
    where = str(Path(labelgate.__file__).parents[1])
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": where}
    return subprocess.run(
        [*program, *map(str, arguments)], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


def test_the_plugin_is_found_by_pytest() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"labelgate": "labelgate.pytest_plugin"}


def test_pytest_collects_expectations(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "{from: shop/web, to: shop/db, port: 5432, expect: allow}\n"
        "  - {from: 203.0.113.7, to: shop/web, port: 80, expect: allow}",
    )
    (tmp_path / "other.yaml").write_text("a: 1\n")
    found = pytest_run(tmp_path, "-rA", ".")
    assert found.returncode == 1, found.stdout + found.stderr
    assert "1 failed, 1 passed" in found.stdout
    assert "would match: NetworkPolicy/shop/web-front ingress rule 0" in found.stdout
    assert "Traceback" not in found.stdout
    found = pytest_run(
        tmp_path, "--junitxml=out.xml", f"--labelgate-policies={EXAMPLES / '01-workload.yaml'}", file
    )
    lines = [case.get("line") for case in ElementTree.parse(tmp_path / "out.xml").getroot().iter("testcase")]
    assert len(lines) == 2
    file.write_text(file.read_text().replace("expect: allow", "expect: alow"))
    found = pytest_run(tmp_path, ".")
    assert found.returncode == 2
    assert "found: `alow`" in found.stdout


STRANGERS = [
    "kind: List\n",
    "# values for the PolicyTest chart\nreplicas: 1\n",
    "x: {{ .Values.PolicyTest }}\n",
    "# kind: PolicyTest\na: 1\n",
    "apiVersion: acme.example/v1\nkind: PolicyTest\nspec: {a: 1}\n",
    "a: |\n  kind: PolicyTest\n",
]
"""Files of other projects that look like ours."""


def test_strangers_hold_no_tests(tmp_path: Path) -> None:
    for text in STRANGERS:
        (tmp_path / "data.yaml").write_text(text)
        assert read_tests([tmp_path]) == []


def test_pytest_without_expectations_is_left_alone(tmp_path: Path) -> None:
    for number, text in enumerate(STRANGERS):
        (tmp_path / f"data{number}.yaml").write_text(text)
    broken = tmp_path / "template.yaml"
    broken.write_text("kind: PolicyTest\nmetadata: {{ .Values.x }}: y\n")
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    found = pytest_run(tmp_path, ".")
    assert found.returncode == 0, found.stdout
    assert "1 passed, 1 warning" in found.stdout
    assert "template.yaml:2:" in found.stdout
    assert pytest_run(tmp_path, broken).returncode == 2, "whoever names it is told"


def test_a_kind_that_is_misspelt_is_told_of(tmp_path: Path) -> None:
    file = written(tmp_path, "{from: shop/web, to: shop/db, port: 5432, expect: allow}")
    text = file.read_text()
    for kind in ("policytest", "PolicyTests"):
        file.write_text(text.replace("kind: PolicyTest", f"kind: {kind}"))
        with pytest.raises(labelgate.LoadError, match="did you mean `PolicyTest`"):
            read_tests([file])
        named, around = pytest_run(tmp_path, file), pytest_run(tmp_path, ".")
        assert "did you mean `PolicyTest`" in named.stdout
        assert around.returncode == 5, around.stdout


@pytest.mark.parametrize("form", ["json", "list", "quoted"])
def test_a_test_is_found_however_it_is_written(tmp_path: Path, form: str) -> None:
    file = written(tmp_path, "{from: shop/web, to: shop/db, port: 5432, expect: allow}")
    data = yaml.safe_load(file.read_text())
    if form == "quoted":
        file.write_text(file.read_text().replace("kind: PolicyTest", '"kind" : "PolicyTest"  # one'))
    else:
        whole = data if form == "json" else {"apiVersion": "v1", "kind": "List", "items": [data]}
        file.write_text(json.dumps(whole))
    assert len(read_tests([file])) == 1


def test_the_program_needs_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None; from labelgate.cli import cli; cli(['test', '--help'])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_documentation_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "policy-tests.md").read_text()
    first, second = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    file = Path("policies/shop-test.yaml")
    file.parent.mkdir()
    file.with_name("01-workload.yaml").write_text((EXAMPLES / "01-workload.yaml").read_text())
    file.write_text(first)
    result = run(file)
    assert result.exit_code == 0, result.output
    file.write_text(first.replace("port: 443", "port: 80"))
    shown = "\n".join(run(file).output.splitlines()[:5])
    assert shown in text
    file.write_text(first[: first.index("  - name")] + second)
    assert len(read_tests([file])[0].spec.expectations) == len(second.splitlines())


def test_results_are_a_table(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "{name: one, from: shop/web, to: shop/db, port: 5432, expect: allow}\n"
        "  - {name: two, from: 203.0.113.0/24, to: shop/web, port: 443, expect: allow}\n"
        "  - {name: three, from: shop/nobody, to: shop/db, port: 5432, expect: allow}",
    )
    results = Results(read_tests([file]))
    rows = results.to_numpy()
    assert rows["expectation"].tolist() == ["one", "two", "three"]
    assert rows["verdict"].tolist() == ["pass", "fail", "error"]
    assert (rows["questions"].tolist(), rows["wrong"].tolist()) == ([1, 2, 0], [0, 1, 0])
    assert rows["error"][0] is None
    assert rows["error"][2].startswith("`shop/nobody` is no endpoint")
    assert repr(results) == "Results(1 of 3 expectations hold)"
    assert [len(results), len(list(results)), results.are_as_expected] == [3, 3, False]
    assert repr(list(results)[1]) == f"Result({file}:8:5: two: 1 of 2 as expected)"
    assert results.failures().splitlines() == run(file).output.splitlines()[:-1]
    assert '<span class="bad">fail</span>' in results._repr_html_()
    assert repr(results.coverage()) == "Coverage(3 of 3 rules exercised (100.0 %))"
