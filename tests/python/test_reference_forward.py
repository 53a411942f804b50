"""The reference's filter FORWARD, and who governs an interface (E-27, E-38, E-39, E-45 to E-48)."""

from __future__ import annotations

import pytest
from labelgate.settings import HostFacts, Settings
from reference_world import SHOP, global_policy, host_endpoint, node_of, packet, told

NO_ENDPOINT = "interface - - - -: no endpoint here (E-39)"
EDGE = global_policy("""
  selector: role == 'edge'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [9100]}}
""")
PROFILE_ALLOWS = "workload-egress WorkloadEndpoint/shop/db - Profile/kns.shop#0 Allow: profile rule (M-54)"

TRANSIT = global_policy("""
  order: 50
  selector: role == 'edge'
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [445]}}
  - {action: Allow, source: {nets: [203.0.113.0/24]}}
""")
INSIDE, OUTSIDE = "203.0.113.7", "192.0.2.5"
OTHER_DIRECTION = "no applyOnForward policy in this direction (E-27)"
DB_INGRESS = "workload-ingress WorkloadEndpoint/shop/db - Profile/kns.shop#0 Allow: profile rule (M-54)"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            packet("filter-forward", INSIDE, in_="eth0", out="eth1"),
            [
                "allow accepted",
                "from-hep HostEndpoint/out default GlobalNetworkPolicy/p#1 Allow: rule (M-50)",
            ],
        ),
        (  # E-42: no failsafes
            packet("filter-forward", OUTSIDE, dport=22, in_="eth0", out="eth1"),
            ["deny", "from-hep HostEndpoint/out default - Deny: end of tier (E-21)"],
        ),
        (
            packet("filter-forward", INSIDE, dst="10.65.0.3", in_="eth0", out="cali222"),
            [
                "allow accepted",
                "from-hep HostEndpoint/out default GlobalNetworkPolicy/p#1 Allow: rule (M-50)",
                DB_INGRESS,
            ],
        ),
        (  # E-39a: the last stage decides the mark
            packet("filter-forward", "10.65.0.3", OUTSIDE, in_="cali222", out="eth0"),
            ["continue", PROFILE_ALLOWS, f"to-hep HostEndpoint/out - - -: {OTHER_DIRECTION}"],
        ),
        (  # E-48 skips only from-HEP
            packet("filter-forward", OUTSIDE, dst="10.65.0.3", in_="eth0", out="cali222", accepted=True),
            ["allow accepted", DB_INGRESS],
        ),
        (
            packet("filter-forward", OUTSIDE, in_="eth0", out="eth1", accepted=True, ct="invalid"),
            ["allow accepted", "interface - - - Allow: accept mark (E-48)"],
        ),
        (
            packet("filter-forward", OUTSIDE, in_="eth1", out="eth0", accepted=True),
            ["continue", f"to-hep HostEndpoint/out - - -: {OTHER_DIRECTION}"],
        ),
        (  # E-24, E-39b: the mark stays as it stands
            packet("filter-forward", OUTSIDE, in_="eth0", out="cali333", ct="established"),
            ["allow", "conntrack HostEndpoint/out - - Allow: established or related (E-20.2)"],
        ),
        (
            packet("filter-forward", OUTSIDE, in_="eth0", out="cali222", ct="established", accepted=True),
            [
                "allow accepted",
                "conntrack WorkloadEndpoint/shop/db - - Allow: established or related (E-20.2)",
            ],
        ),
        (
            packet("filter-forward", INSIDE, in_="eth0", out="cali333"),
            [
                "deny",
                "from-hep HostEndpoint/out default GlobalNetworkPolicy/p#1 Allow: rule (M-50)",
                "interface - - - Deny: unknown workload interface (E-38)",
            ],
        ),
        (
            packet("filter-forward", in_="cali333", out="eth0", ct="established"),
            ["deny", "interface - - - Deny: unknown workload interface (E-38)"],
        ),
        (packet("filter-forward", in_="eth1", out="eth2", ct="established"), ["continue", NO_ENDPOINT]),
        (
            packet("filter-forward", in_="eth1", out="eth2", accepted=True, ct="established"),
            ["allow accepted", "interface - - - Allow: accept mark (E-48)"],
        ),
        (
            packet("filter-forward", "10.65.0.3", "10.65.0.2", in_="cali222", out="cali111"),
            [
                "allow accepted",
                PROFILE_ALLOWS,
                "workload-ingress WorkloadEndpoint/shop/web - Profile/kns.shop#0 Allow: profile rule (M-54)",
            ],
        ),
    ],
)
def test_forward(asked, expected) -> None:
    assert told(node_of(SHOP, host_endpoint(), TRANSIT).answer(asked)) == expected


def test_hairpin_meets_both_stages() -> None:
    """E-72."""
    node = node_of(host_endpoint(), TRANSIT)
    assert told(node.answer(packet("filter-forward", INSIDE, in_="eth0", out="eth0"))) == [
        "continue",
        "from-hep HostEndpoint/out default GlobalNetworkPolicy/p#1 Allow: rule (M-50)",
        f"to-hep HostEndpoint/out - - -: {OTHER_DIRECTION}",
    ]


