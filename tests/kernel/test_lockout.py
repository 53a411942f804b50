"""Who works on the host now, and what it needs, is judged before a change; deny-now cuts what is denied."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import policies
import pytest
from kit import add_rules, wait_until
from labelgate.agent.loose import netns_cookie
from labelgate.control import ControlError, ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe, connect, ready, send
from labelgate.demo.world import (
    CLIENT,
    EDGE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    OUTSIDE,
    STRANGER,
    World,
)
from labelgate.flow import TCP, UDP
from labelgate.links import read_links
from labelgate.lockout import Flow, Host, forget_connections, read_connections
from labelgate.lockout.many import by_column, flow_of, ways

NFT = "nft"
"""Where the variant of iptables has no say."""
NO_FAILSAFES = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
"""


def rules(*ingress: str) -> str:
    """Default deny for what comes in at eth0, but for these."""
    listed = "".join(f"  - {{action: Allow, {rule}}}\n" for rule in ingress)
    text = f"  types: [Ingress]\n  ingress:\n{listed}"
    return f"{NO_FAILSAFES}---{policies.host()}---{policies.policy('management', text)}"


SSH = "protocol: TCP, destination: {ports: [22]}"
WEB = "protocol: TCP, destination: {ports: [9998]}"
ICMPV6 = "protocol: ICMPv6"
FROM_CLIENT = f"protocol: TCP, source: {{nets: [{CLIENT}/32]}}, destination: {{ports: [22, 9998]}}"


@contextmanager
def session(world: World, src: str, host: str, dst: str, port: int) -> Iterator[tuple[socket.socket, ...]]:
    """A connection from the outside host: both ends."""

    def listen() -> socket.socket:
        return socket.create_server((dst, port))

    def connect() -> socket.socket:
        return socket.create_connection((dst, port), timeout=30, source_address=(src, 0))

    with (
        world.call(host, listen) as server,
        world.call(OUTSIDE, connect) as client,
        server.accept()[0] as peer,
    ):
        yield client, peer


@contextmanager
def datagrams(world: World, src: str, port: int) -> Iterator[tuple[socket.socket, ...]]:
    """The same over UDP, to the edge node."""

    def made(address: str) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, port))
        return opened

    with world.call(OUTSIDE, made, src) as client, world.call(EDGE, made, EDGE_OUTSIDE) as server:
        client.connect((EDGE_OUTSIDE, port))
        server.connect((src, port))
        yield client, server


def exchange(world: World, *ends: socket.socket) -> bool:
    """Whether a byte goes there and one comes back."""
    for sender, receiver in (ends, ends[::-1]):
        try:
            sender.sendall(b"x")
        except PermissionError:  # So a rule of the kernel says to whom sends a datagram that it drops.
            return False
        if not ready(world, receiver):
            return False
        receiver.recv(1)
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(rules(SSH, WEB, ICMPV6), encoding="utf-8")
    return path


def connects(world: World, src: str, port: int) -> bool:
    """Whether a server that is there already can be reached anew."""

    def work() -> bool:
        with socket.socket() as client:
            client.bind((src, 0))
            return connect(world, client, (EDGE_OUTSIDE, port)) == 0

    return world.call(OUTSIDE, work)


