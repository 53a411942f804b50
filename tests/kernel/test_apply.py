"""Policies on trial: rolled back unless confirmed, whatever happens to the daemon in between."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from pathlib import Path

import policies
import pytest
from kit import labelgate
from labelgate.control import ControlError, NoDaemon, ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import send
from labelgate.demo.world import World
from policies import ALLOWED, REFUSED

SWAPPED = policies.MANAGEMENT.replace("203.0.113.0/24", "192.0.2.0/24")
NFT = "nft"
"""Where the variant of iptables has no say."""
KILLS = int(os.environ.get("KILLS", "8"))


@pytest.fixture
def swapped(tmp_path: Path) -> Path:
    path = tmp_path / "swapped.yaml"
    path.write_text(SWAPPED, encoding="utf-8")
    return path


def told(daemon: Daemon, *arguments: str) -> tuple[int, str]:
    """Exit code and all that a client command says."""
    code, out, err = labelgate(daemon, *arguments)
    return code, out + err


def passes(world: World) -> list[bool]:
    """Whom port 9100 answers: the client of MANAGEMENT, the stranger of SWAPPED."""
    return [send(world, ALLOWED), send(world, REFUSED)]


def test_a_trial_ends_by_itself(world: World, backend: str, management: Path, swapped: Path) -> None:
    with Daemon(world, management, backend=backend, watch=True) as daemon:
        code, said = told(daemon, "apply", "-f", str(swapped), "--confirm", "3s")
        assert (code, "generation 2 in force" in said, "labelgate confirm" in said) == (0, True, True)
        assert passes(world) == [False, True]
        assert ask(daemon.socket, "status")["trial"]["secondsLeft"] <= 3
        daemon.wait_for("rolled back: it was not confirmed in time")
        daemon.wait_for("generation 3 in force")
        assert passes(world) == [True, False]
        assert ask(daemon.socket, "status")["trial"] is None
        assert told(daemon, "confirm") == (1, "no policy is on trial\n")


def test_a_confirmed_policy_stays(world: World, management: Path, swapped: Path) -> None:
    """Also over a restart, until something is written to the files."""
    with Daemon(world, management, backend=NFT, watch=True) as daemon:
        assert told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")[0] == 0
        assert told(daemon, "apply", "-f", str(swapped))[0] == 1  # One trial at a time.
        assert told(daemon, "reload")[0] == 1
        assert told(daemon, "confirm") == (0, "generation 2 is confirmed\n")
        daemon.process.kill()
        daemon.process.wait()
        daemon.start()
        daemon.wait_for(f"what was applied from {swapped} stays in force")
        daemon.wait_for("generation 1 in force")
        assert passes(world) == [False, True]
        assert ask(daemon.socket, "status")["policy"] == {"applied": True, "paths": [str(swapped)]}
        management.write_text(f"# {policies.MANAGEMENT}", encoding="utf-8")
        daemon.wait_for("generation 2 in force")
        assert passes(world) == [True, False]


def test_a_replaced_daemon_leaves_what_was_applied(world: World, management: Path, swapped: Path) -> None:
    """And is not replaced while it is on trial."""
    with Daemon(world, management, backend=NFT) as daemon:
        assert told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")[0] == 0
        after = Daemon(world, management, backend=NFT, options=("--replace",))
        after.start()
        after.wait_for("the daemon in force has a policy on trial")
        assert after.exit_code() == 3
        assert told(daemon, "confirm")[0] == 0
        after.start()
        after.wait_for(f"what was applied from {swapped} stays in force")
        daemon.wait_for("another labelgate is in force")
        after.wait_for("generation 1 in force")
        assert passes(world) == [False, True]
        assert ask(after.socket, "status")["policy"] == {"applied": True, "paths": [str(swapped)]}
        after.stop()


def test_a_rollback_as_asked(world: World, management: Path, swapped: Path) -> None:
    with Daemon(world, management, backend=NFT) as daemon:
        assert told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")[0] == 0
        assert told(daemon, "rollback") == (0, "rolled back: generation 3 in force\n")
        assert passes(world) == [True, False]


def test_a_kill_during_the_trial_rolls_back(
    world: World, backend: str, management: Path, swapped: Path
) -> None:
    with Daemon(world, management, backend=backend) as daemon:
        assert told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")[0] == 0
        daemon.process.kill()
        daemon.process.wait()
        daemon.start()
        daemon.wait_for("was on trial when the daemon ended: it is rolled back")
        daemon.wait_for("generation 1 in force")
        assert passes(world) == [True, False]
        assert ask(daemon.socket, "status")["trial"] is None


def test_edits_wait_for_the_end_of_a_trial(world: World, management: Path, swapped: Path) -> None:
    with Daemon(world, management, backend=NFT, watch=True) as daemon:
        assert told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")[0] == 0
        both = policies.MANAGEMENT.replace("203.0.113.0/24", "203.0.113.0/24, 192.0.2.0/24")
        management.write_text(both, encoding="utf-8")
        assert passes(world) == [False, True]
        assert told(daemon, "confirm")[0] == 0
        daemon.wait_for("generation 3 in force")
        assert passes(world) == [True, True]


def test_what_is_not_valid_is_not_applied(world: World, management: Path, swapped: Path) -> None:
    with Daemon(world, management, backend=NFT) as daemon:
        swapped.write_text(SWAPPED.replace("Allow", "Alow", 1), encoding="utf-8")
        code, said = told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")
        assert (code, f"{swapped}:" in said, "V-10" in said) == (1, True, True)
        assert passes(world) == [True, False]
        assert ask(daemon.socket, "status")["trial"] is None
        with pytest.raises(ControlError, match="expected seconds"):
            ask(daemon.socket, "apply", paths=[], texts=[], confirm=-1)


def test_without_state_nothing_is_applied(world: World, management: Path, swapped: Path) -> None:
    with Daemon(world, management, backend=NFT, options=("--state", "/proc/no/state")) as daemon:
        assert passes(world) == [True, False]
        code, said = told(daemon, "apply", "-f", str(swapped), "--confirm", "60s")
        assert (code, "/proc/no/state" in said, "nothing is changed" in said) == (1, True, True)
        assert passes(world) == [True, False]
        assert "no state is kept" in told(daemon, "status")[1]


def test_a_service_starts_with_what_was_good(world: World, management: Path) -> None:
    config = management.parent / "config.yaml"
    config.write_text("start: last-good", encoding="utf-8")
    options = ("--config", str(config))
    with Daemon(world, management, backend=NFT, options=options, watch=True) as daemon:
        daemon.stop()
        management.write_text("kind: [", encoding="utf-8")
        daemon.start()
        daemon.wait_for("the policy that was in force last is put in force again")
        daemon.wait_for("generation 1 in force")
        assert passes(world) == [True, False]
        assert f"{management}:" in ask(daemon.socket, "status")["refused"]["message"]
        management.write_text(SWAPPED, encoding="utf-8")
        daemon.wait_for("generation 2 in force")
        assert passes(world) == [False, True]
        # The configuration, too: it says itself that a start is to go on with what was good.
        daemon.stop()
        config.write_text("start: [", encoding="utf-8")
        daemon.start()
        daemon.wait_for("the one that was in force last is taken")
        daemon.wait_for("generation 1 in force")
        assert passes(world) == [False, True]
        assert ask(daemon.socket, "status")["refused"]["message"].startswith(f"{config}:1")
        config.write_text("start: strict", encoding="utf-8")
        daemon.wait_for("generation 2 in force")


def test_a_damaged_state_is_said_and_set_aside(world: World, management: Path) -> None:
    with Daemon(world, management, backend=NFT) as daemon:
        daemon.stop()
        state = world.folder / "state" / "policy.json"
        state.write_bytes(state.read_bytes()[:-1])
        daemon.start()
        daemon.wait_for("the checksum differs")
        daemon.wait_for("generation 1 in force")
        assert passes(world) == [True, False]


class Killed:
    """A daemon that is killed at any point of an act, and what may be in force after its next start."""

    def __init__(self, daemon: Daemon, files: dict[str, Path], seed: int) -> None:
        self._daemon, self._files = daemon, files
        self._dice = random.Random(seed)
        self.confirmed = "management"
        self.may_be = {"management"}

    def act(self) -> None:
        """Asks for something and kills the daemon before, while or after it does it."""
        timer = threading.Timer(self._dice.random() * 0.15, self._daemon.process.kill)
        timer.start()
        with suppress(NoDaemon):
            self._dice.choice([self._apply, self._try, self._reload])()
        timer.join()
        self._daemon.process.wait()

    def restart(self) -> str:
        """What is in force then."""
        self._daemon.start()
        self._daemon.wait_for("generation 1 in force")
        source = ask(self._daemon.socket, "status")["policy"]
        self.confirmed = Path(source["paths"][0]).stem
        return self.confirmed

    def _apply(self) -> None:
        name = self._dice.choice(sorted(self._files))
        self.may_be = {self.confirmed, name}
        self._ask_to_apply(name, None)
        self.may_be = {name}

    def _try(self) -> None:
        name = self._dice.choice(sorted(self._files))
        self.may_be = {self.confirmed}
        self._ask_to_apply(name, 60)
        self.may_be = {self.confirmed, name}
        ask(self._daemon.socket, "confirm")
        self.may_be = {name}

    def _reload(self) -> None:
        self.may_be = {self.confirmed, "management"}
        ask(self._daemon.socket, "reload")

    def _ask_to_apply(self, name: str, seconds: float | None) -> None:
        file = self._files[name]
        texts = [[str(file), file.read_text(encoding="utf-8")]]
        ask(self._daemon.socket, "apply", paths=[str(file)], texts=texts, confirm=seconds)


def test_killed_at_any_point(world: World, management: Path, swapped: Path) -> None:
    """One of two policies is in force after it, never a mixture; KILLS in the environment says how often."""
    expected = {"management": [True, False], "swapped": [False, True]}
    with Daemon(world, management, backend=NFT) as daemon:
        killed = Killed(daemon, {"management": management, "swapped": swapped}, seed=KILLS)
        for number in range(KILLS):
            killed.act()
            found = killed.restart()
            assert found in killed.may_be, number
            assert passes(world) == expected[found], number