def test_policy_on_forward_for_egress_only() -> None:
    """E-27, seen from the other side."""
    node = node_of(host_endpoint(), TRANSIT.replace("Ingress", "Egress").replace("ingress", "egress"))
    assert told(node.answer(packet("filter-forward", in_="eth0", out="eth1"))) == [
        "continue",
        f"from-hep HostEndpoint/out - - -: {OTHER_DIRECTION}",
    ]


def test_forward_without_policy_on_forward_is_allowed() -> None:
    """E-52."""
    node = node_of(host_endpoint(), EDGE)
    assert told(node.answer(packet("filter-forward", in_="eth0", out="eth1"))) == [
        "allow accepted",
        "from-hep HostEndpoint/out - - Allow: no applyOnForward policy (E-52)",
    ]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("return", ["continue"]),
        ("accept", ["allow", "to-hep HostEndpoint/out - - Allow: unmarked end of FORWARD (E-27)"]),
        ("deny", ["deny", "to-hep HostEndpoint/out - - Deny: unmarked end of FORWARD (E-27)"]),
    ],
)
def test_forward_unmarked(setting, expected) -> None:
    """E-27; where no stage has an endpoint the setting has no say."""
    node = node_of(host_endpoint(), TRANSIT, settings=Settings(forward_unmarked=setting))
    verdict, *extra = expected
    assert told(node.answer(packet("filter-forward", in_="eth1", out="eth0"))) == [
        verdict,
        f"to-hep HostEndpoint/out - - -: {OTHER_DIRECTION}",
        *extra,
    ]
    assert told(node.answer(packet("filter-forward", in_="eth1", out="eth2"))) == ["continue", NO_ENDPOINT]


def test_any_interface_forward_judges_workload_interfaces() -> None:
    """E-47, E-47a."""
    node = node_of(
        SHOP,
        host_endpoint("any", "*"),
        global_policy("""
  selector: role == 'edge'
  applyOnForward: true
  types: [Ingress, Egress]
  ingress: [{action: Allow, source: {nets: [10.65.0.0/16]}}]
  egress: [{action: Pass}]
"""),
    )
    assert told(node.answer(packet("filter-forward", "10.65.0.3", in_="cali222", out="eth0"))) == [
        "continue",
        "from-hep HostEndpoint/any default GlobalNetworkPolicy/p#0 Allow: rule (M-50)",
        PROFILE_ALLOWS,
        "to-hep HostEndpoint/any default GlobalNetworkPolicy/p#0 Pass: rule (M-52)",
        "to-hep HostEndpoint/any - - -: all tiers passed (E-28)",
    ]
    assert told(node.answer(packet("filter-forward", in_="cali333", out="eth0"))) == [
        "deny",
        "from-hep HostEndpoint/any default - Deny: end of tier (E-21)",
    ]


# interfaces (E-45, E-46)


def governing(node, name: str) -> str | None:
    """Whose normal ingress policy judges packets of an interface; all host endpoints here deny."""
    return node.answer(packet("filter-input", in_=name)).trace[0].endpoint


def test_smallest_name_wins_however_it_matched() -> None:
    by_address = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: b-address}
spec: {node: edge1, expectedIPs: [192.0.2.99, "fd00:9::10"]}
"""
    elsewhere = by_address.replace("b-address", "a-other-node").replace("node: edge1", "node: edge2")
    other_name = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: a-other-name}
spec: {node: edge1, interfaceName: eth7, expectedIPs: [10.9.0.10]}
"""
    node = node_of(
        by_address,
        elsewhere,
        other_name,
        host_endpoint("c-name", "eth1"),
        host_endpoint("z-any", "*"),
        host_endpoint("y-any", "*"),
        host_endpoint("workload", "cali111"),
        host_endpoint("unlisted", "eth9"),
        host=HostFacts({"eth0": ("198.51.100.10",), "eth1": ("10.9.0.10", "fd00:9::10"), "cali111": ()}),
    )
    names = ("eth0", "eth1", "eth7", "eth9", "eth10", "lo")
    assert {name: governing(node, name) for name in names} == {
        "eth0": "HostEndpoint/y-any",
        "eth1": "HostEndpoint/b-address",
        "eth7": "HostEndpoint/a-other-name",
        "eth9": "HostEndpoint/unlisted",
        "eth10": "HostEndpoint/y-any",
        "lo": "HostEndpoint/y-any",
    }
    assert told(node.answer(packet("filter-input", in_="cali111"))) == [
        "deny",
        "interface - - - Deny: unknown workload interface (E-38)",
    ]


def test_loopback_can_be_exempted_from_any_interface_only() -> None:
    """E-47."""
    settings = Settings(exempt_loopback=True)
    assert governing(node_of(host_endpoint("any", "*"), settings=settings), "lo") is None
    both = node_of(host_endpoint("any", "*"), host_endpoint("own", "lo"), settings=settings)
    assert governing(both, "lo") == "HostEndpoint/own"


def test_workloads_of_other_nodes_and_interfaces_without_the_prefix() -> None:
    remote = SHOP.replace("node: edge1", "node: edge2")
    assert told(node_of(remote).answer(packet("filter-forward", in_="cali111", out="eth0"))) == [
        "deny",
        "interface - - - Deny: unknown workload interface (E-38)",
    ]
    other_prefix = node_of(SHOP, settings=Settings(workload_prefixes=("tap", "veth")))
    assert told(other_prefix.answer(packet("filter-forward", in_="cali111", out="eth0"))) == [
        "continue",
        NO_ENDPOINT,
    ]
