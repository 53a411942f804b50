"""The linter as a whole: choice, suppression, outputs, exit codes."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import fastjsonschema
import labelgate
import pytest
import yaml
from click.testing import CliRunner
from labelgate.analysis.failsafes import failsafe_rule
from labelgate.analysis.lint import Finding, UnknownRules, lint, read, replies
from labelgate.analysis.lint.coverage import contents_of
from labelgate.analysis.lint.parts import Part
from labelgate.analysis.lint.sarif import sarif
from labelgate.cli import cli
from labelgate.conversion import written_rules
from labelgate.model import core_model
from labelgate.settings import Failsafe, Settings

CASES = Path(__file__).parents[1] / "lint"
SHADOWED = CASES / "LG101" / "firing.yaml"
ALL_FIRING = sorted(CASES.glob("*/firing.yaml"))

HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: edge
  labels: {role: edge}
  annotations: {ANNOTATION}
spec: {node: n1, interfaceName: eth0, profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web, annotations: {POLICY}}
spec:
  selector: role == 'edge'
  ingress:
  - {action: Allow}
  - {action: Deny, protocol: TCP, metadata: {annotations: {RULE}}}
  - {action: Deny, protocol: UDP}
"""


KUBERNETES = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: x, ports: [{name: http, containerPort: 80}]}]}
status: {phase: Running, podIP: 10.65.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: k, namespace: shop}
spec: {podSelector: {}, SPEC}
"""
ALONE = """kind: GlobalNetworkPolicy
metadata: {name: web}
spec: {selector: role == 'edge', ingress: [{action: Allow, source: {selector: role == 'x'}}]}
"""


def written(folder: Path, annotation: str = "{}", policy: str = "{}", rule: str = "{}") -> Path:
    file = folder / "policy.yaml"
    text = HOST.replace("{ANNOTATION}", annotation).replace("{POLICY}", policy).replace("{RULE}", rule)
    file.write_text(text, encoding="utf-8")
    return file


def codes(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.rule, one.path) for one in found]


def run(*arguments: str, text: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["lint", *arguments], input=text, catch_exceptions=False)
    return result.exit_code, result.stdout


def test_it_is_a_function_of_the_package() -> None:
    (found,) = labelgate.lint(labelgate.load(SHADOWED), ignore=["LG3"])
    assert (found.rule, found.name, found.severity) == ("LG101", "shadowed-rule", "warning")
    assert repr(found) == (
        f"<Finding LG101 shadowed-rule warning at {SHADOWED}:14:5: GlobalNetworkPolicy/p spec.ingress[2]>"
    )
    assert labelgate.lint([SHADOWED], ignore=["LG3"]) == [found]


def test_rules_are_chosen_by_id_beginning_and_name() -> None:
    assert {one.rule for one in lint(SHADOWED)} == {"LG101", "LG301"}
    assert {one.rule for one in lint(SHADOWED, select=["LG1"])} == {"LG101"}
    assert {one.rule for one in lint(SHADOWED, ignore=["shadowed-rule"])} == {"LG301"}
    assert lint(SHADOWED, severity="error") == []
    with pytest.raises(UnknownRules):
        lint(SHADOWED, select=["LG777"])


def test_an_annotation_with_a_reason_suppresses(tmp_path: Path) -> None:
    both = [("LG101", "spec.ingress[1]"), ("LG101", "spec.ingress[2]")]
    assert codes(lint(written(tmp_path))) == both
    key = "lint.labelgate.io/LG101"
    assert lint(written(tmp_path, policy=f"{{{key}: as documentation}}")) == []
    assert codes(lint(written(tmp_path, rule=f"{{{key}: as documentation}}"))) == both[1:]
    without = lint(written(tmp_path, rule=f"{{{key}: ''}}"))
    assert [one.rule for one in without] == ["LG101", "LG901", "LG101"]


CALICO, CORE = "projectcalico.org/v3", "v1"
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "GlobalNetworkPolicy": (CALICO, {}, {"selector": "all()"}),
    "NetworkPolicy": (CALICO, {"namespace": "shop"}, {"selector": "all()"}),
    "StagedGlobalNetworkPolicy": (CALICO, {}, {"selector": "all()"}),
    "StagedNetworkPolicy": (CALICO, {"namespace": "shop"}, {"selector": "all()"}),
    "StagedKubernetesNetworkPolicy": (CALICO, {"namespace": "shop"}, {"podSelector": {}}),
    "HostEndpoint": (CALICO, {}, {"node": "n1", "interfaceName": "eth0"}),
    "WorkloadEndpoint": (CALICO, {"namespace": "shop"}, {"node": "n1", "interfaceName": "cali1"}),
    "GlobalNetworkSet": (CALICO, {}, {"nets": []}),
    "NetworkSet": (CALICO, {"namespace": "shop"}, {"nets": []}),
    "Profile": (CALICO, {}, {"labelsToApply": {}}),
    "Tier": (CALICO, {}, {"order": 1_000_000}),
    "FelixConfiguration": (CALICO, {}, {}),
    "KubernetesNetworkPolicy": ("networking.k8s.io/v1", {"namespace": "shop"}, {"podSelector": {}}),
    "ClusterNetworkPolicy": ("policy.networking.k8s.io/v1alpha2", {},
                             {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}),
    "Namespace": (CORE, {}, {}),
    "Pod": (CORE, {"namespace": "shop"}, {}),
    "ServiceAccount": (CORE, {"namespace": "shop"}, {}),
    "Service": (CORE, {"namespace": "shop"}, {}),
    "EndpointSlice": ("discovery.k8s.io/v1", {"namespace": "shop"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_suppress(tmp_path: Path, kind: str) -> None:
    """Or rather: says what is wrong with its suppressions."""
    version, metadata, spec = KINDS[kind]
    keys = {"LG901": "LG402", "LG902": "LG406", "LG903": "shadowed-rule"}
    reasons = {"LG901": "", "LG902": "why", "LG903": "why"}
    annotations = {f"lint.labelgate.io/{keys[rule]}": reasons[rule] for rule in keys}
    document = {
        "apiVersion": version,
        "kind": "NetworkPolicy" if kind == "KubernetesNetworkPolicy" else kind,
        "metadata": {"name": "default", **metadata, "annotations": annotations},
        **({"spec": spec} if spec else {}),
    }
    file = tmp_path / "resource.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    found = {one.rule: one.mend for one in lint(file, select=["LG4", "LG9"])}
    assert sorted(found) == sorted(keys)
    assert found["LG903"] == "write its id: `lint.labelgate.io/LG101`"


def test_a_suppression_is_unused_only_if_its_rule_was_looked_for(tmp_path: Path) -> None:
    file = written(tmp_path, "{lint.labelgate.io/LG301: none}")
    assert [one.rule for one in lint(file, ignore=["LG1"])] == ["LG902"]
    assert lint(file, ignore=["LG1", "LG3"]) == []


def test_sarif_satisfies_its_schema() -> None:
    schema = json.loads((CASES / "sarif-2.1.0.schema.json").read_text(encoding="utf-8"))
    validate = fastjsonschema.compile(schema, formats={"uri": r"^[a-z]+:", "uri-reference": r"^\S*$"})
    found = [finding for file in ALL_FIRING for finding in lint(file)]
    assert len(found) > 30
    report = sarif(found)
    validate(report)
    driver = report["runs"][0]["tool"]["driver"]
    for rule in driver["rules"]:  # What GitHub's code scanning wants beyond the schema.
        assert all(rule[field]["text"] for field in ("shortDescription", "fullDescription", "help"))
    for result in report["runs"][0]["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1
    report["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(report)


def test_the_verb_prints_text_json_and_sarif() -> None:
    code, text = run("-f", str(SHADOWED), "--select", "LG1")
    assert code == 1
    assert f"{SHADOWED}:14:5: warning LG101 GlobalNetworkPolicy/p: spec.ingress[2]: " in text
    code, text = run("-f", str(SHADOWED), "--select", "LG1", "-o", "json")
    assert (code, [one["line"] for one in json.loads(text)["findings"]]) == (1, [14])
    code, text = run("-f", str(SHADOWED), "-o", "sarif")
    region = {"startLine": 1, "startColumn": 1}
    first = json.loads(text)["runs"][0]["results"][0]
    assert first["locations"][0]["physicalLocation"]["region"] == region


def test_exit_codes_of_the_verb(tmp_path: Path) -> None:
    assert run("-f", str(SHADOWED), "--ignore", "LG1,LG3")[0] == 0
    assert run("-f", str(SHADOWED), "--ignore", "LG1", "--severity", "error")[0] == 0
    assert run("-f", str(SHADOWED), "--select", "shadowed")[0] == 2
    assert run()[0] == 2
    assert run("--rules")[0] == 0


def test_the_verb_says_that_it_read_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["lint", "-f", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no resources in these files" in result.stderr


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        ("", "no endpoints in these files"),
        ("kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: b}\n---\n", "once they have a node"),
        (KUBERNETES.split("---")[0] + "---\n", None),
    ],
)
def test_the_verb_says_where_nothing_can_be_met(tmp_path: Path, pod: str, said: str | None) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(pod + "apiVersion: projectcalico.org/v3\n" + ALONE, encoding="utf-8")
    result = CliRunner().invoke(cli, ["lint", "-f", str(file), "--select", "LG1"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert said in result.stderr if said else "endpoints" not in result.stderr


def test_a_label_with_one_letter_of_three_wrong_is_recognized() -> None:
    first, *_ = lint(CASES / "LG207" / "firing.yaml", select=["LG207"])
    assert (first.path, first.mend) == ("spec.selector", "did you mean `app`?")


def test_lines_of_standard_input_and_of_lists(tmp_path: Path) -> None:
    code, text = run("-f", "-", "--select", "LG101", text=SHADOWED.read_text(encoding="utf-8"))
    assert (code, text.split()[0]) == (1, "<stdin>:14:5:")
    documents = [
        {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": name},
         "spec": {"tier": "nowhere"}}
        for name in ("a", "b")
    ]  # fmt: skip
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent=1))
    found = lint(file, select=["LG205"])
    lines = file.read_text().splitlines()
    assert ['"tier": "nowhere"' in lines[one.line - 1] for one in found] == [True, True]
    assert found[0].line < found[1].line


def test_examples_are_clean_but_for_what_they_show() -> None:
    found = [one for file in Path(labelgate.__file__).parent.glob("examples/*.yaml") for one in lint(file)]
    assert {(Path(one.file).name, one.rule) for one in found} == {
        ("01-workload.yaml", "LG105"),
        ("05-untracked.yaml", "LG301"),
    }


POLICY_CASES = sorted((CASES.parent / "cases").glob("*/policy.yaml"))


@pytest.mark.parametrize("file", POLICY_CASES[::3], ids=lambda file: file.parent.name)
def test_every_compiled_rule_has_its_place(file: Path) -> None:
    """Rules of Kubernetes' policies become several; each leads back to where it is written."""
    snapshot, places = read([str(file)])
    resources = {resource.key: resource for resource in snapshot.resources()}
    for found in contents_of(json.loads(core_model(snapshot, Settings()))).lists:
        if found.policy in resources:
            written = written_rules(resources[found.policy], found.direction)
            assert len(written) == len(found.rules)
    length = len(file.read_text(encoding="utf-8").splitlines())
    assert all(1 <= one.line <= length for one in lint(snapshot, places=places))


