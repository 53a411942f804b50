"""Suggested policy: it loads, allows what was recorded, and denies every other flow of a small universe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import Any

import labelgate
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from labelgate.analysis import recorded
from labelgate.analysis.recorded import from_conntrack, packed
from labelgate.analysis.selection import group_of, selectors
from labelgate.analysis.suggest import Observed, Peers, suggest
from labelgate.cli import cli
from labelgate.cli.suggested import text
from labelgate.flow import Packet
from labelgate.lockout.flows import Flow as Tracked
from labelgate.lockout.many import by_column
from labelgate.reference.selectors import matches, parse
from labelgate.snapshot import Snapshot

OUTSIDE = ("192.0.2.1", "192.0.2.2", "192.0.2.9")
SERVICES = ((6, 80), (6, 81), (17, 53), (1, 8 << 8))


@dataclass(frozen=True)
class Pod:
    """A workload of the universe."""

    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...]
    address: str


def world(tmp_path: Path, pods: Sequence[Pod], more: str = "") -> Snapshot:
    documents: list[Any] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        for namespace in sorted({pod.namespace for pod in pods})
    ]
    documents += [
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": pod.address},
        }
        for pod in pods
    ]  # fmt: skip
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump_all(documents) + more, encoding="utf-8")
    return labelgate.load(path)


Flow = tuple[str, str, tuple[int, int]]


def observe(world: Snapshot | Observed, flows: Sequence[Flow]) -> Observed:
    observed = Observed(world) if isinstance(world, Snapshot) else world
    if flows:
        observed.add(packed([
            {"src": ip_address(src), "dst": ip_address(dst), "protocol": protocol, "sport": 40000,
             "dport": number, "packets": 2, "replies": 1, "answered": True}
            for src, dst, (protocol, number) in flows
        ]))  # fmt: skip
    return observed


def enforced(tmp_path: Path, suggested: str) -> Snapshot:
    """The world with the suggestion, no longer staged."""
    path = tmp_path / "suggested.yaml"
    path.write_text(suggested.replace("kind: Staged", "kind: "), encoding="utf-8")
    return labelgate.load(tmp_path / "world.yaml", path)


def packet(flow: Flow) -> Packet:
    src, dst, (protocol, number) = flow
    if protocol == 1:
        return Packet("filter-forward", ip_address(src), ip_address(dst), 1, icmp_type=number >> 8)
    return Packet("filter-forward", ip_address(src), ip_address(dst), protocol, 40000, number)


PODS = st.lists(
    st.tuples(
        st.sampled_from(["shop", "ops"]),
        st.dictionaries(st.sampled_from(["app", "tier", "team"]), st.sampled_from(["a", "b"]), max_size=3),
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=PODS, data=st.data())
def test_what_was_recorded_is_allowed_and_nothing_else(
    tmp_path: Path, drawn: list[tuple[str, dict[str, str]]], data: st.DataObject
) -> None:
    pods = [
        Pod(namespace, f"pod{index}", tuple(sorted(labels.items())), f"10.0.0.{index + 1}")
        for index, (namespace, labels) in enumerate(drawn)
    ]
    snapshot = world(tmp_path, pods)
    inside = {pod.address: (pod.namespace, pod.labels) for pod in pods}
    addresses = [*inside, *OUTSIDE]
    universe = [
        (src, dst, service)
        for src, dst, service in product(addresses, addresses, SERVICES)
        if src != dst and (src in inside or dst in inside)
    ]
    recorded = data.draw(st.lists(st.sampled_from(universe), max_size=8))
    observed = observe(snapshot, recorded)
    found = suggest(observed, prefix={4: 32, 6: 128})
    table = enforced(tmp_path, text(observed, found)).compile(node=None)

    def alike(flow: Flow) -> tuple[Any, ...]:
        """Replicas with the same labels share a policy."""
        return inside.get(flow[0], flow[0]), inside.get(flow[1], flow[1]), flow[2]

    allowed = {alike(flow) for flow in recorded}
    governed = {inside[end] for flow in recorded for end in flow[:2] if end in inside}
    # What a group sends and what it may receive are apart: both ends must have been seen so.
    egress = {key[0:1] + key[1:] for key in allowed}
    for flow in universe:
        answer = table.connectivity(packet(flow))
        source, destination, _ = alike(flow)
        if source not in governed and destination not in governed:
            assert answer.verdict == "allow"
        else:
            assert (answer.verdict == "allow") == (alike(flow) in egress), flow


def test_selectors_find_all_of_the_wanted_and_nobody_else() -> None:
    groups = [group_of({"app": app, **extra}) for app in "abc" for extra in ({}, {"x": "1"}, {"y": "2"})]
    for chosen in range(1, 2 ** len(groups), 7):
        wanted = [group for index, group in enumerate(groups) if chosen >> index & 1]
        found = [parse(selector) for selector in selectors(wanted, groups)]
        assert [group for group in groups if any(matches(one, dict(group)) for one in found)] == wanted


WEB = Pod("shop", "web-1", (("app", "web"), ("pod-template-hash", "1")), "10.0.0.1")
WEB_TWIN = Pod("shop", "web-2", (("app", "web"), ("pod-template-hash", "2")), "10.0.0.2")
DB = Pod("shop", "db", (("app", "db"),), "10.0.0.3")
SCRAPER = Pod("ops", "scraper", (("app", "scraper"),), "10.0.0.4")
OTHER = Pod("ops", "other", (("app", "other"),), "10.0.0.5")
FLOWS = [
    (WEB.address, DB.address, (6, 5432)),
    (SCRAPER.address, WEB.address, (6, 9100)),
    *((OUTSIDE[0], WEB.address, (6, port)) for port in (80, 8000, 8001)),
]


def written(tmp_path: Path, peers: Peers = "seen", net4: int = 32) -> dict[str, dict[str, Any]]:
    observed = observe(world(tmp_path, [WEB, WEB_TWIN, DB, SCRAPER, OTHER]), FLOWS)
    found = text(observed, suggest(observed, peers=peers, prefix={4: net4, 6: 128}))
    (tmp_path / "staged.yaml").write_text(found, encoding="utf-8")
    staged = labelgate.load(tmp_path / "world.yaml", tmp_path / "staged.yaml")
    assert len(staged.staged_network_policies) == 3
    documents = [document for document in yaml.safe_load_all(found) if document]
    return {document["metadata"]["name"]: document["spec"] for document in documents}


def test_what_is_written(tmp_path: Path) -> None:
    policies = written(tmp_path)
    assert policies["suggested-web"] == {
        "selector": "app == 'web'",
        "types": ["Ingress", "Egress"],
        "ingress": [
            {"action": "Allow", "protocol": "TCP", "source": {"nets": ["192.0.2.1/32"]},
             "destination": {"ports": [80, "8000:8001"]}},
            {"action": "Allow", "protocol": "TCP",
             "source": {"selector": "app == 'scraper'", "namespaceSelector": "all()"},
             "destination": {"ports": [9100]}},
        ],
        "egress": [
            {"action": "Allow", "protocol": "TCP",
             "destination": {"selector": "app == 'db'", "ports": [5432]}}
        ],
    }  # fmt: skip
    assert policies["suggested-db"]["egress"] == []


def test_how_much_is_generalised(tmp_path: Path) -> None:
    nets, scraper = written(tmp_path, "namespace", 24)["suggested-web"]["ingress"]
    assert nets["source"] == {"nets": ["192.0.2.0/24"]}
    assert scraper["source"]["selector"] == f"projectcalico.org/namespace == 'ops' && {WORKLOAD}"


NO_WORKLOAD, WORKLOAD = "!has(projectcalico.org/namespace)", "has(projectcalico.org/orchestrator)"
HOST = """
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: n1, interfaceName: eth0, expectedIPs: [198.51.100.10]}
"""


def test_host_endpoints_get_a_global_policy(tmp_path: Path) -> None:
    snapshot = world(tmp_path, [WEB, DB], HOST)
    observed = observe(
        snapshot, [(OUTSIDE[0], "198.51.100.10", (6, 80)), ("198.51.100.10", WEB.address, (6, 81))]
    )
    found = suggest(observed, prefix={4: 32, 6: 128})
    assert [(one.kind, one.name, one.selector) for one in found] == [
        ("StagedGlobalNetworkPolicy", "suggested-edge", f"role == 'edge' && {NO_WORKLOAD}"),
        ("StagedNetworkPolicy", "suggested-web", "app == 'web'"),
    ]
    snapshot = enforced(tmp_path, text(observed, found))
    table = snapshot.compile(node="n1")
    verdicts = {
        port: table.decide(hook="filter-input", in_="eth0", src=OUTSIDE[0], dst="198.51.100.10",
                           protocol="tcp", sport=40000, dport=port).verdict
        for port in (80, 81)
    }  # fmt: skip
    assert verdicts == {80: "allow", 81: "deny"}
    cluster = snapshot.compile(node=None)
    assert cluster.connectivity(packet(("198.51.100.10", WEB.address, (6, 81)))).verdict == "allow"
    assert cluster.connectivity(packet((OUTSIDE[0], WEB.address, (6, 81)))).verdict == "deny"


BARE_HOST = HOST.replace("edge, labels: {role: edge}", "bare").replace(".10]", ".11]")


def test_a_policy_of_hosts_leaves_workloads_alone(tmp_path: Path) -> None:
    """Not even one that comes later, with the same labels."""
    flow = (OUTSIDE[0], "198.51.100.10", (6, 80))
    observed = observe(world(tmp_path, [], HOST), [flow])
    suggested = text(observed, suggest(observed, prefix={4: 32, 6: 128}))
    later = Pod("shop", "edge", (("role", "edge"),), "10.0.0.9")
    world(tmp_path, [later], HOST)
    table = enforced(tmp_path, suggested).compile(node=None)
    assert table.connectivity(packet((OUTSIDE[0], later.address, (6, 81)))).verdict == "allow"


@pytest.mark.parametrize("pods", [[], [WEB]])
def test_a_host_without_labels_gets_no_policy(tmp_path: Path, pods: list[Pod]) -> None:
    """Whatever finds it finds all without labels: '' everything, `!has(app)` whoever comes without."""
    flows = [(OUTSIDE[0], "198.51.100.11", (6, 80)), (OUTSIDE[0], "198.51.100.10", (6, 80))]
    observed = observe(world(tmp_path, pods, HOST + BARE_HOST), flows)
    found = suggest(observed, prefix={4: 32, 6: 128})
    assert [one.selector for one in found] == [f"role == 'edge' && {NO_WORKLOAD}"]
    said = "1 host endpoint was seen, but no label of its own finds it alone: nothing is suggested for"
    assert f"# {said} HostEndpoint/bare\n# Policy finds host endpoints by labels only" in text(
        observed, found
    )


SETS = """
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: internet, labels: {role: edge}}
spec: {nets: [0.0.0.0/0]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: office, namespace: ops, labels: {net: office}}
spec: {nets: [192.0.2.0/24]}
"""
BY_HAND = """
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: vm, namespace: ops, labels: {app: vm}}
spec: {node: n1, interfaceName: cali9, ipNetworks: [10.0.0.77/32],
       profiles: [projectcalico-default-allow]}
