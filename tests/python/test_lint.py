"""The linter as a whole: choice, suppression, outputs, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import fastjsonschema
import labelgate
import pytest
from click.testing import CliRunner
from labelgate.analysis.lint import Finding, UnknownRules, lint, read
from labelgate.analysis.lint.coverage import contents_of
from labelgate.analysis.lint.sarif import sarif
from labelgate.analysis.lint.written import written_rules
from labelgate.cli import cli
from labelgate.settings import Settings

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
    for result in report["runs"][0]["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
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


def test_the_verb_says_where_nothing_can_be_met(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(HOST.split("---")[1].replace("{POLICY}", "{}").replace("{RULE}", "{}"), encoding="utf-8")
    result = CliRunner().invoke(cli, ["lint", "-f", str(file)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no endpoints in these files" in result.stderr


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
    for found in contents_of(snapshot, Settings()).lists:
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
