"""The reference's endpoints and their labels (R-20 to R-32), straight from Pods, Namespaces and accounts."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from labelgate.reference.labels import NamedPort, Workload, effective, members, pod_interface
from reference_world import node_of, packet, snapshot_of, told

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: shop
  labels: {app: web, pcns.env: forged, pcsa.team: forged, projectcalico.org/namespace: forged}
spec:
  nodeName: edge1
  serviceAccountName: front
  initContainers:
  - {name: init, ports: [{name: warm, containerPort: 81, protocol: UDP}]}
  containers:
  - name: main
    ports:
    - {name: https, containerPort: 443}
    - {containerPort: 80}
    - {name: sip, containerPort: 5060, protocol: SCTP}
status: {phase: Running, podIPs: [{ip: 10.65.0.2}, {ip: "fd00:65::2"}]}
"""
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {env: prod, app: shop, projectcalico.org/name: forged}}
"""
ACCOUNT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: front, namespace: shop, labels: {team: a}}
"""


def test_first_source_of_a_label_wins() -> None:
    """R-20."""
    inherited = {"one": {"a": "1", "b": "1"}, "two": {"b": "2", "c": "2", "d": "2"}}
    own = {"a": "own", "d": ""}
    assert effective(own, ["one", "missing", "two"], inherited) == {"a": "own", "b": "1", "c": "2", "d": ""}
    assert effective(own, ["two", "one"], inherited) == {"a": "own", "b": "2", "c": "2", "d": ""}


def test_pod_as_workload() -> None:
    """R-21 to R-25, R-31, R-32; the digest is that of `printf %s shop.web-0 | sha1sum`."""
    assert members(snapshot_of(POD, NAMESPACE, ACCOUNT), "cali") == [
        Workload(
            name="Pod/shop/web-0",
            labels={
                "app": "web",
                "projectcalico.org/namespace": "shop",
                "projectcalico.org/orchestrator": "k8s",
                "projectcalico.org/serviceaccount": "front",
                "pcns.env": "prod",
                "pcns.app": "shop",
                "pcns.projectcalico.org/name": "shop",
                "pcsa.team": "a",
                "pcsa.projectcalico.org/name": "front",
            },
            nets=(ip_network("10.65.0.2/32"), ip_network("fd00:65::2/128")),
            short_name="web-0",
            node="edge1",
            interface="calia4fc3c48bd8",
            profiles=("kns.shop", "ksa.shop.front"),
            ports=(NamedPort("warm", 17, 81), NamedPort("https", 6, 443), NamedPort("sip", 132, 5060)),
            sources=(ip_network("10.65.0.2/32"), ip_network("fd00:65::2/128")),
        )
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nodeName: edge1", "hostNetwork: true\n  nodeName: edge1"),
        ("  nodeName: edge1\n", ""),
        ("phase: Running", "phase: Succeeded"),
        ("phase: Running", "phase: Failed"),
        ('podIPs: [{ip: 10.65.0.2}, {ip: "fd00:65::2"}]', "podIPs: []"),
    ],
)
def test_pods_that_are_no_workloads(old, new) -> None:
    """R-30."""
    assert old in POD
    assert members(snapshot_of(POD.replace(old, new), NAMESPACE), "cali") == []


def test_workload_without_addresses_is_ignored() -> None:
    """R-30."""
    endpoint = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop}
spec: {orchestrator: vm, workload: web, endpoint: eth0, node: edge1, interfaceName: cali1, ipNetworks: []}
"""
    assert members(snapshot_of(endpoint), "cali") == []


def test_profiles_of_a_pod_give_its_rules() -> None:
    """R-24, R-25, R-29: the namespace's profile allows; where it is missing, all is denied."""
    interface = pod_interface("shop", "web-0", "cali")
    asked = packet("filter-forward", dst="10.65.0.2", in_="eth0", out=interface)
    assert told(node_of(POD, NAMESPACE, ACCOUNT).answer(asked)) == [
        "allow accepted",
        "workload-ingress Pod/shop/web-0 - Profile/kns.shop#0 Allow: profile rule (M-54)",
    ]
    assert told(node_of(POD, ACCOUNT).answer(asked)) == [
        "deny",
        "workload-ingress Pod/shop/web-0 - Profile/kns.shop Deny: missing profile (R-29)",
    ]


def test_labels_of_sets_and_host_endpoints() -> None:
    """R-26, R-27: only namespaced sets have a namespace; host endpoints keep even `pcns.` labels."""
    documents = """
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: office, namespace: shop, labels: {a: b}}
spec: {nets: [10.80.0.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: world, labels: {a: b}}
spec: {nets: [10.90.7.7/16]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: far, labels: {pcns.env: mine}}
spec: {node: edge2, expectedIPs: [10.70.0.1], profiles: [kns.shop]}
"""
    found = {member.name: member for member in members(snapshot_of(documents, NAMESPACE), "cali")}
    inherited = {"pcns.env": "prod", "pcns.app": "shop", "pcns.projectcalico.org/name": "shop"}
    assert {name: member.labels for name, member in found.items()} == {
        "NetworkSet/shop/office": {"a": "b", "projectcalico.org/namespace": "shop"} | inherited,
        "GlobalNetworkSet/world": {"a": "b"},
        "HostEndpoint/far": inherited | {"pcns.env": "mine"},
    }
    assert {name: [str(net) for net in member.nets] for name, member in found.items()} == {
        "NetworkSet/shop/office": ["10.80.0.1/32"],
        "GlobalNetworkSet/world": ["10.90.0.0/16"],
        "HostEndpoint/far": ["10.70.0.1/32"],
    }


def test_written_profile_goes_before_a_made_one() -> None:
    """A Profile document says what `kns.shop` is; the built-in profile is what it is (R-28)."""
    written = """
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: NAME}
spec: {ingress: [{action: Deny}], labelsToApply: {a: b}}
"""
    host = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth0, profiles: [NAME]}
"""
    asked = packet("filter-input", in_="eth0")
    for name, verdict, labels in (
        ("kns.shop", "deny", {"a": "b"}),
        ("projectcalico-default-allow", "allow", {}),
    ):
        documents = (NAMESPACE, written.replace("NAME", name), host.replace("NAME", name))
        assert node_of(*documents).answer(asked).verdict == verdict
        assert [member.labels for member in members(snapshot_of(*documents), "cali")] == [labels]


def test_single_address_of_a_pod() -> None:
    """`podIP` counts where `podIPs` is absent."""
    pod = POD.replace('podIPs: [{ip: 10.65.0.2}, {ip: "fd00:65::2"}]', "podIP: 10.65.0.9")
    assert [member.nets for member in members(snapshot_of(pod), "cali")] == [(ip_network("10.65.0.9/32"),)]


def test_profile_of_a_service_account_has_no_rules() -> None:
    """R-25: it exists, so it does not deny by itself; no profile allows."""
    endpoint = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: vm, namespace: shop}
spec:
  orchestrator: vm
  workload: vm
  endpoint: eth0
  node: edge1
  interfaceName: cali1
  ipNetworks: [10.65.0.9/32]
  profiles: [ksa.shop.front]
"""
    node = node_of(endpoint, ACCOUNT)
    steps = [
        told(node.answer(packet("filter-forward", in_="eth0", out="cali1"))),
        told(node.answer(packet("filter-forward", in_="cali1", out="eth0"))),
    ]
    assert steps == [
        ["deny", f"{stage} WorkloadEndpoint/shop/vm - - Deny: no profile allows (E-25)"]
        for stage in ("workload-ingress", "workload-egress")
    ]
