"""Snapshots, what they warn of, and the model that the core gets of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from labelgate.model import core_model
from labelgate.resources import LoadError, load_text
from labelgate.settings import Failsafe, Settings
from labelgate.snapshot import Snapshot, load

HEAD = "apiVersion: projectcalico.org/v3\nkind: "


def calico(kind: str, metadata: str, spec: str = "{}") -> str:
    return f"{HEAD}{kind}\nmetadata: {{{metadata}}}\nspec: {spec}\n"


def core(kind: str, metadata: str, rest: str = "") -> str:
    return f"apiVersion: v1\nkind: {kind}\nmetadata: {{{metadata}}}\n{rest}"


def pod(name: str, spec: str = "nodeName: edge2", status: str = "podIPs: [{ip: 10.65.0.9}]") -> str:
    return core("Pod", f"name: {name}, namespace: shop", f"spec: {{{spec}}}\nstatus: {{{status}}}\n")


def workload(name: str, spec: str) -> str:
    return calico("WorkloadEndpoint", f"name: {name}, namespace: shop", f"{{interfaceName: cali1, {spec}}}")


def snapshot_of(*documents: str) -> Snapshot:
    return Snapshot.of(load_text("---\n".join(documents)))


def model_of(*documents: str, settings: Settings | None = None) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(core_model(snapshot_of(*documents), settings or Settings()))
    return model


# --- one document of each kind, with every field that counts ----------------------------------------------

EVERY_KIND = [
    calico(
        "GlobalNetworkPolicy",
        "name: guard",
        """
  tier: security
  order: 10.5
  selector: role == 'edge'
  namespaceSelector: env == 'prod'
  serviceAccountSelector: has(x)
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - action: Allow
    ipVersion: 4
    protocol: TCP
    source:
      nets: [10.0.0.0/8]
      notNets: [10.9.0.0/16]
      selector: a == 'b'
      notSelector: c == 'd'
      namespaceSelector: global()
      ports: [80, "90:99", http]
      notPorts: [85, https]
    destination: {serviceAccounts: {names: [x, y], selector: role == 'ui'}}
  - {action: Deny, notProtocol: UDP}
  - {action: Log, protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 3}}
  - {action: Pass}
