"""The life of `labelgate run`: start, reload, links that come and go, every way to stop and to die."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import policies
import pytest
from kit import add_pod, add_rules, saved, told, wait_until
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.namespaces import WorldError
from labelgate.demo.traffic import Probe, owner, ready, send
from labelgate.demo.world import (
    CLIENT,
    DB_POD,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    OUTSIDE,
    STRANGER,
    WEB_POD,
    World,
)
from policies import ALLOWED, REFUSED

LABELGATE = (sys.executable, "-m", "labelgate")

SSH = Probe("tcp", STRANGER, EDGE_OUTSIDE, 22)
FOREIGN = Probe("tcp", STRANGER, WEB_POD, 80)


def test_stop_remove_leaves_nothing(world: World, backend: str, management: Path) -> None:
    before = saved(world, backend)
    with Daemon(world, management, backend=backend) as daemon:
        assert [send(world, probe) for probe in (ALLOWED, REFUSED)] == [True, False]
        assert daemon.stop() == 0
    assert saved(world, backend) == before
    assert send(world, REFUSED)


def test_stop_keep_is_closed_except_failsafes(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend, options=("--stop", "keep")) as daemon:
        daemon.stop()
        assert [send(world, probe) for probe in (ALLOWED, REFUSED, SSH)] == [False, False, True]
    world.run(EDGE, *LABELGATE, "clean")
    assert saved(world, backend) == []
    assert send(world, REFUSED)


def test_stop_open_keeps_what_the_kernel_settles(world: World, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f"{policies.MANAGEMENT}---{policies.PODS}", encoding="utf-8")
    with Daemon(world, path, backend=backend, options=("--stop", "open")) as daemon:
        assert not send(world, REFUSED)
        daemon.stop()
        assert send(world, REFUSED)
        # E-50 under Drop is a kernel rule, so it holds.
        assert not send(world, Probe("tcp", DB_POD, EDGE_OUTSIDE, 9100))


def test_clean_leaves_the_rules_of_a_daemon(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend):
        before = saved(world, backend)
        with pytest.raises(WorldError, match="runs: stop it first; nothing is removed without --force"):
            world.run(EDGE, *LABELGATE, "clean")
        assert saved(world, backend) == before


def test_interrupt_stops(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend) as daemon:
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.exit_code() == 0
    assert saved(world, backend) == []


def test_kill_is_closed_and_a_restart_takes_over(world: World, backend: str, management: Path) -> None:
    """kill -9 under traffic: queued hooks are closed, failsafes hold, and a restart needs no clean."""
    with Traffic(world) as traffic, Daemon(world, management, backend=backend) as daemon:
        traffic.wait_for_arrivals(50)
        daemon.process.kill()
        daemon.process.wait()
        last = traffic.sent  # The one that is being sent may have been answered still.
        assert [send(world, probe) for probe in (ALLOWED, REFUSED, SSH)] == [False, False, True]
        assert wait_until(lambda: traffic.sent > last + 100)
        assert traffic.latest <= last
        daemon.start()
        daemon.wait_for("in force")
        traffic.wait_for_arrivals(50)
        assert [send(world, probe) for probe in (ALLOWED, REFUSED)] == [True, False]
        daemon.stop()
        assert saved(world, backend) == []


class Traffic:
    """Numbered datagrams from 200 ports of the client to the edge node, or behind it, for 100 s at most."""

    def __init__(
        self,
        world: World,
        port: int = 9100,
        host: str = EDGE,
        address: str = EDGE_OUTSIDE,
        source: str = CLIENT,
    ) -> None:
        self._world, self._port, self._host, self._address = world, port, host, address
        self._source = source
        self._over = threading.Event()
        self.sent = 0
        self.arrived = 0
        self.latest = -1
        """The highest number that has arrived."""

    def __enter__(self) -> Traffic:
        self._receiver = self._world.call(self._host, self._open, (self._address, self._port))
        # Nothing is lost here while this process has other things to do.
        self._receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._receiver.close()

    @staticmethod
    def _open(address: tuple[str, int]) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(address)
        return opened

    def _send(self) -> None:
        deadline = time.monotonic() + 100
        host, ports = owner(self._source), range(self._port + 30_900, self._port + 31_100)
        senders = [self._world.call(host, self._open, (self._source, port)) for port in ports]
        while not self._over.is_set() and time.monotonic() < deadline:
            senders[self.sent % len(senders)].sendto(self.sent.to_bytes(4), (self._address, self._port))
            self.sent += 1
            time.sleep(0.001)
        for sender in senders:
            sender.close()

    def _receive(self) -> None:
        """Until nothing more comes after the last was sent."""
        while ready(self._world, self._receiver) or not self._over.is_set():
            with suppress(BlockingIOError):
                self.latest = max(self.latest, int.from_bytes(self._receiver.recv(64, socket.MSG_DONTWAIT)))
                self.arrived += 1

    def stop(self) -> None:
        """Sends no more, and waits for what is on the way."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_arrivals(self, number: int) -> None:
        """Until this many more have arrived."""
        wanted = self.arrived + number
        assert wait_until(lambda: self.arrived >= wanted), f"{self.arrived} of {wanted} arrived"


