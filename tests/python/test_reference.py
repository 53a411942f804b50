"""The reference's hooks and chains (semantics 4); every expectation is derived from the rules it cites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from labelgate.reference.reasons import Reason
from labelgate.settings import Failsafe, Settings
from reference_world import SHOP, global_policy, host_endpoint, node_of, packet, told

PROGRAM = Path(__file__).parents[2] / "src" / "program" / "mod.rs"
ALLOW_PROFILE = "[projectcalico-default-allow]"
NO_ENDPOINT = "interface - - - -: no endpoint here (E-39)"


def test_reasons_are_those_of_the_compiled_engines() -> None:
    pattern = re.compile(r"^    (\w+) => (None|Some\(Action::(\w+)\)), \"(.*)\";$", re.MULTILINE)
    compiled = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", match[1]).upper(): (match[3], match[4])
        for match in pattern.finditer(PROGRAM.read_text(encoding="utf-8"))
    }
    assert {reason.name: (reason.action, reason.text) for reason in Reason} == compiled


# raw PREROUTING and OUTPUT

UNTRACKED = global_policy("""
  selector: role == 'edge'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Deny, source: {nets: [10.9.66.0/24]}}
  - {action: Log, protocol: UDP}
  - {action: Allow, protocol: UDP, destination: {ports: [53]}}
  egress:
  - {action: Allow, protocol: UDP, source: {ports: [53]}}
