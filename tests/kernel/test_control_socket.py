"""`labelgate status` and `labelgate reload` against the real daemon."""

from __future__ import annotations

import json
import random
import socket
from contextlib import suppress
from pathlib import Path

import policies
from kit import labelgate
from labelgate.control import network_namespace
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import send
from labelgate.demo.world import EDGE, World
from policies import ALLOWED, REFUSED

NFT = "nft"
"""Where the variant of iptables has no say."""


def test_status_and_reload(world: World, backend: str, management: Path) -> None:
    with Daemon(world, management, backend=backend) as daemon:
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        code, out, _ = labelgate(daemon, "status", "-o", "json")
        status = json.loads(out)
        assert (code, status["node"], status["generation"]["number"]) == (0, "edge1", 1)
        assert status["counters"]["hooks"]["filter-input"]["verdicts"]["allow"] == 1
        assert status["rules"]["variant"] == backend
        here = network_namespace()
        assert status["networkNamespace"] == world.call(EDGE, network_namespace) != here

        management.write_text(policies.MANAGEMENT.replace("Allow", "Alow", 1), encoding="utf-8")
        code, _, err = labelgate(daemon, "reload")
        assert code == 1
        assert f"{management}:" in err
        code, out, _ = labelgate(daemon, "status", "-o", "json")
        (problem,) = json.loads(out)["refused"]["problems"]
        assert (code, problem["file"]) == (1, str(management))
        assert management.read_text(encoding="utf-8").splitlines()[problem["line"] - 1].count("Alow") == 1
        assert "REFUSED" in labelgate(daemon, "status")[1]

        management.write_text(policies.MANAGEMENT.replace("203.0.113.0/24", "192.0.2.0/24"), encoding="utf-8")
        assert labelgate(daemon, "reload")[:2] == (0, "generation 2 in force\n")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [False, True]
        assert labelgate(daemon, "status")[0] == 0
    code, _, err = labelgate(daemon, "status")
    assert (code, "no daemon is running" in err) == (3, True)


def test_a_fuzzed_socket_changes_nothing(world: World, management: Path) -> None:
    dice = random.Random(11)
    with Daemon(world, management, backend=NFT) as daemon:
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
                client.connect(daemon.socket)
                client.sendall(dice.randbytes(dice.randrange(200)) + b"\n" * dice.randrange(50))
                client.settimeout(0.001)
                client.recv(10)
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        assert labelgate(daemon, "status")[0] == 0
        assert not any("fault" in line for line in daemon.log)


def test_a_socket_that_cannot_be_made_stops_nothing(world: World, management: Path) -> None:
    with Daemon(world, management, backend=NFT, options=("--socket", "/proc/no/such.sock")) as daemon:
        assert any("no control socket" in line for line in daemon.log)
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