SO_RCVBUFFORCE = 33  # asm-generic/socket.h; root may exceed net.core.rmem_max


def test_reload_under_traffic_loses_nothing(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend) as daemon, Traffic(world) as traffic:
        traffic.wait_for_arrivals(50)
        for number in range(2, 7):
            text = policies.MANAGEMENT.replace("ports: [9100]", f"ports: [9100, {number}]")
            management.write_text(text, encoding="utf-8")
            assert f"generation {number} in force" in daemon.reload()
        traffic.stop()
        assert traffic.arrived == traffic.sent
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]


HOOKS = {
    "filter": "",
    "raw": "  doNotTrack: true\n  applyOnForward: true\n",
    "mangle": "  preDNAT: true\n  applyOnForward: true\n",
}
ORDER = ("filter", "raw", "mangle", "filter", "mangle", "raw", "filter")
"""Each after each other one."""


def moving(hook: str, rules: str, more: str = "") -> str:
    """The same rules at another hook."""
    options = f"{HOOKS[hook]}  types: [Ingress]\n  ingress:{rules}"
    return f"{policies.host(more=more)}---{policies.policy('p', options)}"


@pytest.mark.parametrize("hook", ["raw", "mangle"])
@pytest.mark.parametrize("mode", ["open", "remove"])
def test_a_stop_that_lets_all_pass_loses_nothing(
    world: World, backend: str, management: Path, mode: str, hook: str
) -> None:
    """Policy in filter denies what raw or mangle accept: these go on accepting as long as it is asked."""
    accepted = moving(hook, "\n  - {action: Allow, protocol: UDP, destination: {ports: [9100]}}")
    other = policies.policy("q", policies.ALLOW_9100.replace("9100", "9200"), order=20)
    management.write_text(f"{accepted}---{other}", encoding="utf-8")
    with Daemon(world, management, backend=backend, options=("--stop", mode)) as daemon:
        assert not send(world, REFUSED)
        with Traffic(world) as traffic:
            traffic.wait_for_arrivals(50)
            daemon.stop()
            traffic.wait_for_arrivals(50)
            traffic.stop()
            assert traffic.arrived == traffic.sent
        assert send(world, REFUSED)


def move_the_denial(daemon: Daemon, write: Callable[[str], None], allowed: Traffic) -> None:
    """From hook to hook, while something arrives by each policy."""
    allowed.wait_for_arrivals(50)
    for number, hook in enumerate(ORDER[1:], 2):
        write(hook)
        assert f"generation {number} in force" in daemon.reload()
        allowed.wait_for_arrivals(50)


@pytest.mark.parametrize("handler", ["native", "netfilterqueue"])
def test_what_two_policies_deny_never_passes_between_them(
    world: World, backend: str, management: Path, handler: str
) -> None:
    """E-31, E-33, E-35: each denies it at another hook, and what comes meanwhile is denied."""
    deny, allow = "\n  - {action: Deny, protocol: UDP, destination: {ports: [9400]}}", "\n  - {action: Allow}"

    def write(hook: str) -> None:
        rules = deny + allow * (hook == "filter")
        management.write_text(moving(hook, rules, ", profiles: [projectcalico-default-allow]"))

    write(ORDER[0])
    with (
        Daemon(world, management, backend=backend, options=("--handler", handler)) as daemon,
        Traffic(world) as allowed,
    ):
        with Traffic(world, 9400) as denied:
            move_the_denial(daemon, write, allowed)
        allowed.stop()
        assert denied.sent > 300
        assert (denied.arrived, allowed.arrived) == (0, allowed.sent)