""")
IN_RAW = "untracked HostEndpoint/out default GlobalNetworkPolicy/p"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (  # E-31
            packet("raw-prerouting", protocol="udp", sport=5353, dport=53, in_="eth0"),
            ["allow-notrack accepted", f"{IN_RAW}#1 Log: rule (M-53)", f"{IN_RAW}#2 Allow: rule (M-50)"],
        ),
        (
            packet("raw-prerouting", src="10.9.66.4", protocol="icmp", icmp=(8, 0), in_="eth0"),
            ["deny", f"{IN_RAW}#0 Deny: rule (M-51)"],
        ),
        (  # E-22; the mark on arrival is cleared (E-30); ct is not looked at
            packet("raw-prerouting", in_="eth0", accepted=True, ct="established"),
            ["continue", "untracked HostEndpoint/out - - -: no rule decided (E-22)"],
        ),
        (  # E-42
            packet("raw-prerouting", src="10.9.66.4", dport=22, in_="eth0", ct="invalid"),
            ["continue failsafe", "failsafe HostEndpoint/out - - Allow: failsafe (E-40)"],
        ),
        (  # E-43: the outbound list by source port
            packet("raw-prerouting", src="10.9.66.4", protocol="udp", sport=53, dport=5353, in_="eth0"),
            ["continue failsafe", "failsafe HostEndpoint/out - - Allow: failsafe, return half (E-43)"],
        ),
        (  # E-43: port 179 is in both lists; the destination is looked at first
            packet("raw-prerouting", sport=179, dport=179, in_="eth0"),
            ["continue failsafe", "failsafe HostEndpoint/out - - Allow: failsafe (E-40)"],
        ),
        (  # M-19: a later fragment is no failsafe
            packet("raw-prerouting", src="10.9.66.4", dport=22, in_="eth0", fragment=True),
            ["deny", f"{IN_RAW}#0 Deny: rule (M-51)"],
        ),
        (packet("raw-prerouting", in_="eth1", accepted=True), ["continue", NO_ENDPOINT]),
        (packet("raw-prerouting"), ["continue", NO_ENDPOINT]),
        (  # E-32
            packet("raw-output", protocol="udp", sport=53, dport=5353, out="eth0"),
            ["allow-notrack accepted", f"{IN_RAW}#0 Allow: rule (M-50)"],
        ),
        (  # E-43: the inbound list by source port
            packet("raw-output", sport=22, dport=40000, out="eth0"),
            ["continue failsafe", "failsafe HostEndpoint/out - - Allow: failsafe, return half (E-43)"],
        ),
        (packet("raw-output", out="cali111", accepted=True), ["continue", NO_ENDPOINT]),
        (  # E-30
            packet("raw-prerouting", src="10.65.0.2", in_="cali111", accepted=True),
            [
                "continue",
                "interface WorkloadEndpoint/shop/web - - -: workload interface, no untracked policy (E-30)",
            ],
        ),
        (
            packet("raw-prerouting", src="10.65.0.3", in_="cali111"),
            ["deny", "spoof WorkloadEndpoint/shop/web - - Deny: source is not the workload's (E-30)"],
        ),
        (  # allowSpoofedSourcePrefixes
            packet("raw-prerouting", src="10.99.1.1", in_="cali222"),
            [
                "continue",
                "interface WorkloadEndpoint/shop/db - - -: workload interface, no untracked policy (E-30)",
            ],
        ),
        (
            packet(
                "raw-prerouting",
                src="fe80::1",
                dst="ff02::1",
                in_="cali222",
                protocol="icmpv6",
                icmp=(135, 0),
            ),
            [
                "continue",
                "interface WorkloadEndpoint/shop/db - - -: workload interface, no untracked policy (E-30)",
            ],
        ),
        (
            packet(
                "raw-prerouting", src="::", dst="ff02::1", in_="cali222", protocol="icmpv6", icmp=(135, 0)
            ),
            [
                "continue",
                "interface WorkloadEndpoint/shop/db - - -: workload interface, no untracked policy (E-30)",
            ],
        ),
        (  # an unknown workload interface has no addresses, and no exemption
            packet(
                "raw-prerouting",
                src="fe80::1",
                dst="ff02::1",
                in_="cali333",
                protocol="icmpv6",
                icmp=(135, 0),
            ),
            ["deny", "interface - - - Deny: unknown workload interface (E-38)"],
        ),
    ],
)
def test_raw(asked, expected) -> None:
    assert told(node_of(SHOP, host_endpoint(), UNTRACKED).answer(asked)) == expected


def test_raw_failsafe_with_net_looks_at_the_remote_side() -> None:
    """E-41, E-43: also in the return half."""
    from ipaddress import ip_network

    settings = Settings(
        failsafe_inbound=(Failsafe(6, 22, ip_network("203.0.113.0/24")),),
        failsafe_outbound=(Failsafe(17, 53, ip_network("203.0.113.0/24")),),
    )
    node = node_of(host_endpoint(), UNTRACKED, settings=settings)
    near, far = "203.0.113.7", "192.0.2.5"
    verdicts = [
        told(node.answer(asked))[0]
        for source, target in ((near, far), (far, near))
        for asked in (
            packet("raw-prerouting", source, target, dport=22, in_="eth0"),
            packet("raw-prerouting", source, target, "udp", 53, 5353, in_="eth0"),
            packet("raw-output", source, target, "udp", 5353, 53, out="eth0"),
            packet("raw-output", source, target, "tcp", 22, 5353, out="eth0"),
        )
    ]
    inbound, outbound = "continue failsafe", "continue failsafe"
    assert verdicts == [inbound, inbound, "continue", "continue", "continue", "continue", outbound, outbound]


@pytest.mark.parametrize(("governed", "asked"), [("Ingress", "raw-output"), ("Egress", "raw-prerouting")])
def test_untracked_policy_of_one_direction_gives_raw_chains_in_both(governed, asked) -> None:
    """E-31, P-7: the chain of the other direction has failsafes and no rules."""
    spec = f"  {{doNotTrack: true, applyOnForward: true, types: [{governed}]}}"
    node = node_of(host_endpoint(), global_policy(spec))
    assert told(node.answer(packet(asked, in_="eth0", out="eth0"))) == [
        "continue",
        "untracked HostEndpoint/out - - -: no rule decided (E-22)",
    ]


def test_untracked_policy_on_any_interface_is_ignored() -> None:
    """E-47."""
    node = node_of(host_endpoint(interface="*"), UNTRACKED)
    assert told(node.answer(packet("raw-prerouting", src="10.9.66.4", in_="eth0"))) == [
        "continue",
        "interface HostEndpoint/out - - -: no untracked policy here (E-31)",
    ]


# mangle PREROUTING

PREDNAT = global_policy("""
  selector: role == 'edge'
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [30443]}}
  - {action: Deny, protocol: TCP, destination: {ports: ["30000:32767", 22]}}
