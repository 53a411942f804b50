"""Documents to typed resources: values, defaults, YAML as Kubernetes tools read it, places."""

from __future__ import annotations

import contextlib
import json
import pickle
import time
from collections.abc import Iterator
from copy import copy, deepcopy
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelgate.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    KubernetesNetworkPolicy,
    LoadError,
    Location,
    Metadata,
    NetworkPolicy,
    NetworkSet,
    Pod,
    PolicyTest,
    PortRange,
    Profile,
    Tier,
    WorkloadEndpoint,
    load_text,
)
from labelgate.resources.documents import documents
from labelgate.resources.loading import Loading, Summary
from labelgate.resources.models import KINDS, model_of, resource_types
from labelgate.resources.part import Part, all_findings, field_names, part_of
from labelgate.resources.versions import STORED
from labelgate.snapshot import Snapshot

GOLDEN = Path(__file__).parents[1] / "golden" / "errors"


def one(text: str) -> Any:
    [resource] = load_text(text)
    return resource


def problems(text: str | bytes, file: str = "<text>") -> list[tuple[str, int, int, str]]:
    with pytest.raises(LoadError) as caught:
        load_text(text, file)
    return [(problem.code, problem.line, problem.column, problem.path) for problem in caught.value.problems]


def gnp(spec: str) -> str:
    head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: edge}\n"
    return f"{head}spec: {spec}\n"


def rule(text: str) -> Any:
    return one(gnp(f"{{ingress: [{text}]}}")).spec.ingress[0]


# --- what is read ----------------------------------------------------------------------------------------


def test_global_network_policy() -> None:
    policy = one(
        """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nodeport-guard, labels: {team: edge}, annotations: {note: any text}, uid: abc}
spec:
  tier: security
  order: 10
  selector: role == 'edge'
  namespaceSelector: has(x)
  serviceAccountSelector: all()
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  performanceHints: [AssumeNeededOnEveryNode]
  ingress:
  - action: Allow
    ipVersion: 4
    protocol: TCP
    source:
      nets: [203.0.113.0/24]
      notNets: [203.0.113.99/32]
      serviceAccounts: {names: [a], selector: has(b)}
    destination: {ports: [30443, "30000:32767", http], notPorts: [80], namespaceSelector: global()}
    metadata: {annotations: {why: because}}
  - {action: Deny, notProtocol: 6, icmp: {type: 8, code: 0}, protocol: ICMP, notICMP: {}}
"""
    )
    assert isinstance(policy, GlobalNetworkPolicy)
    assert (policy.key, policy.api_version, policy.kind) == (
        "GlobalNetworkPolicy/nodeport-guard",
        "projectcalico.org/v3",
        "GlobalNetworkPolicy",
    )
    assert policy.metadata.model_dump() == {
        "name": "nodeport-guard",
        "namespace": None,
        "labels": {"team": "edge"},
        "annotations": {"note": "any text"},
    }
    empty = {
        "nets": [],
        "not_nets": [],
        "selector": "",
        "not_selector": "",
        "namespace_selector": "",
        "services": None,
        "ports": [],
        "not_ports": [],
        "service_accounts": None,
    }
    bare = {
        "ip_version": None,
        "not_protocol": None,
        "icmp": None,
        "not_icmp": None,
        "http": None,
        "metadata": None,
    }
    assert policy.spec.model_dump() == {
        "tier": "security",
        "order": 10.0,
        "selector": "role == 'edge'",
        "namespace_selector": "has(x)",
        "service_account_selector": "all()",
        "do_not_track": False,
        "pre_dnat": True,
        "apply_on_forward": True,
        "types": ["Ingress"],
        "performance_hints": ["AssumeNeededOnEveryNode"],
        "egress": [],
        "ingress": [
            bare
            | {
                "action": "Allow",
                "ip_version": 4,
                "protocol": 6,
                "metadata": {"annotations": {"why": "because"}},
                "source": empty
                | {
                    "nets": [ip_network("203.0.113.0/24")],
                    "not_nets": [ip_network("203.0.113.99/32")],
                    "service_accounts": {"names": ["a"], "selector": "has(b)"},
                },
                "destination": empty
                | {
                    "ports": [30443, "30000:32767", "http"],
                    "not_ports": [80],
                    "namespace_selector": "global()",
                },
            },
            bare
            | {
                "action": "Deny",
                "protocol": 1,
                "not_protocol": 6,
                "icmp": {"type": 8, "code": 0},
                "not_icmp": {"type": None, "code": None},
                "source": empty,
                "destination": empty,
            },
        ],
    }


