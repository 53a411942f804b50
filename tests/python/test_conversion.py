"""Kubernetes' objects in Calico form: K-1..K-16 and R-21..R-32, as the model of the core has them."""

from __future__ import annotations

import doctest
from itertools import product
from typing import Any

import pytest
from labelgate import conversion
from labelgate.flow import Answer, CtState, Hook, Packet, read_address
from labelgate.reference import Reference
from labelgate.resources import load_text
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable

K8S = "projectcalico.org/orchestrator == 'k8s'"
TCP, UDP, SCTP = 6, 17, 132


def one(text: str) -> Any:
    [resource] = load_text(text)
    return resource


def kubernetes_policy(spec: str, name: str = "p", namespace: str = "shop") -> str:
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
"""


def converted(spec: str) -> dict[str, Any]:
    return conversion.kubernetes_policy(one(kubernetes_policy(spec)))


def ingress(rule: str) -> list[dict[str, Any]]:
    found = converted(f"podSelector: {{}}, ingress: [{rule}]")
    assert (found["applies_ingress"], found["applies_egress"], found["egress"]) == (True, False, [])
    rules: list[dict[str, Any]] = found["ingress"]
    return rules


def allow(protocol: int | None = None, **sides: dict[str, Any]) -> dict[str, Any]:
    return {"action": "Allow", "protocol": protocol, **{"destination": {}, **sides}}


# --- policies --------------------------------------------------------------------------------------------


def test_policy_as_a_whole() -> None:
    """K-1: kind, tier, order; all rules allow."""
    assert converted(
        "podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress],"
        "ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 443}]}],"
        "egress: [{to: [{ipBlock: {cidr: 10.9.1.7/16, except: [10.9.66.0/24]}}],"
        " ports: [{protocol: UDP, port: 53}]}]"
    ) == {
        "kind": "KubernetesNetworkPolicy",
        "namespace": "shop",
        "name": "p",
        "tier": "default",
        "order": 1000.0,
        "selector": f"{K8S} && app == 'web'",
        "applies_ingress": True,
        "applies_egress": True,
        "ingress": [
            {
                "action": "Allow",
                "protocol": TCP,
                "source": {"selector": f"{K8S} && app == 'db'", "namespace_selector": ""},
                "destination": {"ports": [[443, 443]], "named_ports": []},
            }
        ],
        "egress": [
            {
                "action": "Allow",
                "protocol": UDP,
                "destination": {
                    "nets": ["10.9.0.0/16"],
                    "not_nets": ["10.9.66.0/24"],
                    "ports": [[53, 53]],
                    "named_ports": [],
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("selector", "terms"),
    [
        ("{}", []),
        ("{matchLabels: {b: '2', a: '1', x.io/c: ''}}", ["a == '1'", "b == '2'", "x.io/c == ''"]),
        (
            "{matchExpressions: [{key: z, operator: In, values: [b, a]},"
            " {key: y, operator: NotIn, values: [c]}]}",
            ["z in { 'b', 'a' }", "y not in { 'c' }"],
        ),
        (
            "{matchExpressions: [{key: b, operator: Exists}, {key: a, operator: DoesNotExist}],"
            " matchLabels: {q: r}}",
            ["q == 'r'", "has(b)", "! has(a)"],
        ),
    ],
)
def test_selectors(selector: str, terms: list[str]) -> None:
    """K-2: pairs by key, then expressions as given. K-4: for namespaces without the orchestrator term."""
    both = one(
        kubernetes_policy(
            f"podSelector: {selector}, ingress: [{{from: [{{namespaceSelector: {selector}}}]}}]"
        )
    )
    pods = conversion.pod_selector(both.spec.pod_selector)
    namespaces = conversion.namespace_selector(both.spec.ingress[0].from_[0].namespace_selector)
    assert (pods, namespaces) == (" && ".join([K8S, *terms]), " && ".join(terms) or "all()")


@pytest.mark.parametrize(
    ("text", "expected"), [("web", "'web'"), ("", "''"), ("it's", '"it\'s"'), ('"', "'\"'")]
)
def test_quotes(text: str, expected: str) -> None:
    """S-6."""
    assert conversion.quoted(text) == expected


def test_both_quotes_are_refused() -> None:
    """S-6: no string of the selector language can hold them."""
    with pytest.raises(ValueError, match="both kinds of quotes"):
        conversion.quoted("'\"")


@pytest.mark.parametrize(
    ("peer", "selector", "namespace_selector"),
    [
        ("podSelector: {}", K8S, ""),
        ("podSelector: {matchLabels: {a: b}}", f"{K8S} && a == 'b'", ""),
        ("namespaceSelector: {}", K8S, "all()"),
        ("namespaceSelector: {matchLabels: {n: m}}", K8S, "n == 'm'"),
        (
            "podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {n: m}}",
            f"{K8S} && a == 'b'",
            "n == 'm'",
        ),
    ],
)
def test_peers(peer: str, selector: str, namespace_selector: str) -> None:
    """K-4, K-5."""
    entity = {"selector": selector, "namespace_selector": namespace_selector}
    assert ingress(f"{{from: [{{{peer}}}]}}") == [allow(source=entity)]


@pytest.mark.parametrize(
    ("block", "nets", "not_nets"),
    [
        ("cidr: 10.0.0.0/8", ["10.0.0.0/8"], []),
        (
            "cidr: 10.1.2.3/8, except: [10.1.0.0/16, 10.2.9.9/16]",
            ["10.0.0.0/8"],
            ["10.1.0.0/16", "10.2.0.0/16"],
        ),
        ("cidr: 'FD00::1/8', except: ['fd00::/64']", ["fd00::/8"], ["fd00::/64"]),
    ],
)
def test_blocks(block: str, nets: list[str], not_nets: list[str]) -> None:
    """K-5: networks, host bits masked away. K-12: what cannot be read never comes so far."""
    assert ingress(f"{{from: [{{ipBlock: {{{block}}}}}]}}") == [
        allow(source={"nets": nets, "not_nets": not_nets})
    ]


def test_one_rule_per_protocol_and_peer() -> None:
    """K-6: protocols by name, then peers in the given order."""
    rules = ingress(
        "{ports: [{protocol: UDP, port: 53}, {port: 80}, {protocol: SCTP, port: 9},"
        " {protocol: UDP, port: 54}], from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 10.0.0.0/8}}]}"
    )
    assert [(rule["protocol"], rule["source"]["nets"], rule["destination"]["ports"]) for rule in rules] == [
        (SCTP, ["192.0.2.0/24"], [[9, 9]]),
        (SCTP, ["10.0.0.0/8"], [[9, 9]]),
        (TCP, ["192.0.2.0/24"], [[80, 80]]),
        (TCP, ["10.0.0.0/8"], [[80, 80]]),
        (UDP, ["192.0.2.0/24"], [[53, 54]]),
        (UDP, ["10.0.0.0/8"], [[53, 54]]),
    ]


@pytest.mark.parametrize("rule", ["{}", "{from: []}", "{ports: []}", "{from: [], ports: []}"])
def test_nothing_listed_is_everything(rule: str) -> None:
    """K-7: everyone, pods or not; all protocols."""
    assert ingress(rule) == [allow(source={})]


PORTS = [
    ("{port: 80}", {TCP: ([[80, 80]], [])}),
    ("{port: '80'}", {TCP: ([[80, 80]], [])}),  # K-9: digits are a number
    ("{port: http}", {TCP: ([], ["http"])}),
    ("{port: 80, endPort: 90}", {TCP: ([[80, 90]], [])}),
    ("{port: 80}, {port: 82}, {port: 81}", {TCP: ([[80, 82]], [])}),
    ("{port: 80, endPort: 90}, {port: 85, endPort: 95}, {port: 97}", {TCP: ([[80, 95], [97, 97]], [])}),
    ("{port: 1, endPort: 65535}, {port: 9}", {TCP: ([[1, 65535]], [])}),
    ("{port: b}, {port: 7}, {port: a}, {port: b}", {TCP: ([[7, 7]], ["b", "a"])}),
    ("{protocol: UDP, port: 80}, {port: 81}", {TCP: ([[81, 81]], []), UDP: ([[80, 80]], [])}),
    ("{}", {TCP: None}),  # K-8: all TCP, not everything
    ("{protocol: SCTP}", {SCTP: None}),
    ("{port: 80}, {}, {port: http}", {TCP: None}),  # K-8: swallows
    ("{protocol: UDP}, {port: 80}, {protocol: UDP, port: 53}", {TCP: ([[80, 80]], []), UDP: None}),
]


@pytest.mark.parametrize(("ports", "groups"), PORTS)
def test_ports(ports: str, groups: dict[int, tuple[list[list[int]], list[str]] | None]) -> None:
    """K-8, K-9."""
    expected = [
        allow(
            protocol,
            source={},
            destination={} if group is None else {"ports": group[0], "named_ports": group[1]},
        )
        for protocol, group in groups.items()
    ]
    assert ingress(f"{{ports: [{ports}]}}") == expected


def test_ports_are_those_of_the_destination() -> None:
    """K-10: in both directions, beside the peer of an egress rule."""
    rule = "ports: [{port: 80}]"
    peer = "[{ipBlock: {cidr: 10.0.0.0/8}}]"
    found = converted(
        f"podSelector: {{}}, ingress: [{{from: {peer}, {rule}}}], egress: [{{to: {peer}, {rule}}}]"
    )
    nets: dict[str, Any] = {"nets": ["10.0.0.0/8"], "not_nets": []}
    ports: dict[str, Any] = {"ports": [[80, 80]], "named_ports": []}
    assert found["ingress"] == [allow(TCP, source=nets, destination=ports)]
    assert found["egress"] == [allow(TCP, destination=nets | ports)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", (True, False)),
        ("policyTypes: []", (True, False)),
        ("ingress: [{}]", (True, False)),
        ("egress: [{}]", (True, True)),
        ("policyTypes: [], egress: [{}]", (True, True)),
        ("policyTypes: [Ingress], egress: [{}]", (True, False)),
        ("policyTypes: [Egress]", (False, True)),
        ("policyTypes: [Egress], ingress: [{}]", (False, True)),
        ("policyTypes: [Egress, Ingress]", (True, True)),
    ],
)
def test_types(spec: str, expected: tuple[bool, bool]) -> None:
    """K-13: as listed, else as the Kubernetes API fills them in."""
    found = converted(f"podSelector: {{}}, {spec}")
    assert (found["applies_ingress"], found["applies_egress"]) == expected


# --- pods, namespaces, service accounts ------------------------------------------------------------------


def pod(spec: str = "nodeName: edge1", status: str = "podIPs: [{ip: 10.65.0.2}]", labels: str = "{}") -> Any:
    return one(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop, labels: {labels}}}\n"
        f"spec: {{{spec}}}\nstatus: {{{status}}}"
    )


def test_pod_as_a_whole() -> None:
    """R-21..R-23, R-31, R-32."""
    found = conversion.pod_workload(
        pod(
            "nodeName: edge1, serviceAccountName: front,"
            "containers: [{name: a, ports: [{name: https, containerPort: 443}, {containerPort: 9}]}],"
            "initContainers: [{name: b, ports: [{name: dns, containerPort: 53, protocol: UDP}]}]",
            "phase: Running, podIP: 10.65.0.2, podIPs: [{ip: 10.65.0.2}, {ip: 'FD00:65::2'}]",
            "{app: web, pcns.env: prod, pcsa.role: admin, pcnsx: kept}",
        ),
        "cali",
    )
    assert found == {
        "name": "Pod/shop/web",
        "node": "edge1",
        "interface": "cali551b05c3e54",
        "networks": ["10.65.0.2/32", "fd00:65::2/128"],
        "labels": {
            "app": "web",
            "pcnsx": "kept",
            "projectcalico.org/namespace": "shop",
            "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": "front",
        },
        "profiles": ["kns.shop", "ksa.shop.front"],
        "ports": [
            {"name": "https", "protocol": TCP, "port": 443},
            {"name": "dns", "protocol": UDP, "port": 53},
        ],
    }


def test_pod_without_service_account() -> None:
    """R-21, R-23."""
    found = conversion.pod_workload(pod(), "cali")
    assert found["profiles"] == ["kns.shop"]
    assert "projectcalico.org/serviceaccount" not in found["labels"]


def test_forged_labels() -> None:
    """R-21: the namespace is the pod's, whatever its labels say. R-22: inherited labels cannot be written."""
    labels = conversion.workload_labels(
        {"projectcalico.org/namespace": "other", "pcns.a": "b", "pcsa.a": "b", "a": "b"}, "shop", "", ""
    )
    assert labels == {"projectcalico.org/namespace": "shop", "a": "b"}


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ("nodeName: edge1", "podIPs: [{ip: 10.65.0.2}]", True),
        ("nodeName: edge1", "podIP: 10.65.0.2", True),
        ("nodeName: edge1", "phase: Pending, podIPs: [{ip: 10.65.0.2}]", True),
        ("nodeName: edge1", "phase: Unknown, podIPs: [{ip: 10.65.0.2}]", True),
        ("nodeName: edge1", "phase: Running", False),
        ("nodeName: edge1", "podIPs: [], podIP: ''", False),
        ("", "podIPs: [{ip: 10.65.0.2}]", False),
        ("nodeName: edge1, hostNetwork: true", "podIPs: [{ip: 198.51.100.10}]", False),
        ("nodeName: edge1, hostNetwork: false", "podIPs: [{ip: 10.65.0.2}]", True),
        ("nodeName: edge1", "phase: Succeeded, podIPs: [{ip: 10.65.0.2}]", False),
        ("nodeName: edge1", "phase: Failed, podIPs: [{ip: 10.65.0.2}]", False),
    ],
)
def test_which_pods_are_workloads(spec: str, status: str, expected: bool) -> None:
    """R-30."""
    assert conversion.is_workload(pod(spec, status)) is expected