"""


@pytest.mark.parametrize("peers", ["seen", "namespace"])
def test_peers_are_no_network_sets(tmp_path: Path, peers: Peers) -> None:
    """Hosts, pods, and a workload that names no orchestrator: each gets in, and no address of a set does."""
    ends = [SCRAPER.address, "198.51.100.10", "198.51.100.11", "10.0.0.77"]
    more = HOST + BARE_HOST + SETS + BY_HAND
    observed = observe(
        world(tmp_path, [WEB, SCRAPER, OTHER], more), [(end, WEB.address, (6, 80)) for end in ends]
    )
    found = suggest(observed, peers=peers, prefix={4: 32, 6: 128})
    table = enforced(tmp_path, text(observed, [one for one in found if one.namespace == "shop"])).compile(
        node=None
    )
    asked = [*ends, OTHER.address, *OUTSIDE]
    allowed = [
        src for src in asked if table.connectivity(packet((src, WEB.address, (6, 80)))).verdict == "allow"
    ]
    assert allowed == ends + [OTHER.address] * (peers == "namespace")


DUAL, DUAL6 = "10.0.0.6", "2001:db8::6"
RANGES = f"""
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: dual, namespace: shop, labels: {{app: dual}}}}
spec: {{node: n1, interfaceName: cali8, ipNetworks: [{DUAL}/32, "{DUAL6}/128"], profiles: [kns.shop]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: partners, labels: {{net: partners}}}}
spec: {{nets: [192.0.2.0/31, 192.0.2.2/32]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {{name: office, namespace: shop, labels: {{net: office}}}}
spec: {{nets: [192.0.2.8/31]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {{name: monitors, namespace: ops, labels: {{net: monitors}}}}
spec: {{nets: [192.0.2.16/32, "2001:db8::16/128"]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: nameless}}
spec: {{nets: [192.0.2.32/32]}}
"""


PARTNERS = ("net == 'partners'", "global()")


@pytest.mark.parametrize(
    ("seen", "nets", "selectors"),
    [
        ([0, 1, 2], [], {PARTNERS}),
        ([0, 1], ["192.0.2.0/31"], set()),  # Not all of the set.
        (
            [0, 1, 2, 3, 8, 9],
            ["192.0.2.3/32"],
            {PARTNERS, ("net == 'office'", None)},
        ),
        ([16], ["192.0.2.16/32"], set()),  # Not its IPv6 address.
        ([16, "2001:db8::16"], [], {("net == 'monitors'", "all()")}),
        ([32], ["192.0.2.32/32"], set()),  # No label finds it alone.
    ],
)
def test_a_network_set_that_fits(
    tmp_path: Path, seen: list[int | str], nets: list[str], selectors: set[tuple[str, str | None]]
) -> None:
    """Peers by its labels, if it holds no address that was not seen."""
    snapshot = world(tmp_path, [WEB, SCRAPER], RANGES)
    sources = [f"192.0.2.{one}" if isinstance(one, int) else one for one in seen]
    flows = [(src, DUAL if "." in src else DUAL6, (6, 80)) for src in sources]
    observed = Observed(snapshot)
    for version in ".", ":":
        observe(observed, [flow for flow in flows if version in flow[0]])
    (policy,) = suggest(observed, prefix={4: 32, 6: 128})
    sides = [rule.fields["source"] for rule in policy.rules["ingress"]]
    assert [net for side in sides for net in side.get("nets", [])] == nets
    assert {
        (side["selector"], side.get("namespaceSelector")) for side in sides if "selector" in side
    } == selectors
    assert sum(rule.evidence.flows for rule in policy.rules["ingress"]) == len(flows)
    table = enforced(tmp_path, text(observed, [policy])).compile(node=None)
    asked = [f"192.0.2.{number}" for number in range(40)] + ["2001:db8::15", "2001:db8::16"]
    allowed = [
        src for src in asked
        if table.connectivity(
            packet((src, DUAL if "." in src else DUAL6, (6, 80)))
        ).verdict == "allow"
    ]  # fmt: skip
    assert sorted(allowed) == sorted(sources)


def test_a_wider_net_fits_a_wider_set(tmp_path: Path) -> None:
    snapshot = world(tmp_path, [WEB], SETS.replace("namespace: ops", "namespace: shop"))
    observed = observe(snapshot, [("192.0.2.77", WEB.address, (6, 80))])
    for prefix, side in ((32, {"nets": ["192.0.2.77/32"]}), (24, {"selector": "net == 'office'"})):
        (policy,) = suggest(observed, prefix={4: prefix, 6: 128})
        assert policy.rules["ingress"][0].fields["source"] == side


FATES = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 7), st.sampled_from([(6, 80), (6, 8443), (17, 5353)])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=FATES)
def test_replay_denies_nothing_of_what_a_policy_was_suggested_from(
    tmp_path: Path, drawn: list[tuple[int, int, tuple[int, int]]]
) -> None:
    """As a cluster and as a node judge the staged policies; the same flows to another port are denied."""
    world(tmp_path, [WEB, DB, SCRAPER], HOST + RANGES)
    pods, host = [WEB.address, DB.address, SCRAPER.address], "198.51.100.10"
    ends = [*pods, host, "192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.9"]
    # What pods send to their node is not for policy alone (E-50).
    lines = [
        {"src": ends[src], "dst": ends[dst], "protocol": protocol, "sport": 40000, "dport": port}
        for src, dst, (protocol, port) in drawn
        if src != dst and (src < 4 or dst < 4) and not (src < 3 and dst == 3)
    ]
    assume(lines)
    flows, suggested = tmp_path / "flows.jsonl", tmp_path / "suggested.yaml"
    flows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = CliRunner().invoke(cli, ["suggest", "-f", str(tmp_path / "world.yaml"), str(flows)])
    assert result.exit_code == 0, result.output
    suggested.write_text(result.stdout, encoding="utf-8")

    def denied(*place: str) -> list[tuple[str, str]]:
        judged = CliRunner().invoke(cli, [
            "replay", str(tmp_path / "world.yaml"), str(flows), "-f", str(suggested), "--staged",
            "--flows", "-o", "json", *place,
        ])  # fmt: skip
        *each, _ = map(json.loads, judged.stdout.splitlines())
        return [(flow["src"], flow["dst"]) for flow in each if flow["fate"] == "denied"]

    node = ("--node", "n1", "--route", "0.0.0.0/0=eth0")
    assert (denied(), denied(*node)) == ([], [])
    flows.write_text(
        "\n".join(json.dumps(line | {"dport": int(line["dport"]) + 1000}) for line in lines), encoding="utf-8"
    )
    pairs = [(flow["src"], flow["dst"]) for flow in lines]
    assert sorted(denied()) == sorted(pair for pair in pairs if {*pair} & {*pods})
    # No policy judges what the node sends to its own pods (E-36).
    judged = [pair for pair in pairs if not (pair[0] == host and pair[1] in pods)]
    assert sorted(denied(*node)) == sorted(judged)


def test_names_are_no_names_twice(tmp_path: Path) -> None:
    pods = [Pod("shop", f"p{number}", labels, f"10.0.0.{number}") for number, labels in enumerate([
        (("app", "web"), ("v", "1")), (("app", "web"), ("v", "2")), (("app", "web-2"),)
    ], 1)]  # fmt: skip
    observed = observe(world(tmp_path, pods), [(OUTSIDE[0], pod.address, (6, 80)) for pod in pods])
    names = [one.name for one in suggest(observed, prefix={4: 32, 6: 128})]
    assert names == ["suggested-web", "suggested-web-2", "suggested-web-2-2"]


def test_what_conntrack_has_no_answer_to_is_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = map(ip_address, ("10.0.0.1", "10.0.0.3"))
    tracked = [
        Tracked(6, client, server, 40000, 81, answered=False),
        Tracked(6, client, server, 40000, 80),
    ]
    monkeypatch.setattr(recorded, "read_connections", lambda in_any_state: by_column(tracked))
    observed = Observed(world(tmp_path, [WEB, DB]))
    for block in from_conntrack().blocks:
        observed.add(block)
    assert {name: count for name, count in observed.counters.items() if count} == {
        "TCP that nobody has answered": 1, "taken": 1,
    }  # fmt: skip
    assert [need["egress"].keys() for need in observed.needs.values() if need["egress"]] == [{(6, 80)}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"begin": 1}, "no connection, or who began it is not known"),
        ({"begin": 3}, "DNATed: their destination is another one"),
        ({"ct": 3}, "no connection, or who began it is not known"),
        ({"answered": False}, "TCP that nobody has answered"),
        ({"denied": True}, "denied where they were recorded"),
        ({"protocol": 0}, "IP protocol 0, which no rule can name"),
        ({"src": ip_address("192.0.2.7"), "dst": ip_address("192.0.2.8")},
         "between addresses that no endpoint has"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_counted(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    observed = Observed(world(tmp_path, [WEB, DB]))
    flow = {"src": ip_address(WEB.address), "dst": ip_address(DB.address), "protocol": 6, "dport": 80,
            "answered": True}  # fmt: skip
    observed.add(packed([flow | change]))
    assert (observed.counters[words], observed.needs) == (1, {})


def test_the_command(tmp_path: Path) -> None:
    world(tmp_path, [WEB, DB])
    flows, out = tmp_path / "flows.jsonl", tmp_path / "out.yaml"
    line = {"src": WEB.address, "dst": DB.address, "protocol": "tcp", "dport": 5432, "packets": 7}
    flows.write_text(json.dumps(line), encoding="utf-8")
    arguments = ["suggest", "-f", str(tmp_path / "world.yaml"), str(flows)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "# 1 flow, 7 packets, e.g. 10.0.0.1 > 10.0.0.3 TCP 5432" in result.stdout
    out.write_text(result.stdout, encoding="utf-8")
    staged = ["replay", str(tmp_path / "world.yaml"), str(flows), "-f", str(out), "--staged"]
    assert CliRunner().invoke(cli, staged).exit_code == 0
    flows.write_text(json.dumps(line | {"dport": 5433}), encoding="utf-8")
    assert CliRunner().invoke(cli, staged).exit_code == 1
    flows.write_text("", encoding="utf-8")
    assert CliRunner().invoke(cli, arguments).exit_code == 1


@pytest.mark.parametrize("kind", ["StagedNetworkPolicy", "NetworkPolicy"])
def test_a_second_round_loads_beside_the_first(tmp_path: Path, kind: str) -> None:
    """Staged or in force: the new policy does not take the place of the old one (E-15)."""
    world(tmp_path, [WEB])
    line = {"src": OUTSIDE[0], "dst": WEB.address, "protocol": 6, "dport": 80}
    first, _ = suggested(tmp_path, [line])
    assert "among what was loaded" not in first
    old = first.replace("kind: StagedNetworkPolicy", f"kind: {kind}")
    file = tmp_path / "world.yaml"
    file.write_text(f"{file.read_text(encoding='utf-8')}---\n{old}", encoding="utf-8")
    second, _ = suggested(tmp_path, [line])
    assert "name: suggested-web-2\n" in second
    assert "# suggested-web is among what was loaded: in force together, both allow\n" in second


SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: shop}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{port: 53, protocol: UDP}]}
"""


def test_no_rule_for_the_address_of_a_service(tmp_path: Path) -> None:
    """M-34: after DNAT no packet has it."""
    world(tmp_path, [WEB], SERVICE)
    line = {"src": WEB.address, "dst": "10.96.0.10", "protocol": "udp", "dport": 53, "replies": 1}
    other = line | {"dst": OUTSIDE[0]}
    text, _ = suggested(tmp_path, [line, other])
    assert "# flows: 1 to the address of a Service, before DNAT: their destination is a pod (M-34)\n" in text
    assert "nets:\n      - 192.0.2.1/32\n      ports" in text


def test_lint_finds_nothing_in_what_is_suggested(tmp_path: Path) -> None:
    """`egress: []` beside `types` is written for that."""
    world(tmp_path, [WEB])
    file = tmp_path / "suggested.yaml"
    lines = [{"src": OUTSIDE[0], "dst": WEB.address, "protocol": 6, "dport": 80}]
    file.write_text(suggested(tmp_path, lines)[0], encoding="utf-8")
    assert "egress: []" in file.read_text(encoding="utf-8")
    found = labelgate.lint([tmp_path / "world.yaml", file], severity="warning")
    assert found == []


def suggested(tmp_path: Path, lines: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """What the command writes of flow logs, and what it warns of; the policies load."""
    flows = tmp_path / "flows.jsonl"
    flows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = CliRunner().invoke(cli, ["suggest", "-f", str(tmp_path / "world.yaml"), str(flows)])
    enforced(tmp_path, result.stdout)
    return result.stdout, result.stderr


def test_more_rules_than_a_policy_may_have(tmp_path: Path) -> None:
    """V-48: each port has a peer of its own, so none are put together."""
    world(tmp_path, [WEB])
    lines = [
        {"src": WEB.address, "dst": f"203.0.{n >> 8}.{n & 255}", "protocol": 6, "dport": 1000 + 2 * n}
        for n in range(1100)
    ]
    found = [one for one in yaml.safe_load_all(suggested(tmp_path, lines)[0]) if one]
    assert [(one["metadata"]["name"], len(one["spec"]["egress"])) for one in found] == [
        ("suggested-web", 1024), ("suggested-web-2", 76),
    ]  # fmt: skip
    assert found[0]["spec"]["selector"] == found[1]["spec"]["selector"]


def test_a_selector_that_would_be_too_long(tmp_path: Path) -> None:
    """V-48: one pod has all of the labels, and each of the others all but one."""
    labels = tuple(
        (f"{'part' * 12}{n}.{'long' * 30}.example.com/{'name' * 15}{n}", "v" * 60) for n in range(5)
    )
    pods = [Pod("shop", "whole", labels, "10.0.0.2")]
    pods += [Pod("shop", f"but-{n}", (*labels[:n], *labels[n + 1 :]), f"10.0.1.{n}") for n in range(5)]
    world(tmp_path, [*pods, WEB])
    lines = [
        {"src": "192.0.2.1", "dst": "10.0.0.2", "protocol": 6, "dport": 80},
        {"src": "10.0.0.2", "dst": WEB.address, "protocol": 6, "dport": 81},
        {"src": "192.0.2.1", "dst": WEB.address, "protocol": 6, "dport": 82},
    ]
    written, warned = suggested(tmp_path, lines)
    assert "no selector of 1024 characters or less finds Pod/shop/whole and nobody else" in warned
    assert "# flows: 1 without a rule at one end: the selector of the other would be too long\n" in written
    assert "# 5 endpoints were in no flow: nothing is suggested for them\n" in written
    (policy,) = (one for one in yaml.safe_load_all(written) if one)
    ingress = policy["spec"]["ingress"]
    assert (policy["metadata"]["name"], len(ingress)) == ("suggested-web", 1)
    assert ingress[0]["destination"] == {"ports": [82]}


def test_a_selector_of_many_labels_asks_for_those_that_it_needs() -> None:
    """Four of thirty tell this group from the others."""
    common = {f"{'common' * 5}-{n}": "x" for n in range(30)}
    needed = {f"n{n}": "y" for n in range(4)}
    others = [
        group_of(common | {name: value for name, value in needed.items() if name != left}) for left in needed
    ]
    (selector,) = selectors([group_of(common | needed)], others)
    assert selector == "n0 == 'y' && n1 == 'y' && n2 == 'y' && n3 == 'y'"


@pytest.mark.parametrize(
    ("service", "more"),
    [
        ({"protocol": 17, "dport": 4789}, "{vxlanPort: 4790}"),
        ({"protocol": 4}, "{allowIPIPPacketsFromWorkloads: true}"),
    ],
)
def test_what_workloads_encapsulate_is_denied_anyway(
    tmp_path: Path, service: dict[str, Any], more: str
) -> None:
    """E-20.5, and its configuration."""
    line = {"src": WEB.address, "dst": "192.0.2.1", **service}
    words = "1 encapsulated by a workload, which no policy can allow (E-20.5)"
    world(tmp_path, [WEB])
    assert words in suggested(tmp_path, [line])[0]
    world(tmp_path, [WEB], FELIX.format(more))
    assert words not in suggested(tmp_path, [line])[0]


FELIX = """\
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {}
"""


@pytest.mark.parametrize(
    ("told", "is_taken"),
    [
        ({"replies": 0}, False),
        ({"replies": 1}, True),
        ({"replies": 1, "answered": False}, False),
        ({"replies": 0, "answered": True}, True),
        ({"replies": None}, True),
        ({}, True),
        ({"reporter": "dst", "packets_in": 1, "packets_out": 0}, False),
        ({"reporter": "src", "packets_in": 1, "packets_out": 0}, True),
    ],
)
def test_flow_logs_that_tell_of_no_answer(tmp_path: Path, told: dict[str, Any], is_taken: bool) -> None:
    """A scan becomes no policy; UDP needs no answer."""
    world(tmp_path, [WEB])
    line = {"src": "192.0.2.1", "dst": WEB.address, "protocol": 6, "dport": 3389, **told}
    written, _ = suggested(tmp_path, [line, line | {"protocol": 17, "dport": 53}])
    assert f"# flows: {1 + is_taken} taken\n" in written
    assert ("- 3389\n" in written) == is_taken
    assert ("# flows: 1 TCP that nobody has answered\n" in written) != is_taken


def test_what_replay_prints_is_a_flow_log(tmp_path: Path) -> None:
    """With what it knows of answers; the summary at the end is no flow."""
    world(tmp_path, [WEB, DB])
    line = {"src": WEB.address, "dst": DB.address, "protocol": 6, "sport": 4}
    told: list[dict[str, Any]] = [{}, {"replies": 0}, {"replies": 3}, {"replies": 1, "answered": False}]
    lines = [line | {"dport": 80 + n} | one for n, one in enumerate(told)]
    flows = tmp_path / "flows.jsonl"
    flows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    command = ["replay", str(tmp_path / "world.yaml"), str(flows), "-o", "json", "--flows"]
    printed = CliRunner().invoke(cli, command).stdout
    written, warned = suggested(tmp_path, list(map(json.loads, printed.splitlines())))
    counted = [one for one in written.splitlines() if one.startswith("# flows:")]
    assert counted == ["# flows: 2 TCP that nobody has answered", "# flows: 2 taken"]
    assert ("cannot be read" in written, warned) == (False, "")


def test_one_endpoint_is_not_several(tmp_path: Path) -> None:
    world(tmp_path, [WEB, DB])
    line = {"src": WEB.address, "dst": "192.0.2.1", "protocol": 6, "dport": 80}
    written, _ = suggested(tmp_path, [line])
    assert "# 1 endpoint was in no flow: nothing is suggested for it\n" in written