def test_defaults_of_policies() -> None:
    spec = one(gnp("{}")).spec
    assert (spec.tier, spec.order, spec.selector, spec.types, spec.ingress) == ("default", None, "", None, [])
    policy = one("apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: web}\nspec: {}\n")
    assert isinstance(policy, NetworkPolicy)
    assert (policy.key, policy.metadata.namespace) == ("NetworkPolicy/default/web", "default")


def test_endpoints() -> None:
    host, workload = load_text(
        """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge1, labels: {role: edge}}
spec:
  node: edge1
  interfaceName: "*"
  expectedIPs: [198.51.100.10, "fd00::1", 198.51.100.10]
  profiles: [a, b, a]
  ports: [{name: http, protocol: TCP, port: 80}, {name: dns, protocol: 17, port: 53}]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop}
spec:
  node: edge1
  ipNetworks: [10.65.0.2/32, "fd00::2"]
  interfaceName: cali111
  allowSpoofedSourcePrefixes: [10.0.0.1/8]
  ports: [{protocol: TCP, port: 80, hostPort: 8080}]
  containerID: abc
"""
    )
    assert isinstance(host, HostEndpoint)
    assert isinstance(workload, WorkloadEndpoint)
    assert host.spec.model_dump() == {
        "node": "edge1",
        "interface_name": "*",
        "expected_ips": [IPv4Address("198.51.100.10"), IPv6Address("fd00::1")],
        "profiles": ["a", "b"],
        "ports": [{"name": "http", "protocol": 6, "port": 80}, {"name": "dns", "protocol": 17, "port": 53}],
    }
    assert workload.key == "WorkloadEndpoint/shop/web"
    assert workload.spec.ip_networks == [ip_network("10.65.0.2/32"), ip_network("fd00::2/128")]
    assert workload.spec.allow_spoofed_source_prefixes == [ip_network("10.0.0.0/8")]
    [port] = workload.spec.ports
    assert port.model_dump() == {"name": "", "protocol": 6, "port": 80, "host_port": 8080, "host_ip": ""}


def test_sets_profiles_and_tiers() -> None:
    resources = load_text(
        """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: a}
spec: {nets: [10.0.0.1/8, 10.1.2.3, 10.0.0.0/8]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: a, namespace: shop}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: a}
spec: {ingress: [{action: Pass}], labelsToApply: {x: y}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {defaultAction: Deny}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, spec: {order: 1.5, defaultAction: Pass}}
"""
    )
    everywhere, here, profile, default, tier = resources
    assert isinstance(everywhere, GlobalNetworkSet)
    assert everywhere.spec.nets == [ip_network("10.0.0.0/8"), ip_network("10.1.2.3/32")]
    assert isinstance(here, NetworkSet)
    assert (here.key, here.spec.nets) == ("NetworkSet/shop/a", [])
    assert isinstance(profile, Profile)
    assert ([rule.action for rule in profile.spec.ingress], profile.spec.labels_to_apply) == (
        ["Pass"],
        {"x": "y"},
    )
    assert isinstance(default, Tier)
    assert default.spec.model_dump() == {"order": None, "default_action": "Deny"}
    assert isinstance(tier, Tier)
    assert tier.spec.model_dump() == {"order": 1.5, "default_action": "Pass"}


def test_kubernetes_policy() -> None:
    policy = one(
        """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: a, operator: In, values: [b]}]}
  ingress:
  - from:
    - podSelector: {}
      namespaceSelector:
    - ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}
    ports: [{port: 80, endPort: 90}, {port: http, protocol: UDP}, {}, {port: "8080"}]
  - {}
"""
    )
    assert isinstance(policy, KubernetesNetworkPolicy)
    assert (policy.key, policy.kind) == ("KubernetesNetworkPolicy/shop/web", "NetworkPolicy")
    everyone: dict[str, Any] = {"match_labels": {}, "match_expressions": []}
    assert policy.spec.model_dump() == {
        "pod_selector": {
            "match_labels": {"app": "web"},
            "match_expressions": [{"key": "a", "operator": "In", "values": ["b"]}],
        },
        "policy_types": None,
        "egress": [],
        "ingress": [
            {
                "from_": [
                    {"pod_selector": everyone, "namespace_selector": None, "ip_block": None},
                    {
                        "pod_selector": None,
                        "namespace_selector": None,
                        "ip_block": {
                            "cidr": ip_network("10.0.0.0/8"),
                            "except_": [ip_network("10.1.0.0/16")],
                        },
                    },
                ],
                "ports": [
                    {"protocol": None, "port": 80, "end_port": 90},
                    {"protocol": "UDP", "port": "http", "end_port": None},
                    {"protocol": None, "port": None, "end_port": None},
                    {"protocol": None, "port": 8080, "end_port": None},
                ],
            },
            {"from_": None, "ports": None},
        ],
    }