def test_peers_of_kubernetes_have_places_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("""
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1}
status: {phase: Running, podIP: 10.65.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.0/8}
    - ipBlock: {cidr: 10.1.0.0/16}
    ports: [{port: 80}, {port: 53, protocol: UDP}]
""")
    (found,) = lint(file, select=["LG102"])
    assert (found.path, found.line) == ("spec.ingress[0].from[1]", 16)


EDGE = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: NAME, labels: {role: edge}}
spec: {node: NODE, interfaceName: eth0, expectedIPs: [ADDRESS], profiles: [projectcalico-default-allow]}
---
"""
PASSING = """
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: first}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: first.a}
spec:
  tier: first
  selector: all()
  types: [Ingress, Egress]
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [23]}}, {action: Pass}]
  egress: [{action: Deny, protocol: TCP, destination: {ports: [23]}}, {action: Pass}]
---
"""
LAST = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: b}
spec: {selector: all(), SPEC}
"""
TELNET = "{action: Deny, protocol: TCP, destination: {ports: [23]}}"


def edge(name: str, node: str, address: str) -> str:
    return EDGE.replace("NAME", name).replace("NODE", node).replace("ADDRESS", address)


def found_in(folder: Path, text: str, *select: str) -> list[Finding]:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return lint(file, select=select)


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        (f"ingress: [{TELNET}], egress: [{{action: Allow}}]", "[Ingress, Egress]"),
        (f"ingress: [{TELNET}, {TELNET}], egress: [{{action: Allow}}]", "[Ingress, Egress]"),
        (f"egress: [{TELNET}]", "[Egress]"),
        (f"ingress: [{TELNET}]", None),
        (f"ingress: [{TELNET}, {{action: Allow}}], egress: [{{action: Allow}}]", None),
        (f"types: [Ingress, Egress], ingress: [{TELNET}], egress: [{{action: Allow}}]", None),
    ],
)
def test_removing_the_last_rules_of_a_direction_does_not_open_it(
    tmp_path: Path, spec: str, types: str | None
) -> None:
    """E-12: inferred types lose a direction with its last rule."""
    found = found_in(tmp_path, edge("h1", "n1", "10.0.0.1") + PASSING + LAST.replace("SPEC", spec), "LG102")
    assert found
    for one in found:
        assert ("first, then remove it" in one.mend) == (types is not None)
        assert types is None or f"write `types: {types}` first, then remove it" in one.mend


