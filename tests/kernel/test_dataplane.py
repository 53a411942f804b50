"""The five options on packets, beyond the rows of the cases: conntrack, DNAT, INVALID, what pods send."""

from __future__ import annotations

import socket
from pathlib import Path

import policies
import pytest
from kit import (
    Ear,
    add_pod,
    add_rules,
    count,
    echo_server,
    enforce,
    hits,
    inject,
    ip,
    passing,
    twins,
    wait_until,
    words,
)
from labelgate.demo.traffic import Probe, ask, conntrack_entries, family, owner, ready
from labelgate.demo.world import (
    BANNED,
    CLIENT,
    DB,
    DB_POD,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    OUTSIDE,
    RESOLVER_CLIENT,
    STRANGER,
    WEB,
    WEB_POD,
    World,
    twin,
)
from scapy.layers.inet import TCP, UDP

DNS = Probe("udp", RESOLVER_CLIENT, EDGE_INSIDE, 5353)


def test_untracked(world: World, backend: str, tmp_path: Path) -> None:
    """E-60: no conntrack entry, UNTRACKED later, in both directions; the rest of the interface is tracked."""
    untracked = "-m conntrack --ctstate UNTRACKED"
    for chain, port in (("PREROUTING", "--dport"), ("INPUT", "--dport"), ("OUTPUT", "--sport")):
        add_rules(
            world, backend, "mangle",
            count(chain, f"{chain}-untracked", f"-p udp {port} 5353 {untracked}"),
            count(chain, f"{chain}-tracked", f"-p udp {port} 5353 -m conntrack ! --ctstate UNTRACKED"),
        )  # fmt: skip
    ssh, refused = Probe("tcp", BANNED, EDGE_INSIDE, 22), Probe("udp", BANNED, EDGE_INSIDE, 5353)
    with (
        enforce(world, tmp_path, backend, policies.RESOLVER) as daemon,
        echo_server(world, EDGE, EDGE_INSIDE, 5353),
        echo_server(world, EDGE, twin(EDGE_INSIDE), 5353),
    ):
        assert [ask(world, probe, b"who?") for probe in twins(DNS, refused)] == [b"who?", b"who?", None, None]
        assert passing(world, *twins(ssh)) == words(*twins(ssh))
        assert conntrack_entries(world, EDGE, "dport=5353") == 0
        # A failsafe in raw leaves the packet tracked (E-44).
        assert conntrack_entries(world, EDGE, "dport=22") == 2
        seen = hits(world, backend, "mangle")
        assert seen == {
            f"{chain}-{state}": (1, 1) if state == "untracked" else (0, 0)
            for chain in ("PREROUTING", "INPUT", "OUTPUT")
            for state in ("untracked", "tracked")
        }
        raw_output = daemon.counters()["hooks"]["raw-output"]["verdicts"]
        assert raw_output["allow-notrack"] == 2
        # E-61: without the egress rule the answer is tracked, and the host's normal policy denies it.
        policy = tmp_path / "policy.yaml"
        text = policy.read_text(encoding="utf-8")
        policy.write_text(text[: text.index("  egress:\n")], encoding="utf-8")
        daemon.reload()
        assert [ask(world, probe, b"who?") for probe in twins(DNS)] == [None, None]
        assert hits(world, backend, "mangle")["OUTPUT-tracked"] == (1, 1)


FORCED = {4: (socket.IPPROTO_IP, 50), 6: (socket.IPPROTO_IPV6, 76)}
"""IP_UNICAST_IF and IPV6_UNICAST_IF (linux/in.h, linux/in6.h)."""
ALL_OUT = "  types: [Egress]\n  egress: [{action: Allow}]\n"


