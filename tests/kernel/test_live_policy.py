"""Files that change under the real daemon are in force at once, without a word from anybody."""

from __future__ import annotations

import itertools
from pathlib import Path

import policies
from kit import saved, wait_until
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe, send
from labelgate.demo.world import EDGE_OUTSIDE, STRANGER, World
from labelgate.settings import DEFAULT_FAILSAFE_INBOUND
from labelgate.sources.watch import OPEN_SECONDS
from policies import ALLOWED, REFUSED
from test_watch import WAYS, config_map

NFT = "nft"
"""Where the variant of iptables has no say."""
OTHER_WAY_ROUND = policies.MANAGEMENT.replace("203.0.113.0/24", "192.0.2.0/24")


def test_an_edit_is_in_force_and_a_bad_one_is_not(world: World, backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    file = folder / "management.yaml"
    file.write_text(policies.MANAGEMENT, encoding="utf-8")
    with Daemon(world, folder, backend=backend, watch=True) as daemon:
        rules = saved(world, backend)
        file.write_text(OTHER_WAY_ROUND, encoding="utf-8")
        daemon.wait_for("generation 2 in force")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [False, True]
        assert saved(world, backend) == rules

        file.write_text(policies.MANAGEMENT.replace("Allow", "Alow", 1), encoding="utf-8")
        daemon.wait_for("generation 2 stays in force")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [False, True]
        (problem,) = ask(daemon.socket, "status")["refused"]["problems"]
        assert problem["file"] == str(file)
        assert any(f"{file}:{problem['line']}:" in line for line in daemon.log)

        beside = folder / ".management"
        beside.write_text(policies.MANAGEMENT, encoding="utf-8")
        beside.rename(file)
        daemon.wait_for("generation 3 in force")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        assert ask(daemon.socket, "status")["refused"] is None


def test_every_way_to_write_is_in_force(world: World, tmp_path: Path) -> None:
    """As editors, tools and the kubelet do: each is one generation.

    Where a file is gone for a moment, and this process with it, the daemon may see that and refuse it.
    """
    folder, mounted = tmp_path / "policies", tmp_path / "mounted"
    folder.mkdir()
    file = folder / "management.yaml"
    file.write_text(policies.MANAGEMENT, encoding="utf-8")
    config_map(mounted, "0", namespace=policies.NAMESPACE)
    texts = itertools.cycle([OTHER_WAY_ROUND, policies.MANAGEMENT])
    with Daemon(world, folder, mounted, backend=NFT, watch=True) as daemon:
        for write, text in zip(WAYS, texts, strict=False):
            write(file, text)
            while "stays" in daemon.wait_for("in force"):
                pass
            expected = [text is policies.MANAGEMENT, text is OTHER_WAY_ROUND]
            assert [send(world, ALLOWED), send(world, REFUSED)] == expected, write.__name__
        for version in range(1, 4):
            config_map(mounted, str(version), namespace=policies.NAMESPACE.replace("shop", f"shop{version}"))
            assert "stays" not in daemon.wait_for("in force")


def test_many_files_at_once_are_one_generation(world: World, tmp_path: Path) -> None:
    folder, next_folder = tmp_path / "policies", tmp_path / "next"
    for place in (folder, next_folder):
        place.mkdir()
    (folder / "host.yaml").write_text(policies.MANAGEMENT, encoding="utf-8")
    for number in range(100):
        rule = f"\n  ingress:\n  - {{action: Allow, protocol: TCP, destination: {{ports: [{number + 1}]}}}}\n"
        text = policies.policy(f"more-{number}", rule)
        (next_folder / f"more-{number}.yaml").write_text(text, encoding="utf-8")
    with Daemon(world, folder, backend=NFT, watch=True) as daemon:
        for file in next_folder.iterdir():
            file.rename(folder / file.name)
        assert wait_until(lambda: ask(daemon.socket, "status")["generation"]["policies"] == 101)
        # A burst is read every second at the latest; renaming takes some milliseconds.
        assert ask(daemon.socket, "status")["generation"]["number"] <= 3
        assert send(world, Probe("tcp", STRANGER, EDGE_OUTSIDE, 100))


def test_an_edit_between_start_and_watch_is_not_missed(world: World, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policies.MANAGEMENT, encoding="utf-8")
    daemon = Daemon(world, file, backend=NFT, settle="1s", watch=True)
    daemon.start()
    daemon.wait_for("conntrack was off: waiting")
    file.write_text(OTHER_WAY_ROUND, encoding="utf-8")
    daemon.wait_for("generation 2 in force")
    assert [send(world, ALLOWED), send(world, REFUSED)] == [False, True]
    daemon.stop()


def test_the_configuration_is_followed(world: World, tmp_path: Path) -> None:
    file, config = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    file.write_text(policies.MANAGEMENT, encoding="utf-8")
    config.write_text("", encoding="utf-8")
    with Daemon(world, file, backend=NFT, watch=True, options=("--config", str(config))) as daemon:
        ports = [*map(str, DEFAULT_FAILSAFE_INBOUND), "tcp:9100"]
        config.write_text(f"failsafeInboundHostPorts: {ports}", encoding="utf-8")
        daemon.wait_for("generation 2 in force")
        assert send(world, REFUSED)


def test_half_a_file_is_not_in_force(world: World, tmp_path: Path) -> None:
    """The shell truncates, what it writes to says nothing for a while, then half of it, then the rest."""
    file = tmp_path / "policy.yaml"
    file.write_text(policies.MANAGEMENT, encoding="utf-8")
    half, name, rest = OTHER_WAY_ROUND.partition("192.0.2.0/24")
    with Daemon(world, file, backend=NFT, watch=True) as daemon:
        with file.open("w", encoding="utf-8") as writer:
            daemon.wait_for(f"{file}: is being written")
            writer.write(half)
            writer.flush()
            daemon.reload()
            assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
            [opened] = ask(daemon.socket, "status")["files"]["open"]
            assert opened["seconds"] > OPEN_SECONDS
            writer.write(name + rest)
        daemon.wait_for("generation 2 in force")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [False, True]
        assert ask(daemon.socket, "status")["files"]["open"] == []