def test_core_resources_are_read_loosely() -> None:
    pod, namespace = load_text(
        """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, creationTimestamp: null, labels: {app: web}, unheard: of}
spec:
  nodeName: edge1
  serviceAccountName: default
  containers: [{name: x, image: y, ports: [{containerPort: 80, name: http}]}]
  initContainers: [{ports: [{containerPort: 81, protocol: UDP, hostPort: 82}]}]
  volumes: [{}]
status: {phase: Running, podIP: "", podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}], conditions: []}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {env: prod}}
spec: {finalizers: [kubernetes]}
"""
    )
    assert isinstance(pod, Pod)
    assert pod.spec.model_dump() == {
        "node_name": "edge1",
        "service_account_name": "default",
        "host_network": False,
        "containers": [
            {"ports": [{"name": "http", "container_port": 80, "host_port": 0, "protocol": "TCP"}]}
        ],
        "init_containers": [
            {"ports": [{"name": "", "container_port": 81, "host_port": 82, "protocol": "UDP"}]}
        ],
    }
    assert pod.status.model_dump() == {
        "phase": "Running",
        "pod_ip": None,
        "pod_ips": [{"ip": IPv4Address("10.0.0.1")}, {"ip": IPv6Address("fd00::1")}],
    }
    assert (namespace.key, namespace.metadata.labels) == ("Namespace/shop", {"env": "prod"})


def test_felix_configuration() -> None:
    felix = one(
        """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.edge1}
spec:
  defaultEndpointToHostAction: ACCEPT
  chainInsertMode: append
  iptablesFilterDenyAction: ""
  failsafeInboundHostPorts: [{protocol: TCP, port: 22, net: 10.0.0.0/8}, {port: 68, protocol: udp, net: ""}]
  failsafeOutboundHostPorts: []
  vxlanPort: 4790
  allowVXLANPacketsFromWorkloads: true
  bpfEnabled: false
  xdpEnabled: true
  logSeverityScreen: Info
"""
    )
    assert isinstance(felix, FelixConfiguration)
    given_values = {name: value for name, value in felix.spec.model_dump().items() if value is not None}
    assert given_values == {
        "default_endpoint_to_host_action": "Accept",
        "chain_insert_mode": "Append",
        "failsafe_inbound_host_ports": [
            {"protocol": 6, "port": 22, "net": ip_network("10.0.0.0/8")},
            {"protocol": 17, "port": 68, "net": None},
        ],
        "failsafe_outbound_host_ports": [],
        "vxlan_port": 4790,
        "allow_vxlan_packets_from_workloads": True,
        "bpfEnabled": False,
        "xdpEnabled": True,
        "logSeverityScreen": "Info",
    }
    assert felix.notices == (
        "<text>:2: FelixConfiguration/node.edge1: fields without effect here: logSeverityScreen, xdpEnabled",
    )


@pytest.mark.parametrize(
    ("name", "field", "notice"),
    [
        (
            "edge1",
            "chainInsertMode",
            "without effect: found the name `edge1`, expected `default` or `node.NAME`",
        ),
        (
            "default",
            "DefaultEndpointToHostAction",
            "fields without effect here: DefaultEndpointToHostAction "
            "(did you mean `defaultEndpointToHostAction`?)",
        ),
        ("default", "vxlanMTU", "fields without effect here: vxlanMTU"),
    ],
)
def test_a_felix_configuration_without_effect_says_so(name: str, field: str, notice: str) -> None:
    head = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\n"
    felix = one(f"{head}metadata: {{name: {name}}}\nspec: {{{field}: Append}}")
    assert isinstance(felix, FelixConfiguration)
    assert [text.partition(f"/{name}: ")[2] for text in felix.notices] == [notice]