def test_sockets_keep_the_interface_that_they_force(world: World, backend: str, tmp_path: Path) -> None:
    """E-32, E-36: what policy was asked about the interface of, leaves by it, whatever the routes say.

    From port 5353 untracked policy allows it, from 5354 it has nothing to say.
    """

    def force(source: str, port: int, to: str) -> None:
        with socket.socket(family(source), socket.SOCK_DGRAM) as sender:
            level, option = FORCED[4 if family(source) == socket.AF_INET else 6]
            sender.setsockopt(level, option, socket.if_nametoindex("eth1").to_bytes(4, "big"))
            sender.bind((source, port))
            sender.sendto(b"x", (to, 9500))

    to = RESOLVER_CLIENT
    for metric, interface in enumerate(("eth0", "eth1"), 1):
        world.run(EDGE, *f"ip route add {to} dev {interface} metric {metric}".split())
        # For IPv6 an interface chooses among routes of the same metric; without one the first is taken.
        world.run(EDGE, *f"ip route append {twin(to)} dev {interface}".split())
    rules = [
        count("POSTROUTING", f"{interface}-{state}", f"-o {interface} -p udp -m udp --dport 9500 {match}")
        for interface in ("eth0", "eth1")
        for state, match in (
            ("untracked", "-m conntrack --ctstate UNTRACKED"),
            ("tracked", "-m conntrack ! --ctstate UNTRACKED"),
        )
    ]
    add_rules(world, backend, "mangle", *rules)
    text = f"{policies.RESOLVER}---{policies.policy('out', ALL_OUT, order=50)}"
    with enforce(world, tmp_path, backend, text):
        for source, target in ((EDGE_INSIDE, to), (twin(EDGE_INSIDE), twin(to))):
            for port in (5353, 5354):
                world.call(EDGE, force, source, port, target)
        assert hits(world, backend, "mangle") == {
            "eth0-untracked": (0, 0),
            "eth0-tracked": (0, 0),
            "eth1-untracked": (1, 1),
            "eth1-tracked": (1, 1),
        }


@pytest.mark.parametrize("place", ["ahead", "behind", "late", "elsewhere"])
def test_what_others_leave_untracked_is_judged(
    world: World, backend: str, place: str, tmp_path: Path
) -> None:
    """E-36: only what untracked policy accepts is accepted in filter OUTPUT, not what NOTRACK rules name."""
    egress = "  types: [Egress]\n  egress: [{action: Allow, protocol: UDP, destination: {ports: [9501]}}]\n"
    notrack = "-A OUTPUT -p udp -m udp --dport 9500:9501 -j CT --notrack"
    text = f"{policies.RESOLVER}---{policies.policy('out', egress, order=50)}"
    sent = [Probe("udp", EDGE_INSIDE, INSIDE_HOST, port) for port in (9500, 9501)]
    other = {"nft": "legacy", "legacy": "nft"}[backend] if place == "elsewhere" else backend
    if place != "late":
        add_rules(world, other, "raw", notrack)
    mode = "append" if place == "ahead" else "insert"
    with enforce(world, tmp_path, backend, text, chainInsertMode=mode):
        if place == "late":
            add_rules(world, backend, "raw", notrack)
            wait_until(lambda: passing(world, *twins(*sent)) == words(*twins(sent[1])), 5)
        assert passing(world, *twins(*sent)) == words(*twins(sent[1]))
        assert conntrack_entries(world, EDGE, "dport=9501") == 0


@pytest.mark.parametrize(
    ("rule", "mode"), [("ACCEPT", "insert"), ("CT --zone 5", "insert"), ("CT --zone 5", "append")]
)
def test_others_in_raw_output_take_nothing_from_untracked_policy(
    world: World, backend: str, rule: str, mode: str, tmp_path: Path
) -> None:
    """Neither one that ends the table nor one after which no packet can be left untracked (E-36, E-48)."""
    add_rules(world, backend, "raw", f"-A OUTPUT -p udp -m udp --sport 5353 -j {rule}")
    with (
        enforce(world, tmp_path, backend, policies.RESOLVER, chainInsertMode=mode),
        echo_server(world, EDGE, EDGE_INSIDE, 5353),
        echo_server(world, EDGE, twin(EDGE_INSIDE), 5353),
    ):
        assert [ask(world, probe, b"who?") for probe in twins(DNS)] == [b"who?", b"who?"]


NAT = (
    ":KUBE-SVC - [0:0]",
    count("PREROUTING", "web", f"-d {EDGE_OUTSIDE} -p tcp -m tcp --dport 30443", "KUBE-SVC"),
    "-A KUBE-SVC -p tcp -m tcp --dport 30443 -j DNAT --to-destination {web}:443",
    count(
        "PREROUTING",
        "db",
        f"-d {EDGE_OUTSIDE} -p tcp -m tcp --dport 30999",
        "DNAT --to-destination {db}:5432",
    ),
)
FORWARD_DENIED = policies.policy(
    "forward-nothing",
    """
  types: [Ingress]
  ingress:
  - {action: Deny}
""",
    more="  applyOnForward: true\n",
)