def test_what_two_policies_deny_is_never_forwarded_between_them(
    world: World, backend: str, management: Path
) -> None:
    """E-31, E-33, E-38: before conntrack, before DNAT and in FORWARD."""
    deny, allow = "\n  - {action: Deny, protocol: UDP, destination: {ports: [9400]}}", "\n  - {action: Allow}"

    def write(hook: str) -> None:
        text = moving(hook, deny + allow * (hook == "filter"), ", profiles: [projectcalico-default-allow]")
        if hook == "filter":
            text = text.replace("  types: [Ingress]", "  applyOnForward: true\n  types: [Ingress]")
        management.write_text(text)

    write(ORDER[0])
    behind = (INSIDE, INSIDE_HOST)
    with Daemon(world, management, backend=backend) as daemon, Traffic(world, 9100, *behind) as allowed:
        with Traffic(world, 9400, *behind) as denied:
            move_the_denial(daemon, write, allowed)
        allowed.stop()
        assert denied.sent > 300
        assert (denied.arrived, allowed.arrived) == (0, allowed.sent)


@pytest.mark.parametrize("handler", ["native", "netfilterqueue"])
def test_what_two_policies_allow_always_passes_between_them(
    world: World, backend: str, management: Path, handler: str
) -> None:
    """E-25, E-48: by the one it is accepted at a hook ahead of where the other one would deny it."""
    rules = "\n  - {action: Allow, protocol: UDP, destination: {ports: [9100]}}"
    management.write_text(moving(ORDER[0], rules))
    with (
        Daemon(world, management, backend=backend, options=("--handler", handler)) as daemon,
        Traffic(world) as traffic,
    ):
        traffic.wait_for_arrivals(50)
        for number, hook in enumerate(ORDER[1:], 2):
            management.write_text(moving(hook, rules))
            assert f"generation {number} in force" in daemon.reload()
            traffic.wait_for_arrivals(50)
        traffic.stop()
        assert traffic.arrived == traffic.sent


def test_a_bad_reload_changes_nothing(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend) as daemon:
        rules = saved(world, backend)
        management.write_text(policies.MANAGEMENT.replace("Allow", "Alow"), encoding="utf-8")
        said = daemon.reload()
        assert said == "generation 1 stays in force: the new policies are not valid"
        assert any(f"{management}:" in line and "V-10" in line for line in daemon.log)
        assert saved(world, backend) == rules
        assert [send(world, probe) for probe in (ALLOWED, REFUSED)] == [True, False]
        management.write_text(policies.MANAGEMENT.replace("203.0.113.0/24", "192.0.2.0/24"), encoding="utf-8")
        assert "generation 2 in force" in daemon.reload()
        assert [send(world, probe) for probe in (ALLOWED, REFUSED)] == [False, True]


FELIX = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {%s}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("iptablesFilterDenyAction: Reject", "iptablesFilterDenyAction: Drop"),
        ("iptablesFilterDenyAction: Drop", "iptablesFilterDenyAction: Reject"),
        ("iptablesFilterAllowAction: Return", "iptablesFilterAllowAction: Accept"),
        ("iptablesFilterAllowAction: Accept", "iptablesFilterAllowAction: Return"),
    ],
)
def test_filter_actions_change_while_running(
    world: World, backend: str, management: Path, before: str, after: str
) -> None:
    management.write_text(f"{policies.MANAGEMENT}---{FELIX % before}", encoding="utf-8")
    with Daemon(world, management, backend=backend) as daemon:
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        management.write_text(f"{policies.MANAGEMENT}---{FELIX % after}", encoding="utf-8")
        assert "generation 2 in force" in daemon.reload()
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        # Whether the stranger hears that it is refused.
        assert (told(world, REFUSED) == "ECONNREFUSED") == ("Reject" in after)
        # The base chain has the last word on what we return.
        add_rules(world, backend, "filter", "-A INPUT -j DROP", families=["v4"])
        assert send(world, ALLOWED) == (not after.endswith("Return"))