# --- what is accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TCP", 6),
        ("UDP", 17),
        ("ICMP", 1),
        ("ICMPv6", 58),
        ("SCTP", 132),
        ("UDPLite", 136),
        ('"6"', 6),
        ("255", 255),
    ],
)
def test_protocols(text: str, number: int) -> None:
    """V-12, V-13."""
    assert rule(f"{{action: Allow, protocol: {text}}}").protocol == number


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("1", PortRange(1, 1)),
        ('"65535"', PortRange(65535, 65535)),
        ("80:90", PortRange(80, 90)),
        # Not a number of base 60.
        ("22:53", PortRange(22, 53)),
        ("a1", "a1"),
        ("1-a", "1-a"),
        ("010", PortRange(8, 8)),
    ],
)
def test_ports(text: str, port: object) -> None:
    """V-17..V-20."""
    assert rule(f"{{action: Allow, protocol: TCP, source: {{ports: [{text}]}}}}").source.ports == [port]


def test_named_ports_need_no_protocol() -> None:
    """V-16."""
    assert rule("{action: Allow, destination: {ports: [http], notPorts: [dns]}}").protocol is None


def test_types_may_omit_a_direction_with_rules() -> None:
    """V-45."""
    spec = one(gnp("{types: [Ingress], egress: [{action: Allow}]}")).spec
    assert (spec.types, len(spec.egress)) == (["Ingress"], 1)


@pytest.mark.parametrize(
    "text",
    [
        "{action: Allow, source: {nets: [0.0.0.0/0]}}",
        "{action: Allow, source: {nets: [10.0.0.0/8, 10.0.0.0/8]}}",
        "{action: Allow, source: {namespaceSelector: ' global() '}}",
        "{action: Allow, source: {notSelector: has(a)}, destination: {serviceAccounts: {}}}",
        "{action: Allow, ipVersion: 6, protocol: 58, icmp: {type: 128}}",
        "{action: Allow, ipVersion: 6, source: {notNets: ['fd00::/8']}}",
        "{action: Log}",
    ],
)
def test_accepted_rules(text: str) -> None:
    assert rule(text).action in ("Allow", "Log")


# --- YAML and JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("Off", False), ("y", "y"), ("N", "N"), ("TRUE", True), ("yEs", "yEs"),
        ("~", None), ("", None), ("Null", None), ("nULL", "nULL"),
        ("0", 0), ("-12", -12), ("+12", 12), ("1_000", 1000), ("017", 15), ("0o17", 15), ("0x1F", 31),
        ("0b11", 3),
        ("08", 8), ("1.5", 1.5), ("443.0", 443), ("1e3", 1000), (".5", 0.5), ("-.inf", float("-inf")),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("2001-12-14", "2001-12-14"), ("1.2.3", "1.2.3"),
        ("10.0.0.0/8", "10.0.0.0/8"), ("'12'", "12"), ('"yes"', "yes"), ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("=", "="), ("-", [None]), ("a-b", "a-b"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_kubernetes_tools_do(text: str, value: object) -> None:
    [document] = documents(f"x: {text}\n" if text != "-" else "x:\n-\n")
    assert (document.data, document.problems) == ({"x": value}, [])


TIER = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: outer}\n"


@pytest.mark.parametrize(
    "content",
    [
        TIER.encode(),
        b"\xef\xbb\xbf" + TIER.encode(),
        TIER.replace("\n", "\r\n").encode(),
        b"---\n---\n# nothing\n---\n" + TIER.encode() + b"---\n...\n---\n",
        json.dumps(yaml.safe_load(TIER)).encode(),
        b"\n " + json.dumps(yaml.safe_load(TIER), indent="\t").encode(),
        b"{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: outer}}",
        b"x: &x {name: outer}\n".replace(b"x: &x", b"metadata: &x") + TIER[: TIER.index("metadata")].encode(),
        b"metadata:\n  <<: [{name: other}, {namespace: null}]\n  name: outer\n"
        + TIER[: TIER.index("metadata")].encode(),
    ],
)
def test_forms_of_the_same_document(content: bytes) -> None:
    [tier] = load_text(content)
    assert tier == one(TIER)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"# only a comment\n", b"---\n", b"\xef\xbb\xbf", b"--- ~\n"]
)
def test_empty_files(content: bytes) -> None:
    assert load_text(content) == []