""")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            packet("mangle-prerouting", dport=30443, in_="eth0"),
            [
                "allow-skip-hep accepted",
                "prednat HostEndpoint/out default GlobalNetworkPolicy/p#0 Allow: rule (M-50)",
            ],
        ),
        (
            packet("mangle-prerouting", dport=30999, in_="eth0"),
            ["deny", "prednat HostEndpoint/out default GlobalNetworkPolicy/p#1 Deny: rule (M-51)"],
        ),
        (
            packet("mangle-prerouting", dport=9100, in_="eth0"),
            ["continue", "prednat HostEndpoint/out - - -: no rule decided (E-22)"],
        ),
        (
            packet("mangle-prerouting", dport=22, in_="eth0"),
            ["continue failsafe", "failsafe HostEndpoint/out - - Allow: failsafe (E-40)"],
        ),
        (  # E-43 is for raw only
            packet("mangle-prerouting", protocol="udp", sport=53, dport=5353, in_="eth0"),
            ["continue", "prednat HostEndpoint/out - - -: no rule decided (E-22)"],
        ),
        (  # E-33: before the accept mark, which is kept
            packet("mangle-prerouting", dport=30999, in_="eth0", ct="related", accepted=True),
            ["continue accepted", "conntrack - - - -: established or related (E-33)"],
        ),
        (
            packet("mangle-prerouting", dport=30999, in_="eth0", ct="untracked", accepted=True),
            ["continue accepted", "prednat - - - Allow: accept mark (E-48)"],
        ),
        (
            packet("mangle-prerouting", dport=22, in_="eth0", ct="invalid"),
            ["deny", "conntrack HostEndpoint/out - - Deny: invalid (E-34)"],
        ),
        (packet("mangle-prerouting", in_="eth1", ct="invalid"), ["continue", NO_ENDPOINT]),
        (packet("mangle-prerouting", in_="cali333"), ["continue", NO_ENDPOINT]),
    ],
)
def test_mangle_prerouting(asked, expected) -> None:
    assert told(node_of(SHOP, host_endpoint(), PREDNAT).answer(asked)) == expected


@pytest.mark.parametrize(("exempt", "loopback"), [(False, "deny"), (True, "continue")])
def test_any_interface_prednat(exempt, loopback) -> None:
    """E-47: workload interfaces and lo too, and interfaces whose own host endpoint has no preDNAT policy."""
    own = host_endpoint("own", "eth1").replace("role: edge", "role: inner")
    node = node_of(
        SHOP,
        host_endpoint("any", "*"),
        own,
        PREDNAT,
        global_policy(
            """
  selector: role == 'inner'
  preDNAT: true
  applyOnForward: true
  ingress: [{action: Allow}]
""",
            "inner",
        ),
        host_endpoint("plain", "eth2").replace("role: edge", "role: plain"),
        settings=Settings(exempt_loopback=exempt),
    )
    verdicts = {
        name: node.answer(packet("mangle-prerouting", dport=30999, in_=name)).verdict
        for name in ("eth0", "eth1", "eth2", "cali111", "cali333", "lo")
    }
    assert verdicts == {
        "eth0": "deny",
        "eth1": "allow-skip-hep",
        "eth2": "deny",
        "cali111": "deny",
        "cali333": "deny",
        "lo": loopback,
    }


# filter INPUT and OUTPUT, mangle POSTROUTING

EDGE = global_policy("""
  selector: role == 'edge'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [9100]}}