def test_rules_of_others_may_hold_any_bytes(world: World, backend: str, management: Path) -> None:
    """A comment that is no UTF-8, ahead of ours."""
    rule = b'-I INPUT 1 -p udp --dport 9 -m comment --comment "caf\xe9" -m mark --mark 0x400/0x400 -j ACCEPT'
    program = ["ip", "netns", "exec", world.namespace(EDGE), f"iptables-{backend}-restore"]
    with Daemon(world, management, backend=backend) as daemon:
        subprocess.run(
            [*program, "--noflush", "--wait=20"], input=b"*filter\n%s\nCOMMIT\n" % rule, check=True
        )
        daemon.wait_for("our rules are put back")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]


def test_policy_that_goes_takes_its_rules_along(world: World, backend: str, management: Path) -> None:
    """A host without policy queues nothing."""
    with Daemon(world, management, backend=backend, options=("--allow-empty",)) as daemon:
        management.write_text("", encoding="utf-8")
        daemon.reload()
        assert [rule for rule in saved(world, backend) if "NFQUEUE" in rule] == []
        assert send(world, REFUSED)


LATE = policies.policy(
    "late",
    """
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [7001]}}
""",
).replace("role == 'edge'", "app == 'late'")


def test_pods_come_and_go(world: World, backend: str, tmp_path: Path) -> None:
    """Interfaces by index are kept in step, also for rules."""
    path = tmp_path / "pods.yaml"
    late = policies.pod("late", "cali999", "10.65.0.9")
    path.write_text(f"{policies.PODS}---{late}---{LATE}", encoding="utf-8")
    with Daemon(world, path, backend=backend) as daemon:
        for attempt in range(2):
            add_pod(world, "cali999", "10.65.0.9")
            daemon.wait_for("cali999 is new")
            assert send(world, Probe("tcp", WEB_POD, DB_POD, 80)), attempt
            # Nothing would reach it, were its interface not known as that of the late pod.
            assert [pod_hears(world, "10.65.0.9", port) for port in (7001, 7000)] == [True, False], attempt
            world.run(EDGE, "ip", "link", "delete", "cali999")
            daemon.wait_for("cali999 is gone")
        assert send(world, FOREIGN)


def test_an_interface_whose_name_is_not_utf_8(world: World, backend: str, tmp_path: Path) -> None:
    """Policy goes on, also after a start; a `*` host endpoint governs it, as all that nobody names (E-46)."""
    path, odd = tmp_path / "all.yaml", os.fsdecode(b"eth\xff")
    rules = "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [9100]}}\n"
    path.write_text(f"{policies.host(interface='*')}---{policies.policy('few', rules)}", encoding="utf-8")

    def holds() -> bool:
        probes = (Probe("tcp", INSIDE_HOST, EDGE_INSIDE, port) for port in (9100, 9101))
        return [send(world, probe) for probe in probes] == [True, False]

    for attempt in range(2):
        with Daemon(world, path, backend=backend, options=("--stop", "keep")) as daemon:
            if not attempt:
                assert holds()
                rename(world, "eth1", odd, INSIDE_HOST)
                daemon.wait_for("rules cannot hold: eth/ff: only a `*` host endpoint")
                daemon.wait_for("eth1 is eth/ff")
            assert holds()
    assert sum("cannot hold" in line for line in daemon.log) == 1


@pytest.mark.parametrize("odd", ["eth1;", "eth+", 'x="y', "d\u00e9"])
def test_a_name_that_rules_cannot_hold(world: World, backend: str, tmp_path: Path, odd: str) -> None:
    """Its endpoint is told to be left out; the others follow their interfaces, at once and after a start."""
    path = tmp_path / "all.yaml"
    hosts = [
        policies.host(name, more=f", expectedIPs: [{address}]").replace('interfaceName: "eth0", ', "")
        for name, address in (("out", EDGE_OUTSIDE), ("in", EDGE_INSIDE))
    ]
    path.write_text("---".join([*hosts, policies.policy("p", policies.ALLOW_9100)]), encoding="utf-8")
    left_out = f"HostEndpoint/in: `{odd}` has {EDGE_INSIDE}, and a name that rules cannot hold"
    inside = Probe("udp", INSIDE_HOST, EDGE_INSIDE, 9101)
    sent = (policies.ALLOWED_DATAGRAM, policies.REFUSED_DATAGRAM, inside)
    for name in ("wan0", "wan1"):
        with Daemon(world, path, backend=backend, options=("--stop", "keep")) as daemon:
            if name == "wan0":
                assert [send(world, probe) for probe in sent] == [True, False, False]
                rename(world, "eth1", odd, INSIDE_HOST)
                daemon.wait_for(left_out)
            before = "eth0" if name == "wan0" else "wan0"
            rename(world, before, name, "198.51.100.1")
            daemon.wait_for(f"{before} is {name}")
            assert [send(world, probe) for probe in sent] == [True, False, True]
            answer = ask(daemon.socket, "status")
            assert (answer["refused"], [text[: len(left_out)] for text in answer["outOfReach"]]) == (
                None,
                [left_out],
            )
            assert any(left_out in line for line in daemon.log)


