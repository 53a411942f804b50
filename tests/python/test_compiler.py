"""A table that follows its resources answers, and reads, as one that is compiled from them anew."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import labelgate.compiler
import pytest
from labelgate import Compiler, DecisionTable, HostFacts, Settings, Snapshot, _core, load
from labelgate.conversion import pod_interface
from labelgate.model import core_model
from labelgate.resources import Resource

CASES = Path(__file__).parents[1] / "cases"
SOME = sorted(path.parent for path in CASES.glob("*/policy.yaml"))[::9]
POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: shop, labels: {app: web}}
spec: {nodeName: edge1}
status: {podIP: ADDRESS}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
"""
PACKET = {"hook": "filter-forward", "protocol": "tcp", "sport": 40000, "dport": 80, "in_": "eth0"}


def read(tmp_path: Path, *documents: str) -> Snapshot:
    path = tmp_path / "resources.yaml"
    path.write_text("---\n".join(documents), encoding="utf-8")
    return load(path)


def pod(tmp_path: Path, name: str, address: str) -> Resource:
    (found,) = read(tmp_path, POD.replace("NAME", name).replace("ADDRESS", address)).resources()
    return found


def steps(resources: list[Resource]) -> Iterator[tuple[list[Resource], list[Resource | str]]]:
    """Every resource goes and comes back, in the other order; then several at once."""
    for resource in resources:
        yield [], [resource]
    for resource in reversed(resources):
        yield [resource], []
    yield [], [resource.key for resource in resources[::2]]
    yield resources[::2], resources[1::2]
    yield resources[1::2], []


@pytest.mark.parametrize("node", ["edge1", None])
@pytest.mark.parametrize("case", SOME, ids=lambda path: path.name)
def test_edits_give_what_a_fresh_compile_gives(case: Path, node: str | None) -> None:
    snapshot = load(case / "policy.yaml")
    compiler = Compiler(snapshot, node=node)
    now = {resource.key: resource for resource in snapshot.resources()}
    assert str(compiler.table.program) == str(snapshot.compile(node=node).program)
    for put, remove in steps(list(now.values())):
        for item in remove:
            del now[item if isinstance(item, str) else item.key]
        now.update((resource.key, resource) for resource in put)
        table = compiler.apply(put=put, remove=remove)
        fresh = Snapshot.of(now.values())
        assert str(table.program) == str(fresh.compile(node=node).program)
        assert table is compiler.table
        assert compiler.snapshot == fresh


def test_services_and_profiles_of_several_resources(tmp_path: Path) -> None:
    slices = [
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        f"metadata: {{name: s{number}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n"
        f"endpoints: [{{addresses: [10.0.0.{number}]}}]\nports: [{{port: 80, protocol: TCP}}]\n"
        for number in (1, 2)
    ]
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {env: prod}}\n"
    profile = (
        "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: kns.shop}\n"
        "spec: {ingress: [{action: Deny}], labelsToApply: {pcns.env: test}}\n"
    )
    policy = (
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\n"
        "spec: {namespaceSelector: has(env), egress: [{action: Allow, destination: "
        "{services: {name: web, namespace: shop}}}]}\n"
    )
    own = POD.replace("NAME", "a").replace("ADDRESS", "10.0.0.9")
    resources = list(read(tmp_path, *slices, namespace, profile, policy, own).resources())
    compiler, now = Compiler(Snapshot(), node="edge1"), dict[str, Resource]()
    texts = set()
    for put, remove in chain([(resources, [])], steps(resources)):
        for item in remove:
            del now[item if isinstance(item, str) else item.key]
        now.update((resource.key, resource) for resource in put)
        text = str(compiler.apply(put=put, remove=remove).program)
        assert text == str(Snapshot.of(now.values()).compile(node="edge1").program)
        texts.add(text)
    assert len(texts) >= 5


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_sets_of_many_addresses(tmp_path: Path, count: int) -> None:
    """What a set loses stays where another member has it too, alone or in a prefix (M-20)."""

    def network_set(name: str, nets: list[str], labels: str = "list: bad") -> str:
        return (
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n"
            f"metadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{nets: {json.dumps(nets)}}}\n"
        )

    def policy(name: str, selector: str) -> str:
        return (
            f"apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\n"
            f'spec: {{selector: all(), ingress: [{{action: Deny, source: {{selector: "{selector}"}}}}]}}\n'
        )

    nets = [f"10.0.{at}.1" for at in range(count)] + ["2001:db8::1"]
    fixed = [HOST, policy("p", "list == 'bad'"), policy("q", "has(list) && app != 'web'")]
    compiler, texts = Compiler(read(tmp_path, *fixed), node="edge1"), set()
    for sets in (
        [
            network_set("a", nets),
            network_set("b", nets[:1]),
            network_set("c", ["10.0.0.0/23", "::/0"], "list: good"),
        ],
        [
            network_set("a", nets[1:]),
            network_set("b", nets[:1]),
            network_set("c", ["10.0.0.0/23"], "list: bad"),
        ],
        [network_set("a", nets[2:]), network_set("b", nets[:1] * 2), network_set("c", ["10.0.1.1"])],
        [network_set("b", nets), network_set("c", ["10.0.2.0/24", "10.0.1.1"], "list: bad, app: web")],
        [network_set("a", nets), network_set("b", nets[-1:])],
        [network_set("b", nets[:1])],
        [],
    ):
        fresh = read(tmp_path, *fixed, *sets)
        assert str(compiler.follow(fresh.resources()).program) == str(fresh.compile(node="edge1").program)
        texts.add(str(compiler.table.program))
    assert len(texts) >= 6