@pytest.mark.parametrize(
    ("status", "networks"),
    [
        ("podIP: 10.65.0.2", ["10.65.0.2/32"]),
        ("podIP: 10.65.0.2, podIPs: [{ip: 10.65.0.3}]", ["10.65.0.3/32"]),
        ("podIPs: [{ip: 10.65.0.2}, {ip: 10.65.0.2}]", ["10.65.0.2/32"]),
    ],
)
def test_pod_addresses(status: str, networks: list[str]) -> None:
    assert conversion.pod_workload(pod(status=status), "cali")["networks"] == networks


@pytest.mark.parametrize(
    ("prefix", "namespace", "name", "expected"),
    [
        # printf 'shop.web' | sha1sum | cut -c1-11
        ("cali", "shop", "web", "cali551b05c3e54"),
        ("tap", "default", "a.b-0", "tap9c778d12a5f"),
    ],
)
def test_pod_interfaces(prefix: str, namespace: str, name: str, expected: str) -> None:
    """R-31."""
    assert conversion.pod_interface(prefix, namespace, name) == expected


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("{name: a, containerPort: 1}", [("a", TCP, 1)]),
        ("{name: a, containerPort: 1, protocol: ''}", [("a", TCP, 1)]),
        ("{name: a, containerPort: 1, protocol: SCTP, hostPort: 2}", [("a", SCTP, 1)]),
        ("{name: a, containerPort: 1, protocol: tcp}", []),
        ("{name: a, containerPort: 1, protocol: HTTP}", []),
        ("{containerPort: 1}", []),
        ("{containerPort: 1, hostPort: 2}", []),
    ],
)
def test_container_ports(port: str, expected: list[tuple[str, int, int]]) -> None:
    """R-32: nameless ports and those of unknown protocols are not seen."""
    found = conversion.pod_workload(pod(f"nodeName: n, containers: [{{name: c, ports: [{port}]}}]"), "cali")
    assert [(port["name"], port["protocol"], port["port"]) for port in found["ports"]] == expected