@pytest.mark.parametrize("file", ["a.yaml", "a.json"])
def test_half_a_character_is_none(file: str) -> None:
    """JSON may escape one by halves; what has one half only can be neither sent nor kept."""
    tier = yaml.safe_load(TIER)
    whole, half = (
        {**tier, "metadata": {**tier["metadata"], "annotations": {"a": text}}} for text in "\U0001f600\ud83d"
    )
    (resource,) = load_text(json.dumps(whole), file)
    assert resource.metadata.annotations == {"a": "\U0001f600"}
    assert [(code, line) for code, line, *_ in problems(json.dumps(half), file)] == [
        ("syntax-json" if file == "a.json" else "syntax", 1)
    ]


def test_several_json_values_in_one_text() -> None:
    text = json.dumps(yaml.safe_load(TIER))
    other = text.replace("outer", "in\\u006eer\\ud83d\\ude00".removesuffix("\\ud83d\\ude00"))
    assert [resource.location for resource in load_text(f"{text}\n  {other}", "a.json")] == [
        Location("a.json", 1, 1, 0),
        Location("a.json", 2, 3, 1),
    ]


def test_null_is_absent() -> None:
    assert one(gnp("{selector: null, order: ~, ingress: }")) == one(gnp("{}"))
    assert [code for code, *_ in problems(gnp("{selectr: null}"))] == ["field-unknown"]


def test_aliases_and_merges() -> None:
    text = gnp(
        """
  egress: &rules
  - &allow {action: Allow, protocol: TCP}
  - {<<: *allow, action: Deny}
  ingress: *rules
"""
    )
    spec = one(text).spec
    assert spec.ingress == spec.egress
    assert [(rule.action, rule.protocol) for rule in spec.ingress] == [("Allow", 6), ("Deny", 6)]


# --- places ----------------------------------------------------------------------------------------------


def test_lists_are_unrolled() -> None:
    items = [yaml.safe_load(TIER), yaml.safe_load(TIER.replace("outer", "inner"))]
    untyped = [{"metadata": item["metadata"]} for item in items]
    plain = load_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    typed = {"apiVersion": "projectcalico.org/v3", "kind": "TierList", "metadata": {}, "items": untyped}
    assert plain == load_text(json.dumps(typed)) == load_text("---\n".join(map(yaml.safe_dump, items)))
    assert [resource.location for resource in plain] == [
        Location("<text>", 3, 3, 0),
        Location("<text>", 7, 3, 0),
    ]


def test_places_in_lists_and_json() -> None:
    items = [
        yaml.safe_load(TIER),
        yaml.safe_load(gnp("{ingress: [{action: Allow}, {action: Never, prots: 1}]}")),
    ]
    data = {"apiVersion": "v1", "kind": "List", "items": items}
    text = json.dumps(data, indent=1)
    lines = text.splitlines()
    action = next(number for number, line in enumerate(lines, 1) if '"Never"' in line)
    wanted = [
        ("action", action, lines[action - 1].index('"Never"') + 1, "items[1].spec.ingress[1].action"),
        ("field-unknown", action + 1, lines[action].index('"prots"') + 1, "items[1].spec.ingress[1].prots"),
    ]
    assert problems(text, "a.json") == wanted
    # The same text read as YAML has the same places.
    assert problems("# no JSON\n" + text) == [
        (code, line + 1, column, path) for code, line, column, path in wanted
    ]


def test_items_of_json_have_their_places() -> None:
    items = [json.dumps(yaml.safe_load(TIER.replace("outer", name))) for name in ("a", "b", "c")]
    bare = f"[{items[0]}, {items[1]},\n\n  {items[2]} ]"
    # Neither what stands before the items nor its length is in the way.
    metadata = f'{{"items": ["]", {"9" * 5000}, null]}}'
    above = f'{{"kind": "List",\n "metadata": {metadata}, "apiVersion": "v1", "items":\n'
    for text, line, column in ((bare, 1, 2), (f"\n {above}{bare}}}", 4, 2)):
        wanted = [(line, column), (line, column + len(items[0]) + 2), (line + 2, 3)]
        assert [(at.line, at.column) for at in places_of(load_text(text, "a.json"))] == wanted
        as_yaml = load_text("# no JSON\n" + text)
        assert [(at.line - 1, at.column) for at in places_of(as_yaml)] == wanted