""")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (  # an allow here does not set the mark
            packet("filter-input", dport=9100, in_="eth0"),
            ["allow", "normal HostEndpoint/out default GlobalNetworkPolicy/p#0 Allow: rule (M-50)"],
        ),
        (
            packet("filter-input", dport=80, in_="eth0", ct="untracked"),
            ["deny", "normal HostEndpoint/out default - Deny: end of tier (E-21)"],
        ),
        (
            packet("filter-input", dport=22, in_="eth0"),
            ["allow failsafe", "failsafe HostEndpoint/out - - Allow: failsafe (E-40)"],
        ),
        (
            packet("filter-input", in_="eth0", ct="related"),
            ["allow", "conntrack HostEndpoint/out - - Allow: established or related (E-20.2)"],
        ),
        (  # E-20: INVALID is looked at before failsafes
            packet("filter-input", dport=22, in_="eth0", ct="invalid"),
            ["deny", "conntrack HostEndpoint/out - - Deny: invalid (E-20.2)"],
        ),
        (
            packet("filter-input", in_="eth0", accepted=True, ct="invalid"),
            ["allow accepted", "normal - - - Allow: accept mark (E-48)"],
        ),
        (packet("filter-input", in_="eth1", ct="established"), ["continue", NO_ENDPOINT]),
        (  # E-12: types are [Ingress], so egress goes to the profiles, of which there are none (E-25)
            packet("filter-output", out="eth0"),
            ["deny", "normal HostEndpoint/out - - Deny: no profile allows (E-25)"],
        ),
        (
            packet("filter-output", out="eth0", protocol="udp", dport=53),
            ["allow failsafe", "failsafe HostEndpoint/out - - Allow: failsafe (E-40)"],
        ),
        (
            packet("filter-output", out="cali111", accepted=True),
            ["allow accepted", "normal - - - Allow: accept mark (E-48)"],
        ),
        (
            packet("filter-output", out="cali111", dnatted=True, ct="invalid"),
            ["continue", "interface WorkloadEndpoint/shop/web - - -: host to local workload (E-36)"],
        ),
        (
            packet("filter-output", out="cali333"),
            ["continue", "interface - - - -: host to local workload (E-36)"],
        ),
        (
            packet("filter-output", out="eth0", dnatted=True),
            ["continue", "normal - - - -: DNATed, judged in mangle POSTROUTING (E-37)"],
        ),
        (packet("filter-output", out="eth1"), ["continue", NO_ENDPOINT]),
        (
            packet("mangle-postrouting", in_="eth1", out="eth0", dnatted=True),
            ["continue", "normal - - - -: forwarded, judged in filter FORWARD (E-37)"],
        ),
        (
            packet("mangle-postrouting", out="eth0", accepted=True),
            ["continue accepted", "normal - - - -: not DNATed, judged in filter OUTPUT (E-37)"],
        ),
        (
            packet("mangle-postrouting", out="cali111", dnatted=True),
            ["continue", "interface WorkloadEndpoint/shop/web - - -: host to local workload (E-36)"],
        ),
        (
            packet("mangle-postrouting", out="eth0", dnatted=True, accepted=True),
            ["deny", "normal HostEndpoint/out - - Deny: no profile allows (E-25)"],
        ),
        (
            packet("mangle-postrouting", out="eth0", dnatted=True, protocol="udp", dport=67),
            ["continue failsafe", "failsafe HostEndpoint/out - - Allow: failsafe (E-40)"],
        ),
        (
            packet("mangle-postrouting", out="eth0", dnatted=True, ct="established", accepted=True),
            ["continue accepted", "conntrack HostEndpoint/out - - Allow: established or related (E-20.2)"],
        ),
        (packet("mangle-postrouting", out="eth1", dnatted=True), ["continue", NO_ENDPOINT]),
    ],
)
def test_filter_of_the_host(asked, expected) -> None:
    assert told(node_of(SHOP, host_endpoint(), EDGE).answer(asked)) == expected


def test_invalid_check_can_be_off() -> None:
    """E-20.2."""
    node = node_of(host_endpoint(), EDGE, settings=Settings(invalid_check=False))
    assert told(node.answer(packet("filter-input", dport=9100, in_="eth0", ct="invalid"))) == [
        "allow",
        "normal HostEndpoint/out default GlobalNetworkPolicy/p#0 Allow: rule (M-50)",
    ]


def test_profiles_of_a_host_endpoint() -> None:
    """E-25, R-28: where policy applies, profiles are not asked; R-29 in list order."""
    node = node_of(host_endpoint(profiles=ALLOW_PROFILE), EDGE)
    assert told(node.answer(packet("filter-output", out="eth0"))) == [
        "allow",
        "normal HostEndpoint/out - Profile/projectcalico-default-allow#0 Allow: profile rule (M-54)",
    ]
    assert node.answer(packet("filter-input", in_="eth0")).verdict == "deny"
    missing = node_of(host_endpoint(profiles="[gone, projectcalico-default-allow]"))
    assert told(missing.answer(packet("filter-output", out="eth0"))) == [
        "deny",
        "normal HostEndpoint/out - Profile/gone Deny: missing profile (R-29)",
    ]
    earlier = node_of(host_endpoint(profiles="[projectcalico-default-allow, gone]"))
    assert earlier.answer(packet("filter-output", out="eth0")).verdict == "allow"


def test_rules_of_profiles() -> None:
    """M-54: Pass ends a profile and the next one is tried; Log goes on."""
    node = node_of(
        host_endpoint(profiles="[first, second]"),
        """
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: first}
spec:
  ingress: [{action: Log}, {action: Pass}, {action: Allow}]
""",
        """
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: second}
spec:
  ingress: [{action: Allow, protocol: UDP}, {action: Deny, protocol: ICMP}]