def test_a_port_of_a_bridge_is_told(world: World, backend: str, tmp_path: Path) -> None:
    """Rules see the bridge in its place, which is said as long as it is so."""
    path = tmp_path / "pods.yaml"
    path.write_text(policies.PODS.replace("profiles: [kns.shop]", "profiles: []"), encoding="utf-8")

    def unreached() -> list[str]:
        found: list[str] = ask(daemon.socket, "status")["outOfReach"]
        return [text.partition(",")[0] for text in found]

    told = "WorkloadEndpoint/shop/web: `cali111` is a port of bridge `br0`"
    with Daemon(world, path, backend=backend) as daemon:
        assert (unreached(), send(world, FOREIGN)) == ([], False)
        world.run(EDGE, "ip", "link", "add", "br0", "type", "bridge")
        world.run(EDGE, "ip", "link", "set", "cali111", "master", "br0")
        daemon.wait_for(told)
        assert unreached() == [told]
        world.run(EDGE, "ip", "link", "set", "cali111", "nomaster")
        daemon.wait_for("cali111 leaves br0")
        assert (unreached(), send(world, FOREIGN)) == ([], False)


def rename(world: World, name: str, to: str, neighbour: str) -> None:
    """Gives an interface of the edge node another name, and its IPv4 route to a neighbour again."""
    for words in (
        ("link", "set", name, "down"),
        ("link", "set", name, "name", to),
        ("link", "set", to, "up"),
        ("route", "add", f"{neighbour}/32", "dev", to),
    ):
        world.run(EDGE, "ip", *words)


def pod_hears(world: World, address: str, port: int) -> bool:
    """Whether a datagram from outside reaches an address of the namespace of `web`."""

    def receiver() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, port))
        return opened

    def sender() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind((STRANGER, 0))
            opened.sendto(b"x", (address, port))

    with world.call("web", receiver) as hears:
        world.call(OUTSIDE, sender)
        return ready(world, hears)


def test_a_session_survives_the_start(world: World, backend: str, management: Path) -> None:
    """conntrack was off: what sends both ways while the daemon waits is known, an idle session is cut."""
    daemon = Daemon(world, management, backend=backend, settle="4s")
    with session(world, 9998) as talking, session(world, 9999) as idle:
        daemon.start()
        daemon.wait_for("conntrack was off: waiting")
        # A daemon that did not wait would enforce by now.
        time.sleep(1)
        assert exchange(world, *talking)
        daemon.wait_for("in force")
        assert [exchange(world, *talking), exchange(world, *idle)] == [True, False]


@pytest.mark.parametrize("mode", ["keep", "remove"])
def test_a_stop_during_the_start_leaves_rules_as_found(
    world: World, backend: str, management: Path, mode: str
) -> None:
    """Nobody answers what rules written now would queue: with `keep` the host would be closed."""
    before = saved(world, backend)
    daemon = Daemon(world, management, backend=backend, settle="60s", options=("--stop", mode))
    daemon.start()
    daemon.wait_for("conntrack was off: waiting")
    assert saved(world, backend) != before
    assert daemon.stop() == 0
    assert saved(world, backend) == before
    assert not any(line.startswith("generation ") for line in daemon.log)
    assert send(world, REFUSED)


