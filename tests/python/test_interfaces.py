"""What the daemon says of interfaces that come and go, and of endpoints that lose theirs."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from labelgate.agent.rate_limit import RateLimited
from labelgate.agent.status import _count
from labelgate.links import Link, Links, Master
from test_agent import LATE, POLICY, TWIN, UPLINK, Kernel, agent_of, run

pytest_plugins = ["test_agent"]

RENAMED = Link(UPLINK.index, "wan0", UPLINK.addresses)


def becomes(kernel: Kernel, *states: tuple[Link, ...]) -> None:
    def change(links: tuple[Link, ...]) -> None:
        kernel.links = Links(links)

    kernel.steps = [lambda links=links: change(links) for links in states]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ((UPLINK,), (UPLINK, LATE), "interfaces: eth1 is new"),
        ((UPLINK, LATE), (UPLINK,), "interfaces: eth1 is gone"),
        ((UPLINK, LATE), (UPLINK, Link(3, "eth2", LATE.addresses)), "interfaces: eth1 is eth2"),
        (
            (UPLINK, LATE),
            (UPLINK, Link(3, "eth1", ("10.9.0.11", "fd09::1"))),
            "interfaces: eth1 +10.9.0.11, +fd09::1 -10.9.0.10",
        ),
        (
            (UPLINK,),
            (UPLINK, *(Link(n, f"cali{n}", ()) for n in range(10, 410))),
            "interfaces: " + ", ".join(f"cali{n} is new" for n in range(10, 20)) + " and 390 more",
        ),
    ],
)
def test_what_changed_is_said(
    kernel: Kernel, policy: Path, before: tuple[Link, ...], after: tuple[Link, ...], line: str
) -> None:
    kernel.links = Links(before)
    becomes(kernel, after)
    assert [said for said in run(policy) if said.startswith("interfaces")] == [line]


def test_an_endpoint_that_loses_its_interface_is_named(kernel: Kernel, policy: Path) -> None:
    """By its name, or by the address that it is known by."""
    policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")
    kernel.links = Links((UPLINK, LATE))
    becomes(kernel, (RENAMED, LATE), (RENAMED,), (UPLINK, LATE))
    assert [line for line in run(policy) if "interface now" in line] == [
        "without an interface now: HostEndpoint/out",
        "without an interface now: HostEndpoint/in",
        "with an interface now: HostEndpoint/in, HostEndpoint/out",
    ]


def test_interfaces_that_flap_do_not_fill_the_log(kernel: Kernel, policy: Path) -> None:
    becomes(kernel, *((UPLINK,), (UPLINK, LATE)) * 100)
    said = [line for line in run(policy) if line.startswith("interfaces")]
    assert len(said) == RateLimited.MOST


def test_only_endpoints_with_an_interface_count(kernel: Kernel, policy: Path) -> None:
    policy.write_text(f"{POLICY}---{TWIN}".replace("eth0", "eth9"), encoding="utf-8")
    kernel.links = Links((UPLINK, LATE))
    said: list[str] = []
    agent = agent_of(policy, said)
    agent.run()
    assert "1 host endpoints, 0 workloads with interfaces" in said[0]
    assert _count(agent._enforcement.current)["hostEndpoints"] == 1


ODD = Link(4, "eth1;", LATE.addresses)
ANY = POLICY.replace("out", "any").replace("eth0", '"*"')


@pytest.mark.parametrize(
    ("more", "governed"),
    [("", "no endpoint governs it"), (f"---{ANY}", "the `*` host endpoint governs it instead")],
)
def test_a_name_that_rules_cannot_hold_stands_in_nobodys_way(
    kernel: Kernel, policy: Path, more: str, governed: str
) -> None:
    """E-45: found by its address; a change behind it is followed, and the next start goes on."""
    policy.write_text(f"{POLICY}---{TWIN}{more}", encoding="utf-8")
    warning = (
        "warning: HostEndpoint/in: `eth1;` has 10.9.0.10, and a name that rules cannot hold: "
        f"{governed}; give it another name"
    )
    kernel.links = Links((UPLINK, LATE))
    becomes(kernel, (UPLINK, ODD), (RENAMED, ODD))
    said = run(policy)
    assert said.count(warning) == 1
    assert "without an interface now: HostEndpoint/out" in said
    assert not [line for line in said if "stays in force" in line]
    kernel.steps = []
    assert warning in run(policy)


def test_an_endpoint_that_takes_its_name_from_the_policy_is_told(kernel: Kernel, policy: Path) -> None:
    """A reload, too, may expect an address of an interface that rules cannot name."""
    kernel.links = Links((UPLINK, ODD))
    kernel.steps = [
        lambda: policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8"),
        lambda: os.kill(os.getpid(), signal.SIGHUP),
        lambda: None,
    ]
    assert sum(line.startswith("warning: HostEndpoint/in: `eth1;` has") for line in run(policy)) == 1


WORKLOAD = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: vm, namespace: shop}
spec: {node: edge1, interfaceName: cali1, ipNetworks: [10.65.0.2/32]}
"""


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("bridge", "is a port of bridge `br0`, which rules see in its place: it is not enforced"),
        ("", "is a port of `br0`, which rules see in its place: it is not enforced"),
        ("vrf", "is in VRF `br0`, which rules see, too, or in its place"),
    ],
)
def test_a_port_of_something_else_is_told(kernel: Kernel, policy: Path, kind: str, how: str) -> None:
    """At the start, and when it comes to be one; those that nobody governs by name are not."""
    policy.write_text(f"{POLICY}---{WORKLOAD}---{ANY}", encoding="utf-8")
    master = Master("br0", kind)
    pod, port, other = Link(5, "cali1", ()), Link(5, "cali1", (), master), Link(6, "eth6", (), master)
    kernel.links = Links((replace(UPLINK, master=master), pod, other, Link(7, "br0", ())))
    becomes(kernel, (UPLINK, port, other, Link(7, "br0", ())))
    said = run(policy)
    assert [line for line in said if how in line] == [
        f"warning: HostEndpoint/out: `eth0` {how}; name `br0` in interfaceName",
        f"warning: WorkloadEndpoint/shop/vm: `cali1` {how}; "
        "let the host route to it, without `br0` (docs/operations.md, VMs on bridges)",
    ]
    assert "interfaces: eth0 leaves br0, cali1 joins br0" in said