def labelgate(
    world: World, daemon: Daemon, *arguments: str, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """A client command in the edge node: exit code and all that it says."""
    variables = [f"{name}={value}" for name, value in (env or {}).items()]
    command = [
        "ip",
        "netns",
        "exec",
        world.namespace(EDGE),
        "env",
        *variables,
        sys.executable,
        "-m",
        "labelgate",
        *arguments,
        "--socket",
        daemon.socket,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_session_over_ssh_is_not_locked_out(world: World, backend: str, file: Path, tmp_path: Path) -> None:
    """By edits, reload and apply, unless forced; then the session goes on, and a rollback helps."""
    new = tmp_path / "new.yaml"
    new.write_text(rules(WEB, ICMPV6), encoding="utf-8")
    with Daemon(world, file, backend=backend, watch=True) as daemon, ExitStack() as stack:
        ssh = stack.enter_context(session(world, STRANGER, EDGE, EDGE_OUTSIDE, 22))
        code, said = labelgate(world, daemon, "apply", "-f", str(new), "--confirm", "60s")
        assert (code, f"ssh session: tcp {STRANGER}" in said) == (1, True)
        assert "filter-input: end of tier (E-21)" in said
        code, said = labelgate(world, daemon, "check", "-f", str(new), "--live")
        assert (code, f"ssh session: tcp {STRANGER}" in said) == (1, True)
        ssh[0].close()

        talking = stack.enter_context(session(world, STRANGER, EDGE, EDGE_OUTSIDE, 9998))
        environ = {"SSH_CONNECTION": f"{STRANGER} {talking[0].getsockname()[1]} {EDGE_OUTSIDE} 9998"}
        new.write_text(rules(FROM_CLIENT, ICMPV6), encoding="utf-8")
        arguments = ("apply", "-f", str(new), "--confirm", "60s")
        code, said = labelgate(world, daemon, *arguments, env=environ)
        assert (code, "the session that asks" in said) == (1, True)
        code, said = labelgate(world, daemon, *arguments, "--force", env=environ)
        assert (code, "the session that asks" in said, "generation 2 in force" in said) == (0, True, True)
        assert exchange(world, *talking)
        assert not connects(world, STRANGER, 22)
        assert connects(world, CLIENT, 22)
        assert labelgate(world, daemon, "rollback")[0] == 0
        assert connects(world, STRANGER, 22)


def test_an_edit_that_locks_out_is_refused(world: World, file: Path) -> None:
    with (
        Daemon(world, file, backend=NFT, watch=True) as daemon,
        session(world, STRANGER, EDGE, EDGE_OUTSIDE, 22) as ssh,
    ):
        file.write_text(rules(WEB, ICMPV6), encoding="utf-8")
        daemon.wait_for("generation 1 stays in force")
        assert any(f"ssh session: tcp {STRANGER}" in line for line in daemon.log)
        assert f"ssh session: tcp {STRANGER}" in ask(daemon.socket, "status")["refused"]["message"]
        assert exchange(world, *ssh)
        with pytest.raises(ControlError, match="ssh session"):
            ask(daemon.socket, "reload")
        assert ask(daemon.socket, "reload", force=True)["generation"] == 2
        assert not connects(world, STRANGER, 22)
        assert exchange(world, *ssh)


def test_what_a_host_cannot_do_without(world: World, file: Path, tmp_path: Path) -> None:
    """Neighbour discovery (E-53), failsafe ports, and DNS by the file of this machine, if it has one."""
    new = tmp_path / "new.yaml"
    with Daemon(world, file, backend=NFT) as daemon:
        new.write_text(rules(SSH, WEB), encoding="utf-8")
        code, said = labelgate(world, daemon, "check", "-f", str(new), "--live", "-o", "json")
        assert code == 1
        found = [(item["what"], item["subject"]) for item in json.loads(said)["live"]]
        assert found == [
            ("IPv6 neighbour discovery", "solicitations in on eth0"),
            ("IPv6 neighbour discovery", "advertisements in on eth0"),
        ]
        assert labelgate(world, daemon, "check", "-f", str(file), "--live")[0] == 0
        file.write_text(rules(SSH, WEB, ICMPV6).replace("failsafeInboundHostPorts: []", "vxlanPort: 4789"))
        assert ask(daemon.socket, "reload")["generation"] == 2
        new.write_text(rules(WEB, ICMPV6), encoding="utf-8")
        code, said = labelgate(world, daemon, "apply", "-f", str(new))
        assert (code, "failsafe port: udp 68 in on eth0" in said) == (1, True)
        assert "failsafe port: tcp 22 in on eth0" in said


def test_check_live_without_a_daemon(world: World, file: Path) -> None:
    """Before the first start: conntrack is off, and the session is known all the same."""
    daemon = Daemon(world, file, backend=NFT)
    with session(world, STRANGER, EDGE, EDGE_OUTSIDE, 22):
        arguments = ("check", "-f", str(file), "--node", "edge1", "--live")
        assert "ssh session" not in labelgate(world, daemon, *arguments)[1]
        file.write_text(rules(WEB, ICMPV6), encoding="utf-8")
        code, said = labelgate(world, daemon, *arguments)
        assert (code, f"ssh session: tcp {STRANGER}" in said) == (1, True)


FORWARDING = f"{NO_FAILSAFES}---{policies.host()}---" + policies.policy(
    "forward",
    """
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: ICMPv6}
  - {action: Allow, source: {nets: [%s]}}
""",
)


def tracked(world: World, *, in_any_state: bool = False) -> list[Flow]:
    """All that conntrack knows in the edge node."""
    found = world.call(EDGE, lambda: read_connections(in_any_state=in_any_state))
    return [flow_of(flows, row) for flows in found for row in range(len(flows))]


def told_by_proc(world: World, *, in_any_state: bool) -> set[tuple[object, ...]]:
    """The same by the text of the kernel: protocol, ends, target with its port, id of ICMP, answered."""
    path = Path("/proc/thread-self/net/nf_conntrack")
    lines = world.call(EDGE, lambda: path.read_text(encoding="ascii")).splitlines()
    found: set[tuple[object, ...]] = set()
    for words in map(str.split, lines):
        over = {"TIME_WAIT", "CLOSE"}
        if int(words[3]) == TCP and (words[5] in over if in_any_state else words[5] != "ESTABLISHED"):
            continue
        if "[UNREPLIED]" in words and not in_any_state:
            continue
        pairs = [word.split("=") for word in words if "=" in word]
        values = {key: [value for name, value in pairs if name == key] for key, _ in pairs}
        src, dst, target = values["src"][0], values["dst"][0], values["src"][1]
        ports = [int(values.get(key, ["0"])[0]) for key in ("sport", "dport", "id")]
        port = int(values["sport"][1]) if "sport" in values else 0
        ends = (ip_address(src), ip_address(dst), ip_address(target))
        found.add((int(words[3]), *ends, *ports, port, "[UNREPLIED]" not in words))
    return found


def as_proc(flow: Flow) -> tuple[object, ...]:
    ends = (flow.src, flow.dst, flow.target or flow.dst)
    number = flow.icmp[2] if flow.icmp else 0
    port = flow.target_port or flow.dport
    return flow.protocol, *ends, flow.sport, flow.dport, number, port, flow.answered


def test_tracked_connections_are_those_of_proc(world: World, tmp_path: Path) -> None:
    """TCP, UDP, ICMP of both families, translated ones, and those that begin or end."""
    path = tmp_path / "policy.yaml"
    path.write_text(FORWARDING % "0.0.0.0/0", encoding="utf-8")
    dnat = f"-A PREROUTING -p tcp -d {EDGE_OUTSIDE} --dport 9000 -j DNAT --to-destination {INSIDE_HOST}:9001"
    with Daemon(world, path, backend=NFT), ExitStack() as stack:
        add_rules(world, NFT, "nat", dnat, families=["v4"])
        stack.enter_context(session(world, CLIENT, EDGE, EDGE_OUTSIDE, 9998))
        assert exchange(world, *stack.enter_context(datagrams(world, CLIENT, 9998)))
        assert send(world, Probe("icmp", CLIENT, EDGE_OUTSIDE))
        assert send(world, Probe("icmp", CLIENT, EDGE_OUTSIDE).twin)
        server = world.call(INSIDE, socket.create_server, (INSIDE_HOST, 9001))
        with server, world.call(OUTSIDE, socket.create_connection, (EDGE_OUTSIDE, 9000), 30):
            ending = stack.enter_context(session(world, CLIENT, EDGE, EDGE_OUTSIDE, 9997))
            ending[0].shutdown(socket.SHUT_WR)
            assert ending[1].recv(1) == b""
            stack.enter_context(datagrams(world, CLIENT, 9997))[0].send(b"x")
            # A datagram in the queue is known to nobody before it is answered.
            assert wait_until(
                lambda: (
                    (UDP, 9997) in {(one.protocol, one.dport) for one in tracked(world, in_any_state=True)}
                )
            )
            alive, all_of_them = tracked(world), tracked(world, in_any_state=True)
            told, all_told = (told_by_proc(world, in_any_state=state) for state in (False, True))
    assert set(map(as_proc, alive)) == told
    assert set(map(as_proc, all_of_them)) == all_told
    begun = {*all_of_them} - {*alive}
    assert sorted((flow.protocol, flow.dport) for flow in begun) == [(6, 9997), (17, 9997)]
    assert {flow.protocol for flow in alive} == {1, 6, 17, 58}
    (translated,) = [flow for flow in alive if flow.target]
    assert (str(translated.target), translated.target_port, translated.dport) == (INSIDE_HOST, 9001, 9000)


def test_connections_are_forgotten_one_by_one(world: World, tmp_path: Path) -> None:
    """TCP, UDP and ICMP of both families: what is asked for and still known, and nothing else."""
    path = tmp_path / "policy.yaml"
    path.write_text(FORWARDING % "0.0.0.0/0", encoding="utf-8")
    with Daemon(world, path, backend=NFT), ExitStack() as stack:
        stack.enter_context(session(world, CLIENT, EDGE, EDGE_OUTSIDE, 9998))
        kept = stack.enter_context(session(world, CLIENT, EDGE, EDGE_OUTSIDE, 9996))
        assert exchange(world, *stack.enter_context(datagrams(world, CLIENT, 9998)))
        assert send(world, Probe("icmp", CLIENT, EDGE_OUTSIDE))
        assert send(world, Probe("icmp", CLIENT, EDGE_OUTSIDE).twin)
        before = tracked(world)
        asked = [flow for flow in before if flow.dport != 9996]
        gone = replace(next(flow for flow in asked if flow.protocol == TCP), sport=1)
        assert {flow.protocol for flow in asked} == {1, 6, 17, 58}
        assert world.call(EDGE, lambda: forget_connections([gone, *asked, gone])) == asked
        assert not {*tracked(world)} & {*asked}
        assert exchange(world, *kept)
        assert {flow.dport for flow in tracked(world) if flow.protocol == TCP} == {9996}


def test_routes_of_many_addresses(world: World) -> None:
    """More at once than the kernel's buffer has answers for, some of which have no route."""
    inside = [str(ip_address(INSIDE_HOST) + number) for number in range(200)]
    nowhere = [f"240.0.0.{number}" for number in range(1, 60)]

    def asked() -> list[str | None]:
        here = Host(read_links())
        return [here.interface(ip_address(text)) for text in (CLIENT, INSIDE_HOST, nowhere[0])]

    def by_column_asked() -> dict[str, tuple[str | None, str | None]]:
        addresses = [CLIENT, *inside, *nowhere]
        (flows,) = by_column([Flow(TCP, ip_address(EDGE_OUTSIDE), ip_address(one)) for one in addresses])
        return {addresses[row]: way for _, way, rows in ways(Host(read_links()), flows) for row in rows}

    uplink, downlink, none = world.call(EDGE, asked)
    assert (uplink, none) == ("eth0", None)
    assert downlink not in ("eth0", None)
    found = world.call(EDGE, by_column_asked)
    assert found[CLIENT] == (None, "eth0")
    assert {found[one] for one in inside} <= {(None, downlink), (None, "eth0")}
    assert not found.keys() & {*nowhere}


def test_namespaces_are_told_apart(world: World) -> None:
    first, again, other = (world.call(host, netns_cookie) for host in (EDGE, EDGE, INSIDE))
    assert first == again != other
    assert 0 not in {first, other}


@pytest.mark.parametrize("revoke", ["deny-now", "new-only"])
def test_deny_now_cuts_exactly_what_is_denied(
    world: World, backend: str, tmp_path: Path, revoke: str
) -> None:
    """Sessions to the host and through it, of two clients: those of the one that is denied are cut."""
    file, config = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    both, one = f"{CLIENT}/32, {STRANGER}/32", f"{CLIENT}/32"
    file.write_text(FORWARDING % both, encoding="utf-8")
    config.write_text(f"revoke: {revoke}", encoding="utf-8")
    loose = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose"
    before = world.call(EDGE, lambda: Path(loose).read_text(encoding="ascii"))
    options = ("--config", str(config))
    with Daemon(world, file, backend=backend, options=options) as daemon, ExitStack() as stack:
        kept = [
            stack.enter_context(session(world, CLIENT, EDGE, EDGE_OUTSIDE, 9998)),
            stack.enter_context(session(world, CLIENT, INSIDE, INSIDE_HOST, 9998)),
            stack.enter_context(datagrams(world, CLIENT, 9998)),
        ]
        denied = [
            stack.enter_context(session(world, STRANGER, EDGE, EDGE_OUTSIDE, 9999)),
            stack.enter_context(session(world, STRANGER, INSIDE, INSIDE_HOST, 9999)),
            stack.enter_context(datagrams(world, STRANGER, 9999)),
        ]
        assert all(exchange(world, *ends) for ends in kept + denied)
        # One side has said all that it has to say, the other one goes on.
        ending, other = stack.enter_context(session(world, STRANGER, INSIDE, INSIDE_HOST, 9997))
        ending.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
        file.write_text(FORWARDING % one, encoding="utf-8")
        assert ask(daemon.socket, "reload")["generation"] == 2
        # Also from the side of the server, which may begin connections.
        for ends in denied:
            assert exchange(world, *ends[::-1]) == (revoke == "new-only")
            assert exchange(world, *ends) == (revoke == "new-only")
        other.sendall(b"x")
        assert ready(world, ending) == (revoke == "new-only")
        assert all(exchange(world, *ends) for ends in kept)
        if backend == "nft":
            daemon.stop()
        else:  # What a killed daemon leaves is set back by the state's word.
            daemon.process.kill()
            daemon.exit_code()
            left = world.call(EDGE, lambda: Path(loose).read_text(encoding="ascii"))
            assert (left == before) == (revoke == "new-only")
            state = str(world.folder / "state")
            world.run(EDGE, sys.executable, "-m", "labelgate", "clean", "--state", state)
    assert world.call(EDGE, lambda: Path(loose).read_text(encoding="ascii")) == before