def test_removing_the_last_peers_does_not_open_a_rule(tmp_path: Path) -> None:
    """K-7: a rule without peers is for everyone; K-13: `policyTypes` lose Egress with its last rule."""
    peers = "[{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.1.0.0/16}}]"
    rest = "{to: [{ipBlock: {cidr: 10.0.0.0/7}}]}"
    (alone, _) = found_in(tmp_path, KUBERNETES.replace("SPEC", f"egress: [{{to: {peers}}}, {rest}]"), "LG102")
    assert "with its last peer the whole rule" in alone.mend
    (one,) = found_in(tmp_path, KUBERNETES.replace("SPEC", f"egress: [{{to: {peers}}}]"), "LG102")
    assert one.mend == "remove it"
    first = "ports: [{port: nobody}]"
    (last,) = found_in(tmp_path, KUBERNETES.replace("SPEC", f"egress: [{{{first}}}]"), "LG104")
    assert "write `policyTypes: [Ingress, Egress]` first, then remove it" in last.mend


def test_named_ports_of_kubernetes_are_met_by_pods(tmp_path: Path) -> None:
    """K-9: which number a name is pods say; without any nothing is said."""
    text = KUBERNETES.replace(
        "SPEC", "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: NAME}]}]"
    )
    assert [one.rule for one in found_in(tmp_path, text.replace("NAME", "nobody"), "LG1")] == ["LG104"]
    assert found_in(tmp_path, text.replace("NAME", "http"), "LG1") == []
    alone = text.split("---")[1].replace("NAME", "nobody")
    assert found_in(tmp_path, alone, "LG1") == []