def test_tables_of_before_stay_what_they_are(tmp_path: Path) -> None:
    first, second = pod(tmp_path, "a", "10.0.0.1"), pod(tmp_path, "b", "10.0.0.2")
    compiler = Compiler(read(tmp_path, POLICY), node="edge1", host=HostFacts({"eth0": []}))
    before = compiler.apply(put=[first])
    after = compiler.apply(put=[second])
    to_first = {**PACKET, "src": "10.0.0.2", "dst": "10.0.0.1", "out": pod_interface("cali", "shop", "a")}
    assert before.decide(**to_first).verdict == "deny"
    assert after.decide(**to_first).verdict == "allow"
    with pytest.raises(ValueError, match=r"remove: found a key of kind `Pods`, .*: did you mean `Pod`\?"):
        compiler.apply(remove=[second.key, "Pods/shop/b"])
    again = compiler.apply(remove=[second.key, "Pod/shop/none"])
    assert again.decide(**to_first).verdict == "deny"
    assert after.decide(**to_first).verdict == "allow"
    assert after.describe()["classes"]["edits"] > before.describe()["classes"]["edits"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("{", "expected a sequence"),
        ('[{"put": {"pod": {}}}]', "unknown variant `pod`"),
        ('[{"remove": "Tier/default"}, {"put": {"policy": POLICY}}]', "spec.ingress[0].action: found `Drop`"),
    ],
)
def test_a_refused_change_changes_nothing(tmp_path: Path, changes: str, said: str) -> None:
    snapshot = read(tmp_path, POLICY, POD.replace("NAME", "a").replace("ADDRESS", "10.0.0.1"))
    core = _core.Compiler(core_model(snapshot, Settings()), "edge1")
    before = str(core.apply(b"[]"))
    policy = (
        '{"kind": "GlobalNetworkPolicy", "name": "p", "tier": "default", "applies_ingress": true, '
        '"applies_egress": false, "ingress": [{"action": "Drop"}]}'
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        core.apply(changes.replace("POLICY", policy).encode())
    assert str(core.apply(b"[]")) == before


RULES = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nets}
spec:
  selector: all()
  ingress:
  - {action: FIRST}
  - {action: Allow, source: {nets: [NETS]}}
"""
HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge1}
spec: {node: edge1, interfaceName: eth0}
"""


@pytest.mark.parametrize("nets", [("10.0.0.0/8", "fd00::/8"), ("fd00::/8", "10.0.0.0/8")])
def test_the_first_rules_are_of_one_family(tmp_path: Path, nets: tuple[str, str]) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    for net in nets:
        text = RULES.replace("  - {action: FIRST}\n", "").replace("NETS", f'"{net}"')
        (policy,) = read(tmp_path, text).resources()
        table = compiler.apply(put=[policy])
        for src, dst in (("10.1.1.1", "198.51.100.1"), ("fd00::1", "2001:db8::1")):
            decision = table.decide(
                hook="filter-input", src=src, dst=dst, protocol="tcp", dport=80, in_="eth0"
            )
            assert decision.verdict == ("allow" if (":" in src) == (":" in net) else "deny")


def test_what_edits_leave_behind_is_bounded(tmp_path: Path) -> None:
    nets = ", ".join(f"10.{index}.0.0/16" for index in range(250))
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    ages = []
    for edit in range(60):
        text = RULES.replace("FIRST", ("Allow", "Deny")[edit % 2])
        rules = "".join(f"  - {{action: Allow, source: {{nets: [{net}]}}}}\n" for net in nets.split(", "))
        (policy,) = read(tmp_path, text.split("  - {action: Allow, source")[0] + rules).resources()
        ages.append(compiler.apply(put=[policy]).describe()["classes"]["edits"])
    assert max(ages) < 20