def dnat(world: World, backend: str) -> None:
    for name, web, db in (("v4", WEB_POD, DB_POD), ("v6", f"[{twin(WEB_POD)}]", f"[{twin(DB_POD)}]")):
        rules = [rule.format(web=web, db=db) for rule in NAT]
        add_rules(world, backend, "nat", *rules, families=[name])


def test_prednat(world: World, backend: str, tmp_path: Path) -> None:
    """M-34: judged before DNAT and, if allowed, not judged again by the host endpoint (E-48)."""
    dnat(world, backend)
    web = Probe("tcp", CLIENT, EDGE_OUTSIDE, 30443, arrives_at=(WEB_POD, 443))
    stranger = Probe("tcp", STRANGER, EDGE_OUTSIDE, 30443, arrives_at=(WEB_POD, 443))
    db = Probe("tcp", CLIENT, EDGE_OUTSIDE, 30999, arrives_at=(DB_POD, 5432))
    straight = Probe("tcp", CLIENT, WEB_POD, 443)
    with enforce(world, tmp_path, backend, f"{policies.NODE_PORT}---{FORWARD_DENIED}"):
        assert passing(world, *twins(stranger, db)) == []
        assert hits(world, backend, "nat") == {"web": (0, 0), "db": (0, 0)}
        assert conntrack_entries(world, EDGE, "dport=30443") == 0
        assert conntrack_entries(world, EDGE, "dport=30999") == 0
        # The host endpoint denies all forwarding, but for what preDNAT policy has allowed.
        assert passing(world, *twins(web, straight)) == words(*twins(web))
        assert hits(world, backend, "nat") == {"web": (1, 1), "db": (0, 0)}
        assert conntrack_entries(world, EDGE, "dport=30443") == 2


EGRESS = """
  types: [Egress]
  egress:
  - {action: Allow, protocol: TCP, destination: {nets: [10.9.0.50/32], ports: [8080]}}
"""


def test_locally_made_dnatted_flows(world: World, backend: str, tmp_path: Path) -> None:
    """E-37: judged in mangle POSTROUTING, by the interface that they leave by after DNAT."""
    for name, host in (("v4", INSIDE_HOST), ("v6", f"[{twin(INSIDE_HOST)}]")):
        tcp = "-p tcp -m tcp"
        add_rules(
            world, backend, "nat",
            f"-A OUTPUT -d 8.8.8.8 {tcp} --dport 80 -j DNAT --to-destination {host}:8080",
            f"-A OUTPUT -d 8.8.8.8 {tcp} --dport 81 -j DNAT --to-destination {host}:8081",
            f"-A PREROUTING -d {EDGE_OUTSIDE} {tcp} --dport 30081 -j DNAT --to-destination {host}:8081",
            families=[name],
        )  # fmt: skip
    allowed = Probe("tcp", EDGE_OUTSIDE, "8.8.8.8", 80, arrives_at=(INSIDE_HOST, 8080))
    denied = Probe("tcp", EDGE_OUTSIDE, "8.8.8.8", 81, arrives_at=(INSIDE_HOST, 8081))
    forwarded = Probe("tcp", CLIENT, EDGE_OUTSIDE, 30081, arrives_at=(INSIDE_HOST, 8081))
    plain = Probe("tcp", EDGE_OUTSIDE, "8.8.8.8", 82)
    # eth0, where these flows seem to leave, denies all; eth1, where they do leave, only what the policy says.
    hosts = f"{policies.host()}---{policies.host('edge1-in', 'eth1')}---{policies.policy('out', EGRESS)}"
    with enforce(world, tmp_path, backend, hosts) as daemon:
        probes = twins(allowed, denied, forwarded, plain)
        assert passing(world, *probes) == words(*twins(allowed, forwarded))
        verdicts = daemon.counters()["hooks"]["mangle-postrouting"]["verdicts"]
        assert verdicts["continue"] >= 2
        assert verdicts["deny"] >= 2