""",
    )
    passed = [
        "normal HostEndpoint/out - Profile/first#0 Log: profile rule (M-54)",
        "normal HostEndpoint/out - Profile/first#1 Pass: profile rule (M-54)",
    ]
    assert told(node.answer(packet("filter-input", in_="eth0"))) == [
        "deny",
        *passed,
        "normal HostEndpoint/out - - Deny: no profile allows (E-25)",
    ]
    assert told(node.answer(packet("filter-input", in_="eth0", protocol="udp"))) == [
        "allow",
        *passed,
        "normal HostEndpoint/out - Profile/second#0 Allow: profile rule (M-54)",
    ]
    assert told(node.answer(packet("filter-input", in_="eth0", protocol="icmp", icmp=(8, 0)))) == [
        "deny",
        *passed,
        "normal HostEndpoint/out - Profile/second#1 Deny: profile rule (M-54)",
    ]


# workload to host

EGRESS = "workload-egress WorkloadEndpoint/shop/db"
PROFILE_ALLOWS = f"{EGRESS} - Profile/kns.shop#0 Allow: profile rule (M-54)"
TO_HOST = "workload-to-host WorkloadEndpoint/shop/db - -"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("Drop", ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"]),
        ("Accept", ["allow", PROFILE_ALLOWS, f"{TO_HOST} Allow: endpoint to host action (E-50)"]),
        ("Return", ["continue", PROFILE_ALLOWS, f"{TO_HOST} -: endpoint to host action (E-50)"]),
    ],
)
def test_endpoint_to_host(setting, expected) -> None:
    """E-50; a `*` host endpoint has no say."""
    node = node_of(SHOP, host_endpoint(interface="*"), EDGE, settings=Settings(endpoint_to_host=setting))
    assert told(node.answer(packet("filter-input", "10.65.0.3", "10.9.0.10", in_="cali222"))) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (  # E-35: a workload's packets are E-50's, marked or not
            packet("filter-input", "10.65.0.3", in_="cali222", accepted=True),
            ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"],
        ),
        (
            packet("filter-input", "10.65.0.3", in_="cali222", ct="established"),
            ["allow", "conntrack WorkloadEndpoint/shop/db - - Allow: established or related (E-20.2)"],
        ),
        (
            packet("filter-input", "10.65.0.3", in_="cali222", ct="invalid"),
            ["deny", "conntrack WorkloadEndpoint/shop/db - - Deny: invalid (E-20.2)"],
        ),
        (  # E-42: no failsafes for workloads
            packet("filter-input", "10.65.0.3", in_="cali222", dport=22),
            ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"],
        ),
        (
            packet("filter-input", "10.65.0.3", in_="cali222", protocol="udp", dport=4789),
            ["deny", f"{EGRESS} - - Deny: encapsulation from a workload (E-20.5)"],
        ),
        (  # before anything else
            packet(
                "filter-input", "fe80::3", "fe80::1", "icmpv6", icmp=(135, 0), in_="cali222", ct="invalid"
            ),
            ["allow", f"{TO_HOST} Allow: neighbour discovery (E-50)"],
        ),
        (
            packet("filter-input", "fe80::3", "fe80::1", "icmpv6", icmp=(133, 0), in_="cali333"),
            ["allow", "workload-to-host - - - Allow: neighbour discovery (E-50)"],
        ),
        (  # E-50 speaks of IPv6
            packet("filter-input", "10.65.0.3", "10.9.0.10", "icmpv6", icmp=(135, 0), in_="cali222"),
            ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"],
        ),
        (
            packet("filter-input", "fe80::3", "fe80::1", "icmp", icmp=(135, 0), in_="cali222"),
            ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"],
        ),
        (  # 134, a router advertisement, is not of these
            packet("filter-input", "fe80::3", "fe80::1", "icmpv6", icmp=(134, 0), in_="cali222"),
            ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"],
        ),
        (
            packet(
                "filter-input", "fe80::3", "fe80::1", "icmpv6", icmp=(135, 0), in_="cali222", fragment=True
            ),
            ["deny", PROFILE_ALLOWS, f"{TO_HOST} Deny: endpoint to host action (E-50)"],
        ),
        (
            packet("filter-input", "10.65.0.9", in_="cali333", ct="established"),
            ["deny", "interface - - - Deny: unknown workload interface (E-38)"],
        ),
    ],
)
def test_workload_to_host(asked, expected) -> None:
    assert told(node_of(SHOP).answer(asked)) == expected


@pytest.mark.parametrize(
    ("settings", "protocol", "expected"),
    [
        (Settings(), "ipip", "deny"),
        (Settings(workload_ipip_denied=False), "ipip", "allow accepted"),
        (Settings(workload_vxlan_port=None), "udp", "allow accepted"),
        (Settings(workload_vxlan_port=4790), "udp", "allow accepted"),
        (Settings(), "tcp", "allow accepted"),
    ],
)
def test_encapsulation(settings, protocol, expected) -> None:
    """E-20.5: from workloads only, as configured."""
    node = node_of(SHOP, settings=settings)
    asked = packet("filter-forward", "10.65.0.3", protocol=protocol, dport=4789, in_="cali222", out="eth0")
    assert told(node.answer(asked))[0] == expected
    asked = packet(
        "filter-forward", dst="10.65.0.3", protocol=protocol, dport=4789, in_="eth0", out="cali222"
    )
    assert told(node.answer(asked))[0] == "allow accepted"