FAILSAFES = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: NAME}
spec: {failsafeInboundHostPorts: [{protocol: tcp, port: 9999}]}
"""
DEFAULT, OF_NODE = (FAILSAFES.replace("NAME", name) for name in ("default", "node.edge1"))
REACHED = {"hook": "filter-input", "in_": "eth0", "src": "192.0.2.5", "dst": "198.51.100.10", "sport": 1}


def failsafes(table: DecisionTable) -> list[int]:
    """Which of the default and the other port are failsafe (E-40)."""
    return [
        port for port in (22, 9999) if table.decide(protocol="tcp", dport=port, **REACHED).verdict == "allow"
    ]


def test_documents_say_the_settings_unless_somebody_does(tmp_path: Path) -> None:
    host = read(tmp_path, HOST, OF_NODE)
    assert failsafes(host.compile(node="edge1")) == [9999]
    assert failsafes(Compiler(host, node="edge1").table) == [9999]
    assert failsafes(host.compile(node="edge1", settings=Settings())) == [22]
    assert host.settings(None) == host.settings("edge2") == Settings()
    assert read(tmp_path, DEFAULT).settings(None) == host.settings("edge1") != Settings()


def test_settings_follow_their_documents(tmp_path: Path) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    fixed = Compiler(read(tmp_path, HOST), node="edge1", settings=Settings())
    (document,) = read(tmp_path, OF_NODE).resources()
    for put, remove, expected in (
        ([], [], [22]),
        ([document], [], [9999]),
        ([document], [], [9999]),
        ([], [document.key], [22]),
    ):
        assert failsafes(compiler.apply(put=put, remove=remove)) == expected
        assert failsafes(fixed.apply(put=put, remove=remove)) == [22]
        assert compiler.snapshot == fixed.snapshot


@pytest.mark.parametrize(
    ("edit", "error", "said"),
    [
        ({"remove": "HostEndpoint/edge1"}, TypeError, "remove: expected a list of resources, found one str"),
        ({"remove": ["edge1"]}, ValueError, "remove: expected a key such as `Tier/name`, found `edge1`"),
        ({"remove": [1]}, TypeError, "remove: expected resources or keys, found int"),
        ({"remove": 1}, TypeError, "remove: expected a list of resources, found one int"),
        ({"put": Snapshot()}, TypeError, "put: expected a list of resources, found one Snapshot"),
        ({"put": ["HostEndpoint/edge1"]}, TypeError, "put: expected resources, found str"),
    ],
)
def test_an_edit_that_is_none(
    tmp_path: Path, edit: dict[str, Any], error: type[Exception], said: str
) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    with pytest.raises(error, match=f"^{re.escape(said)}$"):
        compiler.apply(**edit)
    assert compiler.snapshot.host_endpoints


def many_rules(action: str) -> str:
    rules = "".join(f'  - {{action: {action}, source: {{nets: ["10.0.{at}.0/24"]}}}}\n' for at in range(200))
    return RULES.split("  - {action: FIRST}")[0] + rules


def is_whole(compiler: Compiler) -> bool:
    """Whether the table is that of the resources."""
    return str(compiler.table.program) == str(compiler.snapshot.compile(node="edge1").program)


def test_an_interrupted_edit_has_changed_everything_or_nothing(tmp_path: Path) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    edits = [read(tmp_path, many_rules(action)).global_network_policies for action in ("Allow", "Deny")]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    try:
        for turn in range(150):
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.00004 * turn)
            try:
                compiler.apply(put=edits[turn % 2])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            assert is_whole(compiler)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert failsafes(compiler.apply(remove=["GlobalNetworkPolicy/nets"])) == [22]


def test_edits_of_several_threads_wait_for_each_other(tmp_path: Path) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    settings = read(tmp_path, OF_NODE)
    policies = [read(tmp_path, many_rules(action)) for action in ("Allow", "Deny", "Log", "Pass")]

    def edit(snapshot: Snapshot) -> None:
        for _ in range(20):
            compiler.apply(put=snapshot.resources())
            compiler.apply(remove=list(snapshot.resources()))
            assert compiler.snapshot.host_endpoints

    for edits in (policies, [settings, *policies]):
        with ThreadPoolExecutor() as threads:
            list(threads.map(edit, edits))
        assert compiler.snapshot == read(tmp_path, HOST)
        assert is_whole(compiler)


def test_a_core_that_fails_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    table, policies = compiler.table, read(tmp_path, many_rules("Allow")).global_network_policies

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(labelgate.compiler, "DecisionTable", fail)
        with pytest.raises(MemoryError):
            compiler.apply(put=policies)
    assert compiler.table is table
    assert not compiler.snapshot.global_network_policies
    assert compiler.apply() is not table
    assert is_whole(compiler)
    compiler.apply(put=policies)
    assert is_whole(compiler)


def test_a_host_that_cannot_be_read(tmp_path: Path) -> None:
    compiler = Compiler(read(tmp_path, HOST), node="edge1")
    table, host = compiler.table, compiler.host
    compiler.host = HostFacts({"\ud800": ()})
    with pytest.raises(ValueError, match="hex escape"):
        compiler.apply(put=read(tmp_path, many_rules("Allow")).global_network_policies)
    assert compiler.table is table
    assert compiler.snapshot.global_network_policies
    compiler.host = host
    compiler.apply()
    assert is_whole(compiler)