def places_of(resources: list[Any]) -> list[Location]:
    return [resource.location for resource in resources]


def test_a_bare_list_is_read_as_calicoctl_does() -> None:
    other = TIER.replace("outer", "inner")
    text = "".join("- " + tier.replace("\n", "\n  ").removesuffix("  ") for tier in (TIER, other))
    resources = load_text(text)
    assert resources == load_text(f"{TIER}---\n{other}")
    assert places_of(resources) == [Location("<text>", 1, 3, 0), Location("<text>", 4, 3, 0)]
    assert problems(text + "  spec: {order: ten}\n") == [("wrong-type", 7, 17, "[1].spec.order")]
    assert problems("[]") == [("not-a-resource", 1, 1, "")]


def test_a_list_whose_items_are_null_is_empty() -> None:
    """As Go writes one."""
    assert load_text("apiVersion: v1\nkind: List\nitems: null\n") == []
    assert load_text('{"apiVersion": "v1", "kind": "List", "items": null}', "a.json") == []


@pytest.mark.parametrize("version", [["v1"], {"v1": 1}, 1])
def test_a_list_whose_version_is_no_text_is_refused(version: object) -> None:
    for kind in ("List", "TierList"):
        text = json.dumps({"apiVersion": version, "kind": kind, "items": []})
        assert problems(text)[0][::3] == ("api-version", "apiVersion")


def test_text_that_ends_too_early_ends_on_its_last_line() -> None:
    assert problems("kind: Tier\nspec: {order: 1") == [("syntax", 2, 16, "")]
    assert problems("kind: Tier\nspec: {order: 1\n") == [("syntax", 3, 1, "")]


def test_documents_are_summed_up() -> None:
    loading = Loading()
    loading.add(TIER + "---\nkind: [odd]\nmetadata: {name: 1}\n---\n" + gnp("{order: x}"), "a.yaml")
    loading.add(TIER, "b.yaml")
    assert loading.documents == [
        Summary(0, "a.yaml", 1, "Tier", None, "outer"),
        Summary(1, "a.yaml", 5, None, None, None),
        Summary(2, "a.yaml", 8, "GlobalNetworkPolicy", None, "edge"),
        Summary(3, "b.yaml", 1, "Tier", None, "outer"),
    ]
    assert [(problem.index, problem.code) for problem in loading.problems] == [
        (1, "field-missing"),
        (2, "wrong-type"),
        (3, "resource-duplicate"),
    ]
    assert [resource.key for resource in loading.resources] == ["Tier/outer"]


def test_findings_that_rest_on_refused_fields_are_left_out() -> None:
    """A misspelled `protocol` is one problem, not also one of ports without a protocol."""
    ports = "destination: {ports: [80]}"
    assert problems(gnp(f"{{ingress: [{{action: Allow, protocol: tcp, {ports}}}]}}")) == [
        ("protocol-name", 4, 44, "spec.ingress[0].protocol")
    ]
    assert problems(gnp(f"{{ingress: [{{action: Allow, protocl: TCP, {ports}}}]}}")) == [
        ("field-unknown", 4, 34, "spec.ingress[0].protocl")
    ]
    assert [code for code, *_ in problems(gnp("{doNotTrack: true, applyOnForward: 'true'}"))] == [
        "wrong-type"
    ]


def test_a_refused_field_hides_no_other_problem() -> None:
    text = gnp("{ingress: [{action: allow, ipVersion: 4, protocol: ICMPv6}], doNotTrack: true}")
    assert [code for code, *_ in problems(text)] == ["action", "icmp-version", "forward-needed"]
    host = gnp("{ports: [{}]}").replace("GlobalNetworkPolicy", "HostEndpoint")
    host = host.replace("{name: edge}", "{name: A, namespace: b}")
    assert sorted(code for code, *_ in problems(host)) == [
        "endpoint-interface", "endpoint-node", *["endpoint-port-missing"] * 3, "name",
        "namespace-refused",
    ]  # fmt: skip


# --- robustness and speed --------------------------------------------------------------------------------

CORPUS = [
    path.read_bytes()
    for path in sorted(GOLDEN.iterdir())
    if path.suffix != ".txt" and path.stat().st_size < 2000
]