def test_failsafe_ports_are_those_of_each_node(tmp_path: Path) -> None:
    """LG406 and LG401 tell of the nodes that have the ports, and of no other."""
    denying = LAST.replace("SPEC", "ingress: [{action: Deny, protocol: TCP, destination: {ports: [22]}}]")
    node = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.n1}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
---
"""
    file = tmp_path / "policy.yaml"
    one, two = edge("h1", "n1", "10.0.0.1"), edge("h2", "n2", "10.0.0.2")
    for endpoints, expected in ((one, []), (one + two, ["HostEndpoint/h2"])):
        file.write_text(endpoints + node + denying, encoding="utf-8")
        told = json.loads(run("-f", str(file), "--select", "LG406", "-o", "json")[1])["findings"]
        assert [found["text"].split("which ")[1].split()[0] for found in told] == expected
    spec = "doNotTrack: true, applyOnForward: true, types: [Ingress, Egress], ingress: [RULE]"
    untracked = LAST.replace("SPEC", spec).replace(
        "RULE", "{action: Allow, protocol: TCP, destination: {ports: [22]}}"
    )
    for endpoints, expected in ((two, []), (two + one, ["HostEndpoint/h1"])):
        file.write_text(endpoints + node + untracked, encoding="utf-8")
        told = json.loads(run("-f", str(file), "--select", "LG401", "-o", "json")[1])["findings"]
        assert [found["text"].split()[1] for found in told] == expected


def test_equal_chains_are_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hosts have them; failsafe ports that all have cut no more classes than those of one."""
    spec = (
        "doNotTrack: DONT, applyOnForward: true, types: [Ingress, Egress],"
        " ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]"
    )
    both = "---".join(
        LAST.replace("SPEC", spec.replace("DONT", word)).replace("name: b", f"name: is-{word}")
        for word in ("true", "false")
    )
    shapes: list[tuple[int, ...]] = []
    cut = replies.parts

    def noted(*asked: Any) -> list[Part] | None:
        found = cut(*asked)
        shapes.extend(part.partition.shape for part in found or ())
        return found

    monkeypatch.setattr(replies, "parts", noted)
    one = found_in(tmp_path, edge("h0", "n0", "10.0.0.1") + both, "LG401")
    of_one = shapes.copy()
    shapes.clear()
    hosts = "".join(edge(f"h{n}", f"n{n}", f"10.0.0.{n + 1}") for n in range(40))
    assert [found.text for found in found_in(tmp_path, hosts + both, "LG401")] == [
        found.text for found in one
    ]
    assert one[0].text.startswith("at HostEndpoint/h0 ")
    assert "such as tcp 10.0.0.1 port 80 to " in one[0].text
    assert shapes == of_one != []