""",
    ),
    calico(
        "NetworkPolicy",
        "name: front, namespace: shop",
        "{selector: all(), serviceAccountSelector: role == 'ui', egress: [{action: Allow}]}",
    ),
    calico(
        "HostEndpoint",
        "name: out, labels: {role: edge}",
        "{node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10, 'fd00::A'], profiles: [p],"
        " ports: [{name: metrics, protocol: TCP, port: 9100}]}",
    ),
    calico(
        "WorkloadEndpoint",
        "name: vm, namespace: shop, labels: {app: vm, pcns.env: prod}",
        "{orchestrator: libvirt, node: edge1, serviceAccountName: front, interfaceName: cali1,"
        " ipNetworks: [10.65.0.2, 'fd00:65::2/128'], profiles: [p, q],"
        " allowSpoofedSourcePrefixes: [10.99.0.1/16],"
        " ports: [{name: dns, protocol: UDP, port: 53}, {protocol: TCP, port: 1, hostPort: 2}]}",
    ),
    calico("GlobalNetworkSet", "name: office, labels: {at: office}", "{nets: [203.0.113.7, 10.1.2.3/8]}"),
    calico("NetworkSet", "name: cdn, namespace: shop, labels: {at: cdn}", "{nets: ['fd00::1/64']}"),
    calico("Profile", "name: p", "{ingress: [{action: Allow}], labelsToApply: {level: gold}}"),
    calico("Tier", "name: security", "{order: 5, defaultAction: Pass}"),
    calico("FelixConfiguration", "name: default"),
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: shop}\nspec: {}\n",
    core("Namespace", "name: shop, labels: {env: prod}"),
    core("ServiceAccount", "name: front, namespace: shop, labels: {role: ui}"),
    pod("web"),
    calico("StagedGlobalNetworkPolicy", "name: s", "{stagedAction: Delete}"),
    calico("StagedNetworkPolicy", "name: s, namespace: shop", "{stagedAction: Delete}"),
    calico("StagedKubernetesNetworkPolicy", "name: s, namespace: shop", "{stagedAction: Delete}"),
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c}\n"
    "spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n",
    core("Service", "name: db, namespace: shop"),
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
    "metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}\n"
    "endpoints: [{addresses: [10.65.0.3]}]\nports: [{port: 5432}]\n",
]


def test_every_kind_has_its_place() -> None:
    snapshot = snapshot_of(*EVERY_KIND)
    keys = {name: [resource.key for resource in group] for name, group in vars(snapshot).items() if group}
    assert keys == {
        "global_network_policies": ["GlobalNetworkPolicy/guard"],
        "network_policies": ["NetworkPolicy/shop/front"],
        "kubernetes_network_policies": ["KubernetesNetworkPolicy/shop/k"],
        "kubernetes_cluster_network_policies": ["KubernetesClusterNetworkPolicy/c"],
        "staged_global_network_policies": ["StagedGlobalNetworkPolicy/s"],
        "staged_network_policies": ["StagedNetworkPolicy/shop/s"],
        "staged_kubernetes_network_policies": ["StagedKubernetesNetworkPolicy/shop/s"],
        "host_endpoints": ["HostEndpoint/out"],
        "workload_endpoints": ["WorkloadEndpoint/shop/vm"],
        "global_network_sets": ["GlobalNetworkSet/office"],
        "network_sets": ["NetworkSet/shop/cdn"],
        "profiles": ["Profile/p"],
        "tiers": ["Tier/security"],
        "namespaces": ["Namespace/shop"],
        "pods": ["Pod/shop/web"],
        "service_accounts": ["ServiceAccount/shop/front"],
        "services": ["Service/shop/db"],
        "endpoint_slices": ["EndpointSlice/shop/db-1"],
        "felix_configurations": ["FelixConfiguration/default"],
    }


def test_order_of_documents_does_not_matter() -> None:
    """State, not history: the same resources give the same snapshot and the same model."""
    documents = [*EVERY_KIND, *(calico("Tier", f"name: t{index}") for index in range(5))]
    expected = snapshot_of(*documents)
    model = core_model(expected, Settings())
    for seed in range(5):
        shuffled = random.Random(seed).sample(documents, len(documents))
        assert snapshot_of(*shuffled) == expected
        assert core_model(snapshot_of(*shuffled), Settings()) == model


def test_nothing_is_a_snapshot() -> None:
    empty = Snapshot.of([])
    assert (empty, empty.nodes(), empty.warnings) == (Snapshot(), [], [])


def test_load_reads_files(tmp_path: Path) -> None:
    for index, document in enumerate(EVERY_KIND):
        (tmp_path / f"{index}.yaml").write_text(document)
    assert load(tmp_path) == snapshot_of(*EVERY_KIND)
    (tmp_path / "bad.yaml").write_text(calico("Tier", "name: t", "{order: x}"))
    with pytest.raises(LoadError):
        load(tmp_path)


# --- nodes and warnings ----------------------------------------------------------------------------------


def test_nodes_are_those_of_endpoints() -> None:
    """R-30: pods that are no workloads name no node."""
    snapshot = snapshot_of(
        calico("HostEndpoint", "name: a", "{node: n3, interfaceName: eth0}"),
        calico("HostEndpoint", "name: b", "{node: n1, interfaceName: eth0}"),
        workload("c", "node: n1, ipNetworks: [10.65.0.2]"),
        workload("d", "node: n2, ipNetworks: [10.65.0.3]"),
        workload("e", "node: no-address"),
        workload("f", "ipNetworks: [10.65.0.4]"),
        pod("g", "nodeName: n4"),
        pod("h", "nodeName: own-network, hostNetwork: true"),
        pod("i", "nodeName: finished", "phase: Failed, podIP: 10.65.0.5"),
        pod("j", ""),
    )
    assert snapshot.nodes() == ["n1", "n2", "n3", "n4"]


ABSENT = "it gives no labels and denies what no profile before it allows (R-29)"
HOST = calico("HostEndpoint", "name: out", "{node: n, interfaceName: eth0, profiles: [p, q]}")


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([HOST, calico("Profile", "name: p"), calico("Profile", "name: q")], []),
        ([HOST, calico("Profile", "name: p")], [f"HostEndpoint/out: profile `q` does not exist: {ABSENT}"]),
        (
            [calico("HostEndpoint", "name: a",
                    "{node: n, interfaceName: e, profiles: [projectcalico-default-allow]}")],
            [],
        ),
        (
            [workload("a", "ipNetworks: [10.65.0.2], profiles: [kns.shop, ksa.shop.front]"),
             core("Namespace", "name: shop"), core("ServiceAccount", "name: front, namespace: shop")],
            [],
        ),
        (
            [workload(name, f"ipNetworks: [10.65.0.{at}], profiles: [kns.shop]")
             for at, name in enumerate("abc")],
            [f"WorkloadEndpoint/shop/a and 2 more: profile `kns.shop` does not exist: {ABSENT};"
             " load Namespace `shop`"],
        ),
        (
            [pod("web", "nodeName: n, serviceAccountName: front"), core("Namespace", "name: shop")],
            ["Pod/shop/web: profile `ksa.shop.front` does not exist: it gives no labels; a profile before it"
             " allows everything (R-24, R-29); load ServiceAccount `shop/front`"],
        ),
        (
            [workload("a", "ipNetworks: [10.65.0.2], profiles: [p, q]"),
             workload("b", "ipNetworks: [10.65.0.3], profiles: [q, p]"),
             calico("Profile", "name: p", "{ingress: [{action: Allow}], egress: [{action: Allow}]}")],
            ["WorkloadEndpoint/shop/a: profile `q` does not exist: it gives no labels; a profile before it"
             " allows everything (R-24, R-29)",
             f"WorkloadEndpoint/shop/b: profile `q` does not exist: {ABSENT}"],
        ),
        ([pod("web"), calico("Profile", "name: kns.shop")], []),
        ([pod("web", "nodeName: n, hostNetwork: true"), pod("job", "nodeName: n", "phase: Succeeded")], []),
    ],
)  # fmt: skip
def test_missing_profiles(documents: list[str], expected: list[str]) -> None:
    """R-29."""
    assert snapshot_of(*documents).warnings == expected


def test_missing_tiers() -> None:
    """E-3: three exist always. E-4."""
    policies = [
        calico("GlobalNetworkPolicy", f"name: p{index}", f"{{tier: {tier}}}")
        for index, tier in enumerate(
            ["''", "default", "kube-admin", "kube-baseline", "security", "lost", "lost"]
        )
    ]
    snapshot = snapshot_of(
        *policies, calico("Tier", "name: security"),
        calico("NetworkPolicy", "name: p, namespace: shop", "{tier: gone}"),
    )  # fmt: skip
    assert snapshot.warnings == [
        "GlobalNetworkPolicy/p5 and 1 more: tier `lost` does not exist: it comes last and denies (E-4)",
        "NetworkPolicy/shop/p: tier `gone` does not exist: it comes last and denies (E-4)",
    ]


ALLOW = "ingress: [{action: Allow}], egress: [{action: Allow}]"


@pytest.mark.parametrize(
    ("spec", "warns"),
    [(f"{{{ALLOW}}}", False), ("{}", True), (f"{{{ALLOW}, labelsToApply: {{a: b}}}}", True)],
)
def test_built_in_profile_cannot_be_replaced(spec: str, warns: bool) -> None:
    """R-28; a dump of a cluster may hold it as it is."""
    document = calico("Profile", "name: projectcalico-default-allow", spec)
    warning = (
        "Profile/projectcalico-default-allow: has no effect: the built-in profile of this name always "
        "allows (R-28)"
    )
    assert snapshot_of(document).warnings == ([warning] if warns else [])
    assert model_of(document)["profiles"] == model_of()["profiles"]


def test_endpoints_that_do_not_govern_their_interface() -> None:
    """E-38, E-45: said aloud, because nothing protects what they name."""

    def endpoint(name: str, node: str, interface: str) -> str:
        spec = f"{{node: {node}, interfaceName: {interface}, ipNetworks: [10.65.0.1/32]}}"
        return calico("WorkloadEndpoint", f"name: {name}, namespace: shop", spec)

    snapshot = snapshot_of(
        endpoint("a", "n", "cali1"),
        endpoint("b", "n", "cali1"),
        endpoint("c", "n", "tap0"),
        endpoint("d", "elsewhere", "tap0"),
        calico("HostEndpoint", "name: h", "{node: n, interfaceName: cali9}"),
        calico("HostEndpoint", "name: i", "{node: n, interfaceName: eth0}"),
    )
    begin = "WorkloadEndpoint/shop/"
    assert snapshot.compile(node="n").warnings == [
        "HostEndpoint/h: is inactive, its interface `cali9` is a workload interface by its prefix (E-45)",
        f"{begin}b: is inactive, its interface `cali1` is that of {begin}a",
        f"{begin}c: is inactive, its interface `tap0` is no workload interface: it begins with none of cali",
    ]
    assert snapshot.compile(node=None).warnings == []


def test_workloads_that_have_one_address() -> None:
    """The smallest name answers where only the address is known, as with interfaces (E-45)."""
    other = calico(
        "WorkloadEndpoint", "name: a, namespace: zoo", "{interfaceName: c, ipNetworks: [10.65.0.9]}"
    )
    (told,) = snapshot_of(
        pod("b"),
        other,
        workload("c", "ipNetworks: [10.65.0.18, 10.65.0.17]"),
        workload("d", "ipNetworks: [10.65.0.18, 10.65.0.17]"),
        pod("alone", status="podIPs: [{ip: 10.65.0.1}, {ip: 10.65.0.1}]"),
        core("Namespace", "name: shop"),
    ).warnings
    assert told == (
        "WorkloadEndpoint/zoo/a, Pod/shop/b: have the address 10.65.0.9 in common (and 2 more addresses are"
        " of several workloads): rules mean each of them by its labels, and WorkloadEndpoint/zoo/a answers"
        " where only the address is known; an object of a workload that is gone is the usual cause"
    )


def test_what_has_no_effect() -> None:
    """R-30; fields of Felix that are not read."""
    snapshot = snapshot_of(
        workload("a", "node: n, profiles: [lost]"),
        calico("FelixConfiguration", "name: default", "{logSeverityScreen: Info}"),
    )
    assert snapshot.warnings == [
        "<text>:6: FelixConfiguration/default: fields without effect here: logSeverityScreen",
        "WorkloadEndpoint/shop/a: has no effect: it has no `ipNetworks` (R-30)",
    ]


# --- the model -------------------------------------------------------------------------------------------


def entity(**fields: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("selector", "not_selector", "namespace_selector"), "")
    lists: dict[str, Any] = {
        name: [] for name in ("nets", "not_nets", "ports", "named_ports", "not_ports", "not_named_ports")
    }
    return texts | lists | fields


def rule(action: str, **fields: Any) -> dict[str, Any]:
    absent = dict.fromkeys(("ip_version", "protocol", "not_protocol"))
    return {"action": action} | absent | {"source": entity(), "destination": entity()} | fields


def test_model_as_a_whole() -> None:
    """R-21, R-22, R-24..R-28, R-28a, E-2, E-3, E-12: what the core is handed."""
    model = model_of(*EVERY_KIND)
    assert model.pop("policies") == [
        {
            "kind": "GlobalNetworkPolicy",
            "namespace": "",
            "name": "guard",
            "tier": "security",
            "order": 10.5,
            "selector": "role == 'edge'",
            "namespace_selector": "env == 'prod'",
            "service_account_selector": "has(x)",
            "applies_ingress": True,
            "applies_egress": False,
            "do_not_track": False,
            "pre_dnat": True,
            "apply_on_forward": True,
            "ingress": [
                rule(
                    "Allow",
                    ip_version=4,
                    protocol=6,
                    source=entity(
                        nets=["10.0.0.0/8"],
                        not_nets=["10.9.0.0/16"],
                        selector="a == 'b'",
                        not_selector="c == 'd'",
                        namespace_selector="global()",
                        ports=[[80, 80], [90, 99]],
                        named_ports=["http"],
                        not_ports=[[85, 85]],
                        not_named_ports=["https"],
                    ),
                    destination=entity(service_accounts={"names": ["x", "y"], "selector": "role == 'ui'"}),
                ),
                rule("Deny", not_protocol=17),
                rule("Log", protocol=1, icmp={"type": 8, "code": 0}, not_icmp={"type": 3, "code": None}),
                rule("Pass"),
            ],
            "egress": [],
        },
        {
            "kind": "NetworkPolicy",
            "namespace": "shop",
            "name": "front",
            "tier": "default",
            "order": None,
            "selector": "all()",
            "service_account_selector": "role == 'ui'",
            "applies_ingress": False,
            "applies_egress": True,
            "ingress": [],
            "egress": [rule("Allow")],
        },
        {
            "kind": "KubernetesNetworkPolicy",
            "namespace": "shop",
            "name": "k",
            "tier": "default",
            "order": 1000.0,
            "selector": "projectcalico.org/orchestrator == 'k8s'",
            "applies_ingress": True,
            "applies_egress": False,
            "ingress": [],
            "egress": [],
        },
        {
            "kind": "KubernetesClusterNetworkPolicy",
            "name": "c",
            "tier": "kube-admin",
            "order": 1.0,
            "selector": "projectcalico.org/orchestrator == 'k8s'",
            "namespace_selector": "all()",
            "applies_ingress": False,
            "applies_egress": False,
            "ingress": [],
            "egress": [],
        },
    ]
    model.pop("settings")
    allow = [{"action": "Allow"}]
    assert model == {
        "workloads": [
            {
                "name": "WorkloadEndpoint/shop/vm",
                "node": "edge1",
                "interface": "cali1",
                "networks": ["10.65.0.2/32", "fd00:65::2/128"],
                "spoofed_prefixes": ["10.99.0.0/16"],
                "labels": {
                    "app": "vm",
                    "projectcalico.org/namespace": "shop",
                    "projectcalico.org/orchestrator": "libvirt",
                    "projectcalico.org/serviceaccount": "front",
                },
                "profiles": ["p", "q"],
                "ports": [{"name": "dns", "protocol": 17, "port": 53}],
            },
            {
                "name": "Pod/shop/web",
                "node": "edge2",
                "interface": "cali551b05c3e54",
                "networks": ["10.65.0.9/32"],
                "labels": {
                    "projectcalico.org/namespace": "shop",
                    "projectcalico.org/orchestrator": "k8s",
                },
                "profiles": ["kns.shop"],
                "ports": [],
            },
        ],
        "hosts": [
            {
                "name": "out",
                "node": "edge1",
                "interface": "eth0",
                "addresses": ["198.51.100.10", "fd00::a"],
                "labels": {"role": "edge"},
                "profiles": ["p"],
                "ports": [{"name": "metrics", "protocol": 6, "port": 9100}],
            }
        ],
        "network_sets": [
            {
                "name": "NetworkSet/shop/cdn",
                "labels": {"at": "cdn", "projectcalico.org/namespace": "shop"},
                "profiles": ["kns.shop"],
                "nets": ["fd00::/64"],
            },
            {
                "name": "GlobalNetworkSet/office",
                "labels": {"at": "office"},
                "nets": ["203.0.113.7/32", "10.0.0.0/8"],
            },
        ],
        "profiles": [
            {
                "name": "kns.shop",
                "labels": {"pcns.env": "prod", "pcns.projectcalico.org/name": "shop"},
                "ingress": allow,
                "egress": allow,
            },
            {"name": "ksa.shop.front", "labels": {"pcsa.role": "ui", "pcsa.projectcalico.org/name": "front"}},
            {"name": "p", "labels": {"level": "gold"}, "ingress": [rule("Allow")], "egress": []},
            {"name": "projectcalico-default-allow", "ingress": allow, "egress": allow},
        ],
        "tiers": [
            {"name": "kube-admin", "order": 1000.0, "pass": True},
            {"name": "default", "order": 1000000.0, "pass": False},
            {"name": "kube-baseline", "order": 10000000.0, "pass": True},
            {"name": "security", "order": 5.0, "pass": True},
        ],
        "services": [
            {
                "namespace": "shop",
                "name": "db",
                "addresses": ["10.65.0.3"],
                "ports": [["10.65.0.3", 6, 5432]],
            }
        ],
    }


def test_core_takes_every_field() -> None:
    """The core refuses unknown fields: what is written here is what it reads."""
    table = snapshot_of(*EVERY_KIND).compile(node="edge1")
    assert table.program.endpoints == ["HostEndpoint/out", "WorkloadEndpoint/shop/vm"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", (True, False)),
        ("{ingress: [{action: Allow}]}", (True, False)),
        ("{egress: [{action: Allow}]}", (False, True)),
        ("{ingress: [], egress: [{action: Allow}]}", (False, True)),
        ("{ingress: [{action: Allow}], egress: [{action: Allow}]}", (True, True)),
        ("{types: [Egress], ingress: [{action: Allow}]}", (False, True)),
        ("{types: [Ingress, Egress]}", (True, True)),
    ],
)
def test_types(spec: str, expected: tuple[bool, bool]) -> None:
    """E-12: inferred from rules that are there. E-14: what is written counts, rules or not."""
    [policy] = model_of(calico("GlobalNetworkPolicy", "name: p", spec))["policies"]
    assert (policy["applies_ingress"], policy["applies_egress"]) == expected


def test_tier_defaults() -> None:
    """E-2; V-70: the built-in tiers may be written out."""
    tiers = model_of(
        calico("Tier", "name: bare"),
        calico("Tier", "name: kube-admin", "{order: 1000, defaultAction: Pass}"),
        calico("Tier", "name: default"),
        calico("Tier", "name: late", "{order: 2000000.5, defaultAction: Deny}"),
    )["tiers"]
    assert [(tier["name"], tier["order"], tier["pass"]) for tier in tiers] == [
        ("kube-admin", 1000.0, True),
        ("default", 1000000.0, False),
        ("kube-baseline", 10000000.0, True),
        ("bare", 1000000.0, False),
        ("late", 2000000.5, False),
    ]


def test_written_profile_goes_before_a_made_one() -> None:
    """R-24, R-25: `calicoctl get profiles` writes the same ones out."""
    profiles = model_of(core("Namespace", "name: shop"), calico("Profile", "name: kns.shop"))["profiles"]
    assert {"name": "kns.shop", "labels": {}, "ingress": [], "egress": []} in profiles


@pytest.mark.parametrize("account", ["", "serviceAccountName: front, "])
@pytest.mark.parametrize("orchestrator", ["", "orchestrator: k8s, "])
def test_labels_of_written_workloads(orchestrator: str, account: str) -> None:
    """R-21, R-28a: as given in the spec."""
    [found] = model_of(workload("a", f"{orchestrator}{account}ipNetworks: [10.65.0.2]"))["workloads"]
    expected = {"projectcalico.org/namespace": "shop"}
    if orchestrator:
        expected["projectcalico.org/orchestrator"] = "k8s"
    if account:
        expected["projectcalico.org/serviceaccount"] = "front"
    assert (found["labels"], found["profiles"]) == (expected, [])


def test_pod_interfaces_have_the_first_prefix() -> None:
    """R-31."""
    [found] = model_of(pod("web"), settings=Settings(workload_prefixes=("tap", "cali")))["workloads"]
    assert found["interface"] == "tap551b05c3e54"


def test_pods_that_are_no_workloads_are_left_out() -> None:
    """R-30: else their addresses, which others may have by now, would be peers."""
    workloads = model_of(
        pod("web"),
        pod("agent", "nodeName: edge1, hostNetwork: true"),
        pod("job", "nodeName: edge1", "phase: Succeeded, podIP: 10.65.0.8"),
        pod("waiting", ""),
    )["workloads"]
    assert [workload["name"] for workload in workloads] == ["Pod/shop/web"]


def test_settings() -> None:
    settings = Settings(
        endpoint_to_host="Return",
        invalid_check=False,
        failsafe_inbound=(Failsafe(6, 22),),
        failsafe_outbound=(),
        workload_vxlan_port=None,
        workload_ipip_denied=False,
        forward_unmarked="deny",
        exempt_loopback=True,
    )
    assert model_of(settings=settings)["settings"] == {
        "endpoint_to_host": "Return",
        "invalid_check": False,
        "failsafe_inbound": [{"protocol": 6, "net": None, "port": 22}],
        "failsafe_outbound": [],
        "workload_vxlan_port": None,
        "workload_ipip_denied": False,
        "forward_unmarked": "deny",
        "exempt_loopback": True,
    }


@pytest.mark.parametrize(
    "document",
    [
        calico("GlobalNetworkPolicy", "name: a.b-"),
        calico("GlobalNetworkPolicy", "name: a.b.c.d-"),
        calico("NetworkPolicy", "name: a., namespace: shop"),
        calico("NetworkPolicy", "name: a, namespace: shop-"),
        calico("GlobalNetworkSet", "name: a-."),
        calico("Tier", "name: t-"),
        core("Namespace", "name: t-"),
    ],
)
def test_names_end_in_a_letter_or_digit(document: str) -> None:
    """V-2."""
    with pytest.raises(LoadError, match=r"metadata\.name"):
        snapshot_of(document)


@pytest.mark.parametrize(
    ("text", "governs"), [("''", True), ("' '", False), ('"\\t"', False), ("all()", False)]
)
@pytest.mark.parametrize("field", ["selector", "namespaceSelector"])
def test_blanks_are_all_and_not_empty(field: str, text: str, governs: bool) -> None:
    """S-12, S-20: who is no endpoint is meant by a rule without the field only."""
    host = calico("HostEndpoint", "name: edge", "{node: edge1, interfaceName: eth0}")
    rules = f"[{{action: Deny, source: {{{field}: {text}}}}}, {{action: Allow}}]"
    policy = calico("GlobalNetworkPolicy", "name: p", f"{{selector: all(), ingress: {rules}}}")
    packet = {"src": "192.0.2.5", "dst": "198.51.100.10", "protocol": "tcp", "sport": 1, "dport": 80}
    decision = (
        snapshot_of(host, policy).compile(node="edge1").decide(hook="filter-input", in_="eth0", **packet)
    )
    assert (decision.verdict == "deny") is governs


def test_a_profile_in_the_place_of_that_of_a_namespace() -> None:
    """R-29: what a missing profile does depends on what those before it allow."""
    documents = [
        core("Namespace", "name: shop"),
        pod("web", "nodeName: edge2, serviceAccountName: web"),
    ]
    (labels_only,) = snapshot_of(*documents).warnings
    assert "a profile before it allows everything" in labels_only
    profile = calico("Profile", "name: kns.shop", "{ingress: [{action: Deny}]}")
    denies, other = snapshot_of(*documents, profile).warnings
    assert "denies what no profile before it allows" in denies
    assert other.startswith("Profile/kns.shop: ")


RULES = "ingress: [{action: Allow}], egress: [{action: Allow, source: {}, destination: {}}]"
NAME = "pcns.projectcalico.org/name: shop"


@pytest.mark.parametrize(
    ("name", "spec", "others"),
    [
        ("kns.shop", f"{RULES}, labelsToApply: {{pcns.env: live, {NAME}}}", None),
        ("kns.shop", f"{RULES}, labelsToApply: {{{NAME}}}", "labels"),
        ("kns.shop", f"labelsToApply: {{pcns.env: live, {NAME}}}", "rules"),
        ("kns.shop", "labelsToApply: {}", "labels and rules"),
        ("kns.other", f"{RULES}", None),
        ("ksa.shop.web", "labelsToApply: {pcsa.projectcalico.org/name: web}", None),
        ("ksa.shop.web", "labelsToApply: {pcsa.projectcalico.org/name: a}", "labels"),
        ("ksa.shop.web", f"{RULES}, labelsToApply: {{pcsa.projectcalico.org/name: web}}", "rules"),
    ],
)  # fmt: skip
def test_a_profile_that_differs_from_the_one_that_it_replaces(
    name: str, spec: str, others: str | None
) -> None:
    """R-24, R-25. A dump of etcd has both, alike."""
    snapshot = snapshot_of(
        core("Namespace", "name: shop, labels: {env: live}"),
        core("ServiceAccount", "name: web, namespace: shop"),
        calico("Profile", f"name: {name}", f"{{{spec}}}"),
    )
    of, rule = ("Namespace/shop", "R-24") if name == "kns.shop" else ("ServiceAccount/shop/web", "R-25")
    expected = f"Profile/{name}: takes the place of the profile of {of}, and has other {others} ({rule})"
    assert snapshot.warnings == ([expected] if others else [])