@settings(
    max_examples=400,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine
)
@given(
    st.sampled_from(CORPUS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=4),
)
def test_broken_documents_are_refused_and_nothing_else(
    content: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    for where, cut, new in edits:
        at = int(where * len(content))
        content = content[:at] + new + content[at + cut :]
    for file in ("a.yaml", "a.json"):
        with contextlib.suppress(LoadError):
            load_text(content, file)


@pytest.mark.parametrize("opening", [b"[", b"{a: ", b'{"a": ', b"- ", b"? "])
@pytest.mark.parametrize("file", ["a.yaml", "a.json"])
def test_deep_nesting_ends_in_an_error(opening: bytes, file: str) -> None:
    codes = {code for code, *_ in problems(opening * 50_000, file)}
    assert codes <= {"nesting", "syntax", "syntax-json"}


@pytest.mark.parametrize("quotes", ["", '"'])
@pytest.mark.parametrize("file", ["a.yaml", "a.json"])
def test_absurdly_long_numbers_are_out_of_range(quotes: str, file: str) -> None:
    policy = yaml.safe_load(gnp("{ingress: [{action: Allow, protocol: 6, source: {ports: [here]}}]}"))
    number = f"{quotes}{'9' * 50_000}{quotes}"
    text = json.dumps(policy).replace('"here"', number).replace(" 6", f" {number}")
    assert [code for code, *_ in problems(text, file)] == ["protocol-number", "port-range"]


def test_the_cost_of_an_endpoint_does_not_grow_with_their_number() -> None:
    """In processor time, and as a ratio: no machine is too slow or too busy for it."""
    workload = """apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: web-{0}, namespace: shop, labels: {{app: web, tier: front, version: v{0}}}}}
spec:
  node: edge1
  ipNetworks: [10.65.{1}.{2}/32]
  profiles: [kns.shop]
  interfaceName: cali{0}
"""

    def seconds(number: int) -> float:
        text = "---\n".join(workload.format(n, n >> 8, n & 255) for n in range(number))
        start = time.process_time()
        assert len(load_text(text)) == number
        return time.process_time() - start

    assert seconds(10_000) < 3 * 10 * seconds(1_000)


def test_a_document_of_ten_megabytes() -> None:
    head = (
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: many}\nspec:\n  nets:\n"
    )
    nets = [f"2001:0db8:0000:0000:0000:0000:{n >> 16:04x}:{n & 0xFFFF:04x}/128" for n in range(220_000)]
    text = head + "".join(f"  - {net}\n" for net in nets)
    assert len(text) > 10_000_000
    [found] = load_text(text)
    assert (len(found.spec.nets), str(found.spec.nets[-1])) == (220_000, "2001:db8::3:5b5f/128")


def parts(model: type[Part]) -> Iterator[type[Part]]:
    """A model and all that its documents may hold."""
    yield model
    for alias in field_names(model):
        if (inner := part_of(model, alias)) is not None and inner is not model:
            yield from parts(inner)


def test_defaults_are_in_order() -> None:
    """`all_findings` does not look into them."""
    models = {one for model in (*resource_types(), PolicyTest) for one in parts(model)}
    defaults = [
        field.get_default(call_default_factory=True)
        for model in models
        for field in model.model_fields.values()
        if not field.is_required()
    ]
    several = [one for one in defaults if isinstance(one, Part)]
    assert len(several) > 8
    assert not [found for one in several for found in all_findings(one)]
    assert not [one for one in defaults if isinstance(one, list) and one]


def test_models_are_those_of_their_kinds() -> None:
    """Which one a document is read with is known before any is imported."""
    for version, kind in KINDS:
        model = model_of(version, kind)
        assert model is not None
        assert (version in (model.version, STORED), model.kind_name) == (True, kind)
    for model in resource_types():
        assert [*Snapshot.of([model.model_construct(metadata=Metadata(name="one"))]).resources()]
    assert model_of("v1", "PolicyTest") is None


def test_copies_stand_where_their_original_does() -> None:
    """However they are made: also for a process of its own."""
    _, resource = load_text(f"{TIER}---\n{TIER.replace('outer', 'inner')}", "tiers.yaml")
    assert (resource.location.file, resource.location.line) == ("tiers.yaml", 5)
    copies = (
        copy(resource),
        deepcopy(resource),
        resource.model_copy(),
        resource.model_copy(deep=True),
        pickle.loads(pickle.dumps(resource)),
    )
    assert [(one, one.location) for one in copies] == [(resource, resource.location)] * len(copies)