def test_equal_failsafe_ports_are_one_rule_and_equal_nets_one_set() -> None:
    """Sets are compared by identity: fresh ones would each be a boundary of their own."""
    ssh, web = (
        [failsafe_rule(Failsafe(6, port, ip_network("10.0.0.0/8")), "ingress") for _ in range(2)]
        for port in (22, 443)
    )
    assert ssh[0] == ssh[1] != web[0]
    assert ssh[0].source.in_sets == web[0].source.in_sets
    assert ssh[0].families == (True, False)


@pytest.mark.parametrize("above", ['{"apiVersion": "v1", "kind": "List", "items": [', "["])
def test_findings_on_items_of_json_have_their_lines(above: str, tmp_path: Path) -> None:
    pod, policy = yaml.safe_load_all(KUBERNETES.replace("SPEC", "ingress: [{from: [{podSelector: {}}]}, {}]"))
    listed = ",\n".join(json.dumps(one) for one in (pod, policy))
    file = tmp_path / "all.json"
    file.write_text(f"{above}\n{listed}\n]" + "}" * above.count("{"))
    found = {(one.resource, one.path, one.line) for one in lint(file)}
    assert ("Pod/shop/web", "", 2) in found
    assert ("KubernetesNetworkPolicy/shop/k", "spec.ingress[0]", 3) in found