def test_invalid(world: World, backend: str, tmp_path: Path) -> None:
    """E-20.2: a packet that belongs to no connection is denied by the first stage with an endpoint."""
    hosts = f"{policies.MANAGEMENT}---{policies.PODS}"
    resets = [
        (sender, ip(*addresses) / TCP(sport=1234, dport=port, flags="R"))
        for sender, src, dst, port in (
            (OUTSIDE, CLIENT, EDGE_OUTSIDE, 9100),
            (OUTSIDE, STRANGER, EDGE_OUTSIDE, 9100),
            (INSIDE, INSIDE_HOST, WEB_POD, 80),
        )
        for addresses in ((src, dst), (twin(src), twin(dst)))
    ]

    def heard() -> list[list[int]]:
        ears = [Ear(world, host, version, socket.IPPROTO_TCP) for host in (EDGE, WEB) for version in (4, 6)]
        for sender, packet in resets:
            inject(world, sender, packet)
        ports = [ear.ports() for ear in ears]
        for ear in ears:
            ear.__exit__(None, None, None)
        return ports

    with enforce(world, tmp_path, backend, hosts):
        assert heard() == [[], [], [], []]
        assert segments_heard(world) == {b"in order"}
    with enforce(world, tmp_path, backend, hosts, disableConntrackInvalidCheck=True):
        # Policy decides: of the two to the host the stranger's is denied.
        assert heard() == [[9100], [9100], [80], [80]]


@pytest.mark.parametrize("checksums", ["0", "1"])
def test_udplite(world: World, backend: str, checksums: str, tmp_path: Path) -> None:
    """Policy decides about UDPLite where conntrack compares no checksums, and untracked policy always."""
    world.set_sysctls(EDGE, {"net/netfilter/nf_conntrack_checksum": checksums})
    more = "  doNotTrack: true\n  applyOnForward: true\n" if checksums == "1" else ""
    rule = "{action: Allow, protocol: UDPLite, source: {nets: [203.0.113.0/24]}}"
    allowed = policies.policy("light", f"  types: [Ingress]\n  ingress:\n  - {rule}\n", more)

    def light(address: str, port: int) -> socket.socket:
        made = socket.socket(family(address), socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE)
        made.bind((address, port))
        made.settimeout(0)
        return made

    def heard(src: str, dst: str) -> bool:
        with (
            world.call(EDGE, lambda: light(dst, 9100)) as receiver,
            world.call(OUTSIDE, lambda: light(src, 0)) as sender,
        ):
            sender.sendto(b"light", (dst, 9100))
            return ready(world, receiver)

    with enforce(world, tmp_path, backend, f"{policies.host()}---{allowed}"):
        for of in (str, twin):
            assert heard(of(CLIENT), of(EDGE_OUTSIDE))
            assert not heard(of(STRANGER), of(EDGE_OUTSIDE))


def segments_heard(world: World) -> set[bytes]:
    """Payloads that come to the edge node: one in order, and one far outside of the window."""

    def listen() -> socket.socket:
        return socket.create_server((EDGE_OUTSIDE, 9100))

    def connect() -> socket.socket:
        return socket.create_connection((EDGE_OUTSIDE, 9100), timeout=30, source_address=(CLIENT, 4321))

    with (
        world.call(EDGE, listen) as server,
        world.call(OUTSIDE, connect) as client,
        server.accept()[0],
        Ear(world, EDGE, 4, socket.IPPROTO_TCP) as ear,
    ):
        client.sendall(b"in order")
        heard = [TCP(packet) for packet in ear.packets()]
        sent = next(segment for segment in heard if bytes(segment.payload))
        forged = TCP(sport=4321, dport=9100, seq=(sent.seq + 2**30) % 2**32, ack=sent.ack, flags="PA")
        inject(world, OUTSIDE, ip(CLIENT, EDGE_OUTSIDE) / forged / b"outside")
        # Late answers have TCP send again, and pure acknowledgements carry nothing.
        return {bytes(segment.payload) for segment in [*heard, *map(TCP, ear.packets())]} - {b""}