def test_namespace_profile() -> None:
    """R-24: the name is written last."""
    namespace = one(
        "apiVersion: v1\nkind: Namespace\n"
        "metadata: {name: shop, labels: {env: prod, projectcalico.org/name: forged}}"
    )
    assert conversion.namespace_profile(namespace) == {
        "name": "kns.shop",
        "labels": {"pcns.env": "prod", "pcns.projectcalico.org/name": "shop"},
        "ingress": [{"action": "Allow"}],
        "egress": [{"action": "Allow"}],
    }


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(conversion) == (0, 2)


def test_service_account_profile() -> None:
    """R-25: labels, no rules."""
    account = one(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: front, namespace: shop, labels: {role: ui}}"
    )
    assert conversion.service_account_profile(account) == {
        "name": "ksa.shop.front",
        "labels": {"pcsa.role": "ui", "pcsa.projectcalico.org/name": "front"},
    }


# --- compiled: what the conversion means, and the reference's own conversion beside it --------------------

CLUSTER = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab, labels: {env: test}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: front, namespace: shop, labels: {role: ui}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: edge1
  serviceAccountName: front
  containers:
  - name: c
    ports: [{name: https, containerPort: 443}, {name: dns, containerPort: 53, protocol: UDP}]
status: {podIPs: [{ip: 10.65.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db, level: gold}}
spec: {nodeName: edge1}
status: {podIPs: [{ip: 10.65.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: lab, labels: {app: web, pcns.env: prod}}
spec: {nodeName: edge2, serviceAccountName: missing}
status: {podIPs: [{ip: 10.66.0.2}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: office, namespace: shop, labels: {app: db}}
spec: {nets: [10.80.0.0/16]}
"""
WEB, DB = conversion.pod_interface("cali", "shop", "web"), conversion.pod_interface("cali", "shop", "db")
HOST = HostFacts({"eth0": ("198.51.100.10",), WEB: (), DB: ()})
SOURCES = ("10.65.0.3", "10.66.0.2", "10.80.0.1", "203.0.113.7", "10.65.0.2")
POLICIES = [
    "podSelector: {}",
    "podSelector: {}, ingress: [{}]",
    "podSelector: {}, policyTypes: [Egress]",
    "podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {}}], ports: [{port: 443}]}]",
    *(f"podSelector: {{}}, ingress: [{{ports: [{ports}]}}]" for ports, _ in PORTS),
    *(
        f"podSelector: {{matchExpressions: [{{key: app, operator: In, values: [web, db]}}]}},"
        f"ingress: [{{from: [{{{peer}}}],"
        " ports: [{port: https}, {protocol: UDP, port: 1, endPort: 99}]}]"
        for peer in (
            "podSelector: {}",
            "podSelector: {matchLabels: {app: db}}",
            "namespaceSelector: {}",
            "namespaceSelector: {matchLabels: {env: test}}",
            "namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}",
            "namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}",
            "namespaceSelector: {}, podSelector: {matchExpressions: [{key: level, operator: DoesNotExist}]}",
            "ipBlock: {cidr: 10.64.0.0/10, except: [10.65.0.0/24]}",
            "ipBlock: {cidr: 'fd00::/8'}",
        )
    ),
]


def packet(hook: Hook, src: str, dst: str, protocol: int, dport: int, ct: CtState = "new") -> Packet:
    in_ = {"10.65.0.2": WEB, "10.65.0.3": DB}.get(src, "eth0")
    out = {"10.65.0.2": WEB, "10.65.0.3": DB}.get(dst, "eth0")
    return Packet(
        hook=hook,
        src=read_address(src, "src"),
        dst=read_address(dst, "dst"),
        protocol=protocol,
        sport=40000,
        dport=dport,
        in_=None if hook == "filter-output" else in_,
        out=out,
        ct=ct,
    )


def engines(*policies: str) -> tuple[DecisionTable, Reference]:
    snapshot = Snapshot.of(load_text("\n---\n".join([CLUSTER, *policies])))
    table = snapshot.compile(node="edge1", host=HOST)
    return table, Reference(snapshot, "edge1", HOST, Settings())


@pytest.mark.parametrize("spec", POLICIES)
def test_table_and_reference_agree(spec: str) -> None:
    """K-2..K-14: the reference converts by itself; both must give the same steps."""
    table, reference = engines(kubernetes_policy(spec))
    flows = [(source, "10.65.0.2") for source in SOURCES] + [("10.65.0.2", target) for target in SOURCES]
    questions = [
        packet("filter-forward", src, dst, protocol, port)
        for (src, dst), protocol, port in product(flows, (TCP, UDP, SCTP), (53, 80, 82, 443))
    ]
    answers: list[tuple[Packet, Answer]] = [(question, table.answer(question)) for question in questions]
    assert answers == [(question, reference.answer(question)) for question in questions]


def test_default_deny_and_addition() -> None:
    """K-14, K-15: nothing is allowed by one policy, something by each of two more."""
    ports = [
        kubernetes_policy(f"podSelector: {{}}, ingress: [{{ports: [{{port: {n}}}]}}]", f"p{n}")
        for n in (80, 81)
    ]
    before = kubernetes_policy("podSelector: {}", "nothing")

    def verdicts(*policies: str) -> list[str]:
        table, _ = engines(*policies)
        asked = (packet("filter-forward", "203.0.113.7", "10.65.0.2", TCP, port) for port in (80, 81, 82))
        return [table.decide_packet(question).verdict for question in asked]

    assert verdicts() == ["allow", "allow", "allow"]
    assert verdicts(before) == ["deny", "deny", "deny"]
    assert verdicts(before, ports[0]) == ["allow", "deny", "deny"]
    assert verdicts(before, *ports) == ["allow", "allow", "deny"]


@pytest.mark.parametrize(("order", "verdict"), [("order: 999, ", "deny"), ("", "allow")])
def test_calico_policies_before_and_after(order: str, verdict: str) -> None:
    """K-15: order 1000 for Kubernetes' policies; one without order follows."""
    calico = (
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: c, namespace: shop}\n"
        f"spec: {{{order}ingress: [{{action: Deny}}]}}"
    )
    table, _ = engines(calico, kubernetes_policy("podSelector: {}, ingress: [{}]"))
    question = packet("filter-forward", "203.0.113.7", "10.65.0.2", TCP, 80)
    assert table.decide_packet(question).verdict == verdict


def test_replies_and_the_own_host_pass() -> None:
    """K-16."""
    table, _ = engines(kubernetes_policy("podSelector: {}, policyTypes: [Ingress, Egress]"))
    reply = packet("filter-forward", "203.0.113.7", "10.65.0.2", TCP, 80, "established")
    probe = packet("filter-output", "198.51.100.10", "10.65.0.2", TCP, 80)
    assert [table.decide_packet(question).verdict for question in (reply, probe)] == ["allow", "continue"]