@contextmanager
def session(world: World, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of the stranger to the edge node: both ends."""

    def listen() -> socket.socket:
        return socket.create_server((EDGE_OUTSIDE, port))

    def connect() -> socket.socket:
        return socket.create_connection((EDGE_OUTSIDE, port), timeout=30, source_address=(STRANGER, 0))

    with (
        world.call(EDGE, listen) as server,
        world.call(OUTSIDE, connect) as client,
        server.accept()[0] as peer,
    ):
        yield client, peer


def exchange(world: World, *ends: socket.socket) -> bool:
    """Whether a byte goes there and one comes back."""
    for sender, receiver in (ends, ends[::-1]):
        sender.sendall(b"x")
        if not ready(world, receiver):
            return False
        receiver.recv(1)
    return True


def test_nothing_leaks_from_a_failing_test() -> None:
    """Namespaces and processes go with the world, whatever happens in it."""
    world = World()

    def failing_test() -> None:
        with world:
            started.append(world.start(EDGE, "sleep", "60"))
            raise ZeroDivisionError

    started: list[subprocess.Popen[str]] = []
    with pytest.raises(ZeroDivisionError):
        failing_test()
    assert started[0].poll() is not None
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert world.namespace(EDGE) not in names


def test_a_second_daemon_is_refused(world: World, backend: str, management: Path) -> None:
    """Also on other queues: both would write the same chains."""
    with Daemon(world, management, backend=backend):
        for options in ((), ("--queue-base", "5000")):
            second = Daemon(world, management, backend=backend, options=options)
            second.start()
            second.wait_for("labelgate is running already in this network namespace")
            assert second.exit_code() == 3
        assert [send(world, probe) for probe in (ALLOWED, REFUSED)] == [True, False]


def test_a_failed_start_opens_nothing(
    world: World, backend: str, management: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that an earlier daemon left closed stay, whatever the stop mode, if the next one cannot start."""
    with Daemon(world, management, backend=backend, options=("--stop", "keep")) as daemon:
        daemon.stop()
    for program in ("iptables", "ip6tables"):
        name = f"{program}-{backend}-restore"
        fake = tmp_path / name
        # Refuses rules that queue; takes everything else, such as what removes our rules.
        fake.write_text(f'#!/bin/sh\ntext=$(cat)\ncase $text in *NFQUEUE*) exit 1; esac\necho "$text" | '
                        f'{shutil.which(name)} "$@"\n')  # fmt: skip
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    second = Daemon(world, management, backend=backend, options=("--stop", "remove"))
    second.start()
    second.wait_for("netfilter table")
    assert second.exit_code() == 3
    assert [send(world, probe) for probe in (REFUSED, SSH)] == [False, True]


def test_taken_queues_are_named(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend):
        # The same queues from a process that is not labelgate's daemon.
        script = (
            "import json, labelgate, sys; from labelgate import _core; "
            f"table = labelgate.load({str(management)!r}).compile(node='edge1').core; "
            "_core.Enforcer(table, [], base=4200, maxlen=16, marks=(256, 1024, 4096), fail_open=[False] * 7, "
            "malformed_accept=False, filter_reject=False, filter_return=False, without_repeat=[False] * 7)"
        )
        said = world.run(EDGE, sys.executable, "-c", f"try:\n {script}\nexcept OSError as e: print(e)")
        assert "queue 4200 cannot be bound" in said
        assert send(world, ALLOWED)


def test_policies_that_vanish_are_not_followed(world: World, backend: str, management: Path) -> None:
    """An empty folder, or files for another node, are no order to open the host."""
    with Daemon(world, management, backend=backend) as daemon:
        for text in ("", policies.MANAGEMENT.replace("edge1,", "elsewhere,")):
            management.write_text(text, encoding="utf-8")
            assert daemon.reload() == "generation 1 stays in force: the new policies are not valid"
            assert any("no endpoint names node `edge1`" in line for line in daemon.log)
            assert [send(world, probe) for probe in (ALLOWED, REFUSED)] == [True, False]


def test_no_endpoint_names_the_node(world: World, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(policies.MANAGEMENT.replace("edge1,", "elsewhere,"), encoding="utf-8")
    daemon = Daemon(world, path, backend=backend)
    daemon.start()
    assert "nodes found: elsewhere" in daemon.wait_for("no endpoint names node `edge1`")
    assert daemon.exit_code() == 3
    assert saved(world, backend) == []