@pytest.mark.parametrize("version", [4, 6])
def test_pods_cannot_spoof_or_tunnel(world: World, backend: str, version: int, tmp_path: Path) -> None:
    """E-30, E-20.5: a pod sends from its own addresses only, and no tunnels."""

    def of(address: str) -> str:
        return address if version == 4 else twin(address)

    def udp(src: str, port: int, dst: str = INSIDE_HOST) -> bytes:
        return bytes(ip(of(src), of(dst)) / UDP(sport=999, dport=port) / b"x")

    tunnel = bytes(ip(of(WEB_POD), of(INSIDE_HOST), **{"proto" if version == 4 else "nh": 4}) / b"tunnelled")
    with (
        enforce(world, tmp_path, backend, policies.PODS) as daemon,
        Ear(world, INSIDE, version, socket.IPPROTO_UDP) as inside,
        Ear(world, INSIDE, version, 4) as tunnels,
        Ear(world, DB, version, socket.IPPROTO_UDP) as pod,
    ):
        inject(world, WEB, udp(WEB_POD, 1), udp(DB_POD, 2), udp(CLIENT, 3), udp(WEB_POD, 4789), tunnel)
        inject(world, WEB, udp(WEB_POD, 5, DB_POD), udp(INSIDE_HOST, 6, DB_POD), udp(WEB_POD, 4789, DB_POD))
        assert (inside.ports(), tunnels.packets(), pod.ports()) == ([1], [], [5])
        daemon.stop()
        inject(world, WEB, udp(WEB_POD, 1), udp(DB_POD, 2), udp(CLIENT, 3), udp(WEB_POD, 4789), tunnel)
        assert (inside.ports(), tunnels.packets()) == ([1, 2, 3, 4789], [b"tunnelled"])
    given = {"allowVXLANPacketsFromWorkloads": True, "allowIPIPPacketsFromWorkloads": True}
    with (
        enforce(world, tmp_path, backend, policies.PODS, **given),
        Ear(world, INSIDE, version, socket.IPPROTO_UDP) as inside,
        Ear(world, INSIDE, version, 4) as tunnels,
    ):
        inject(world, WEB, udp(WEB_POD, 4789), udp(DB_POD, 4789), tunnel)
        assert (inside.ports(), tunnels.packets()) == ([4789], [b"tunnelled"])


def test_unknown_workload_interface(world: World, backend: str, tmp_path: Path) -> None:
    """E-38.3: a `cali` interface that no workload has is denied, in raw already, and nothing goes to it."""
    add_pod(world, "cali999", "10.65.0.9")
    with enforce(world, tmp_path, backend, policies.PODS) as daemon:
        to_it = Probe("udp", CLIENT, "10.65.0.9", 7000)
        assert not arrives_at_late_pod(world, to_it)
        assert not leaves_late_pod(world)
        daemon.stop()
        assert arrives_at_late_pod(world, to_it)
        assert leaves_late_pod(world)


def arrives_at_late_pod(world: World, probe: Probe) -> bool:
    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((probe.src, 0))
            sender.sendto(b"x", (probe.dst, probe.dport))

    with Ear(world, WEB, 4, socket.IPPROTO_UDP) as ear:
        world.call(owner(probe.src), work)
        return ear.ports() == [probe.dport]


def leaves_late_pod(world: World) -> bool:
    mac = world.run(EDGE, "cat", "/sys/class/net/cali999/address").strip()
    packet = bytes(ip("10.65.0.9", INSIDE_HOST) / UDP(sport=999, dport=7001) / b"x")

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
            wire.sendto(packet, ("late0", 0x0800, 0, 0, bytes.fromhex(mac.replace(":", ""))))

    with Ear(world, INSIDE, 4, socket.IPPROTO_UDP) as ear:
        world.call(WEB, work)
        return ear.ports() == [7001]


def test_neighbour_discovery_of_pods(world: World, backend: str, tmp_path: Path) -> None:
    """E-50: a pod without policy for the host finds its gateway, and the node finds the pod."""
    web_to_db, host_to_pod = Probe("icmp", WEB_POD, DB_POD), Probe("udp", EDGE_INSIDE, WEB_POD, 7000)
    pod_to_host = Probe("udp", WEB_POD, EDGE_INSIDE, 7000)
    with enforce(world, tmp_path, backend, policies.PODS):
        for host, device in ((WEB, "eth0"), (DB, "eth0"), (EDGE, "cali111"), (EDGE, "cali222")):
            world.run(host, "ip", "neighbour", "flush", "dev", device)
        assert passing(world, web_to_db.twin) == words(web_to_db.twin)
        for host, device in ((WEB, "eth0"), (EDGE, "cali111")):
            world.run(host, "ip", "neighbour", "flush", "dev", device)
        assert passing(world, host_to_pod.twin, pod_to_host.twin) == words(host_to_pod.twin)
