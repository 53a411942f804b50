"""What the daemon does when something fails, on a packet loop and a netfilter that are not there."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from fake_nfacct import FakeNfacct
from labelgate.agent import (
    Agent,
    AgentError,
    Options,
    caution,
    daemon,
    enforcement,
    follower,
    handover,
    interfaces,
    kernel_counts,
    queues,
)
from labelgate.agent.generation import Loader
from labelgate.agent.notify import ServiceManager
from labelgate.agent.process import Signals
from labelgate.agent.state import State
from labelgate.cli import cli
from labelgate.control import ControlError
from labelgate.flow import HOOKS
from labelgate.links import Link, Links
from labelgate.lockout import Finding, LockOutError
from labelgate.netfilter import nfacct
from labelgate.netfilter.apply import ApplyError
from labelgate.netfilter.readback import Hazard, parse_save
from labelgate.resources import LoadError

WAIT = Agent._wait
"""Which the fixture takes away."""
POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth0}
"""
TWIN = POLICY.replace("out", "in").replace("interfaceName: eth0", "expectedIPs: [10.9.0.10]")
UPLINK = Link(2, "eth0", ("198.51.100.10",))
LATE = Link(3, "eth1", ("10.9.0.10",))


class Kernel:
    """Everything that the daemon touches, in the order touched; `steps` run one by one as it waits."""

    def __init__(self) -> None:
        self.links = Links((UPLINK,))
        self.is_silent: Exception | None = None
        """What comes of asking for interfaces at the start."""
        self.touched: list[str] = []
        self.steps: list[Callable[[], object]] = []
        self.refuses = 0
        """How many more transactions fail."""
        self.refuses_after = 0
        """The same, from the next one behind a swap."""
        self.refusal: Exception = ApplyError("filter", "v4", "no")
        self.can_count = True
        self.nfacct = FakeNfacct()
        self.hazards: list[Hazard] = []
        self.conntrack_is_off = False
        self.other_variant: object = None
        self.findings: list[str] = []
        self.now: dict[str, Any] = {"v4": {}}
        self.late = 0
        """How often workers are not yet found to answer by the new table."""
        self.led_to: frozenset[int] = frozenset()
        self.base = 0
        """Of the queues that were bound."""
        self.counters = '{"hooks": {}}'
        self.turns: Callable[[], list[int]] = lambda: [1]

    def wait(self) -> None:
        if not self.steps:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self.steps.pop(0)()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    kernel = Kernel()
    # The daemon of this machine, if there is one, keeps its own.
    monkeypatch.setenv("LABELGATE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LABELGATE_SOCKET", str(tmp_path / "control.sock"))
    monkeypatch.setattr(handover, "FOLDER", tmp_path)

    class Netfilter:
        def __init__(self, backend: str, warn: object, step: object) -> None:
            self.tools = type("Tools", (), {"variant": "nft"})
            self.entered: frozenset[str] = frozenset()

        def read(self) -> dict[str, Any]:
            return kernel.now

        def is_installed(self) -> bool:
            return False

        def queues_led_to(self) -> frozenset[int]:
            return kernel.led_to

        def check(self, now: object) -> list[str]:
            return kernel.findings

        def other_variant(self) -> object:
            return kernel.other_variant

        def prepare_conntrack(self) -> bool:
            was_off, kernel.conntrack_is_off = kernel.conntrack_is_off, False
            return was_off

        def undo_conntrack(self) -> None:
            kernel.touched.append("conntrack as before")

        def can_count(self, counter: str) -> bool:
            return kernel.can_count

        def apply(self, ruleset: Any, now: object = None) -> None:
            if kernel.refuses_after and kernel.touched[-1].startswith("swapped"):
                kernel.refuses, kernel.refuses_after = kernel.refuses_after, 0
            if kernel.refuses:
                kernel.refuses -= 1
                kernel.touched.append("refused")
                raise kernel.refusal
            kernel.touched.append("applied" if ruleset.tables else "applied nothing")

    class Enforcer:
        def __init__(self, *_: object, base: int, without_repeat: Sequence[bool], **__: object) -> None:
            kernel.base = base
            kernel.touched.append("bound")

        def stage(self, generation: int, table: object) -> None:
            pass

        def recorded(self) -> str:
            return "[]"

        def staged_denials(self) -> int:
            return 0

        def events(self, most: int) -> str:
            return "[]"

        def untold(self) -> tuple[int, int]:
            return 0, 0

        def rule_counts(self) -> str:
            return "[]"

        def is_alive(self) -> bool:
            return True

        def fileno(self) -> int:
            return -1

        def turns(self) -> list[int]:
            return kernel.turns()

        def thread_ids(self) -> list[int]:
            return [0 for _ in kernel.turns()]

        def counters(self) -> str:
            return kernel.counters

        def swap(self, table: object, interfaces: Sequence[tuple[int, str]]) -> int:
            kernel.touched.append(f"swapped {len(interfaces)}")
            return 1 + sum(what.startswith("swapped") for what in kernel.touched)

        def is_followed(self, generation: int, seconds: float) -> bool:
            if kernel.late:
                kernel.late -= 1
                kernel.touched.append("waited for workers")
                return False
            return True

        def set_filter_actions(self, *, reject: bool, returns: bool) -> None:
            pass

        def set_without_repeat(self, hooks: Sequence[bool]) -> None:
            kernel.touched.append(f"without repeat {sum(hooks)}")

        def drain(self, seconds: float) -> bool:
            return True

        def stop(self) -> None:
            kernel.touched.append("stopped")

    class LinkWatch:
        def __init__(self, *, reads: bool = True) -> None:
            if reads and kernel.is_silent:
                raise kernel.is_silent
            self.links = kernel.links if reads else Links(())

        def __enter__(self) -> LinkWatch:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def fileno(self) -> int:
            return -1

        def poll(self) -> Links | None:
            changed, self.links = kernel.links != self.links, kernel.links
            return self.links if changed else None

    class RuleWatch:
        descriptors, patience = (), 0.0

        def __init__(self, variant: str) -> None:
            pass

        def is_due(self) -> bool:
            return True

        def done(self, *, again: bool) -> None:
            pass

        def close(self) -> None:
            pass

    def take(signals: Signals, _others: object, _seconds: float) -> Iterator[int]:
        kernel.wait()
        return real_take(signals, [], 0)

    real_take = Signals.take
    monkeypatch.setattr(kernel_counts, "nfacct", kernel.nfacct)
    monkeypatch.setattr(enforcement, "Netfilter", Netfilter)
    monkeypatch.setattr(enforcement._core, "Enforcer", Enforcer)
    monkeypatch.setattr(interfaces, "LinkWatch", LinkWatch)
    monkeypatch.setattr(enforcement, "read_routing_rules", lambda: ())
    monkeypatch.setattr(enforcement, "hazards", lambda *_: kernel.hazards)
    monkeypatch.setattr(enforcement, "clean", lambda: kernel.touched.append("cleaned"))
    monkeypatch.setattr(enforcement, "RuleWatch", RuleWatch)
    monkeypatch.setattr(daemon, "warn_at_start", lambda *_: None)
    monkeypatch.setattr(daemon, "refuse_lockout", lambda *_: None)
    monkeypatch.setattr(Signals, "take", take)
    monkeypatch.setattr(Agent, "_wait", lambda *_: kernel.touched.append("waited"))
    return kernel


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return path


def run(policy: Path, **flags: str) -> list[str]:
    """What it said until it was told to stop."""
    said: list[str] = []
    agent_of(policy, said, **flags).run()
    return said


def agent_of(policy: Path, said: list[str], config: Path | None = None, **flags: str) -> Agent:
    options = {"stop": "remove", "watch": False, **flags}
    return Agent(Options((str(policy),), "edge1", config and str(config), True, options), said.append)


def reload() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a file is still open for writing is looked at every tenth of a second."""
    monkeypatch.setattr("labelgate.sources.watch.OPEN_SECONDS", 0.1)


def waited(seconds: float = 0.4) -> list[Callable[[], object]]:
    return [lambda: time.sleep(0.01)] * round(seconds / 0.01)


def stayed(said: list[str]) -> list[str]:
    """What was refused, and why, without the line of the generation that stays."""
    return [text.partition("\n")[0] for text in said if "stays in force" in text]


def fault() -> None:
    raise ZeroDivisionError


def test_a_planned_stop_removes_the_rules(kernel: Kernel, policy: Path) -> None:
    assert run(policy)[-1] == "stopped: our rules are removed"
    assert kernel.touched == ["bound", "applied", "cleaned", "stopped"]


def test_a_planned_stop_leaves_the_rules_to_a_successor(kernel: Kernel, policy: Path) -> None:
    """From READY on they may be its own; whatever `stop` says."""
    with socket.socket(socket.AF_UNIX) as successor:
        kernel.steps = [lambda: successor.connect(str(handover.socket_path()))]
        said = run(policy)
        assert successor.recv(1) == handover.READY
    assert said[-1] == "stopped: another labelgate comes into force: our rules stay for it"
    assert kernel.touched == ["bound", "applied", "stopped"]


def test_a_planned_stop_waits_for_counters(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nft lets go of rules some time after they are gone."""
    fake = kernel.nfacct
    monkeypatch.setattr(enforcement, "LATE_SECONDS", 0)
    real, looks = fake.counters, iter(range(8))

    def counters(prefix: str) -> dict[str, nfacct.Counter]:
        if kernel.touched[-1] == "cleaned" and next(looks) == 6:
            fake.used.clear()
        return real(prefix)

    def use() -> None:
        fake.used = set(fake.packets)
        monkeypatch.setattr(fake, "counters", counters)

    kernel.steps = [use]
    run(policy)
    assert fake.packets == {}


def test_a_start_and_a_reload_tell_the_engines(kernel: Kernel, policy: Path) -> None:
    kernel.steps = [reload]
    announced = [message.splitlines() for message in run(policy) if " in force: " in message]
    assert [head.partition(" ")[0] for head, _ in announced] == ["generation"] * 2
    for _, engines in announced:
        assert re.fullmatch(r"engines: classes for (\d+) of \1 tables, \d+ KiB", engines)


@pytest.mark.parametrize("bound", [[4200, 4206, 4213], [4206]])
def test_a_daemon_that_holds_another_lock_is_noticed(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, bound: list[int]
) -> None:
    """Two would put their rules back against each other; a stop of one would open the other."""
    kernel.led_to = frozenset(range(4200, 4214))
    monkeypatch.setattr(queues, "read_queues", lambda: dict.fromkeys([*bound, 9999]))
    with pytest.raises(AgentError, match=f"another process answers queues {bound[0]}..{bound[-1]}, "):
        run(policy)
    assert kernel.touched == []


def test_what_a_killed_daemon_left_is_taken_over(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules, not the queues that they lead to: those would be answered by another meaning."""
    kernel.led_to = frozenset(range(4200, 4214))
    for module in (queues, enforcement):
        monkeypatch.setattr(module, "read_queues", lambda: dict.fromkeys([9999]))
    said = run(policy)
    assert kernel.touched == ["bound", "applied", "cleaned", "stopped"]
    assert kernel.base == 4214
    assert any("rules that are there lead to those of 4200" in line for line in said)


def test_a_fault_of_ours_lets_nothing_pass(kernel: Kernel, policy: Path) -> None:
    kernel.steps = [fault]
    with pytest.raises(ZeroDivisionError):
        run(policy)
    assert kernel.touched == ["bound", "applied", "stopped"]


def test_a_start_that_fails_leaves_nothing(kernel: Kernel, policy: Path) -> None:
    kernel.refuses = 1
    with pytest.raises(AgentError, match="netfilter table filter"):
        run(policy)
    assert kernel.touched == ["bound", "refused", "cleaned", "stopped"]


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("mode", ["keep", "open", "remove"])
def test_a_stop_while_the_start_waits_leaves_rules_as_found(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """What a daemon before has left is not removed, and nothing that nobody answers comes into force."""

    def wait(signals: Signals, _seconds: float) -> None:
        kernel.touched.append("waits")
        stop()

    monkeypatch.setattr(Agent, "_wait", WAIT)
    monkeypatch.setattr(Signals, "wait", wait)
    kernel.conntrack_is_off = True
    said = run(policy, stop=mode, settle="5s")
    assert kernel.touched == ["bound", "waits", "conntrack as before", "stopped"]
    assert said[-1] == "stopped before the policy was in force: rules are as they were found"
    assert not any(line.startswith("generation ") for line in said)


def test_a_stop_earlier_still_touches_nothing(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Loader._table

    def compiled(*arguments: Any) -> Any:
        stop()
        return real(*arguments)

    monkeypatch.setattr(Loader, "_table", compiled)
    said = run(policy)
    assert kernel.touched == []
    assert said[-1] == "stopped before the policy was in force: rules are as they were found"


def test_a_stop_as_the_rules_are_to_be_written_comes_before_them(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement.Enforcement, "_place_workers", lambda *_: stop())
    run(policy)
    assert kernel.touched == ["bound", "conntrack as before", "stopped"]


def test_a_stop_while_a_first_policy_waits_refuses_that(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon had nothing to govern until then: nothing is in force unsettled."""
    policy.write_text(POLICY.replace("edge1", "elsewhere"), encoding="utf-8")
    monkeypatch.setattr(Agent, "_wait", WAIT)
    monkeypatch.setattr(Signals, "wait", lambda *_: stop())

    def change() -> None:
        policy.write_text(POLICY, encoding="utf-8")
        kernel.conntrack_is_off = True
        reload()

    kernel.steps = [change]
    said = run(policy, settle="5s")
    assert any("told to stop while it waited" in line for line in said)
    assert "applied" not in kernel.touched
    assert said[-1] == "stopped: our rules are removed"


def test_rules_are_applied_without_counters_where_there_are_none(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is tried where rules cannot be applied, and not taken for granted."""
    kernel.refuses, kernel.can_count = 1, False
    said = run(policy)
    assert kernel.touched[:3] == ["bound", "refused", "applied"]
    (told,) = [line for line in said if "not counted" in line]
    assert told.endswith("kernel rules answer are not counted (no nfacct): netfilter table filter (v4): no")
    # Or the kernel makes none at all.
    kernel.touched.clear()
    fake = FakeNfacct()
    fake.is_there = False
    monkeypatch.setattr(kernel_counts, "nfacct", fake)
    said = run(policy)
    assert kernel.touched[:2] == ["bound", "applied"]
    assert sum("not counted (no nfacct): [Errno 22] Invalid argument" in line for line in said) == 1


def test_what_the_kernel_lacks_is_told(kernel: Kernel, policy: Path) -> None:
    buffers = '"receive_buffer_wanted": 200, "receive_buffer_granted": %d, "segmented_queues": %d'
    for granted, segmented, told in (
        (200, 0, []),
        (199, 1, ["199 of 200 bytes", "segments of large packets"]),
    ):
        kernel.counters = '{"hooks": {"filter-input": {%s}}}' % (buffers % (granted, segmented))
        warnings = [line for line in run(policy) if line.startswith("warning")]
        assert len(warnings) == len(told)
        assert all(words in warning for words, warning in zip(told, warnings, strict=True))


def test_links_that_could_not_be_followed_are_tried_again(kernel: Kernel, policy: Path) -> None:
    def change() -> None:
        kernel.links, kernel.refuses = Links((UPLINK, LATE)), 1

    policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")
    kernel.steps = [change, lambda: None]
    said = run(policy)
    assert "interfaces: eth1 is new" in said
    assert kernel.touched[2:-2] == [
        *("swapped 2", "refused", "swapped 2"),
        *("swapped 2", "applied", "swapped 2", "applied"),
    ]


def test_what_is_in_the_place_of_the_control_socket_is_named(
    kernel: Kernel, policy: Path, tmp_path: Path
) -> None:
    place = tmp_path / "control.sock"
    place.mkdir()
    said = run(policy)
    assert f"warning: no control socket at {place}: something that is no socket is in its place" in said


def test_queues_that_cannot_be_bound_say_why_only(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("queue 4205 cannot be bound: Too many open files (os error 24)")

    monkeypatch.setattr(enforcement._core, "Enforcer", fail)
    with pytest.raises(AgentError, match=r"^queues 4200\.\.\d+: queue 4205 .* \(os error 24\)$"):
        run(policy)


def test_systemd_shows_what_was_refused(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as that is so."""
    told: list[str] = []
    monkeypatch.setattr(ServiceManager, "_tell", lambda _, state, **__: told.append(state))

    def write(text: str) -> Callable[[], None]:
        def change() -> None:
            policy.write_text(text, encoding="utf-8")
            reload()

        return change

    kernel.steps = [write("kind: [\n"), write(POLICY)]
    run(policy)
    first, refused, again = (state.rpartition("STATUS=")[2] for state in told if "STATUS=" in state)
    assert first.startswith("generation 1 in force: node edge1")
    assert refused.startswith(f"REFUSED: {policy}:")
    assert refused.endswith(f"; {first}")
    assert again.startswith("generation 2 in force")


class Judged:
    """In the place of the shadow: by what packets are answered, and by which indexes."""

    def __init__(self) -> None:
        self.by: list[tuple[tuple[str, ...], dict[int, str]]] = []

    def swapped(self, _: int, generation: Any, indexes: Any) -> None:
        self.by.append((tuple(link.name for link in generation.links.links), dict(indexes)))

    def counters(self) -> dict[str, int]:
        return {}

    def stop(self) -> None:
        pass


def test_a_new_interface_is_not_judged_as_one_that_has_gone(kernel: Kernel, policy: Path) -> None:
    """Its index may be the same: the table in force learns the names first. What is judged by the table of
    before is judged with the interfaces that this one knows, also where the new one is taken back."""
    agent, judged = agent_of(policy, []), Judged()

    def change() -> None:
        agent._enforcement._shadow = judged  # type: ignore[assignment]
        kernel.links, kernel.refuses = Links((UPLINK, Link(3, "cali1", ()))), 1

    policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")
    kernel.links = Links((UPLINK, LATE))
    kernel.steps = [change]
    agent.run()
    before, after, indexes = ("eth0", "eth1"), ("eth0", "cali1"), {2: "eth0", 3: "cali1"}
    assert judged.by[:2] == [(before, indexes), (before, indexes)], "refused"
    assert judged.by[2:] == [(before, indexes), (after, indexes)], "tried again"


def test_links_that_cannot_be_read_now_end_nothing(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once; read as soon as that can be."""
    broken = pytest.MonkeyPatch()

    def fail(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def change() -> None:
        kernel.links = Links((UPLINK, LATE))
        broken.setattr(interfaces.LinkWatch, "poll", fail)

    monkeypatch.setattr(follower, "REST_SECONDS", 0)
    kernel.steps = [change, lambda: None, broken.undo]
    said = run(policy)
    assert [line.partition(":")[0] for line in said[1:-1]] == ["warning", "interfaces"]


def test_a_reload_that_fails_is_not_called_in_force(kernel: Kernel, policy: Path) -> None:
    """It is tried again, as the files are right."""

    def refuse() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.refuses = 1
        reload()

    kernel.steps = [refuse]
    said = run(policy)
    assert said[1].endswith("generation 1 stays in force: the rules could not be applied")
    assert said[2].startswith("generation 2 in force")
    assert len(said) == 4


@pytest.mark.parametrize("lacks", ["the match", "the objects"])
def test_what_cannot_be_counted_is_in_force(kernel: Kernel, policy: Path, lacks: str) -> None:
    """Also where it turns out late: a daemon that governed nothing has written no rule that counts."""
    said: list[str] = []
    agent = agent_of(policy, said)

    def refuse() -> None:
        kernel.can_count = False
        if lacks == "the match":
            kernel.refuses_after = 1
        else:
            kernel.nfacct.is_there = False
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        reload()

    kernel.steps = [refuse, lambda: None]
    agent.run()
    assert any(line.startswith("generation 2 in force") for line in said)
    assert sum("are not counted (no nfacct)" in line for line in said) == 1


def test_a_fault_of_ours_swaps_back(kernel: Kernel, policy: Path) -> None:
    """It refuses the change: what is queued is answered by the table that the rules belong to."""

    def fail() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.refuses, kernel.refusal = 1, ZeroDivisionError()
        reload()

    kernel.steps = [fail]
    said = run(policy)
    assert kernel.touched[2:4] == ["refused", "swapped 1"]
    assert said[1].startswith("a fault of labelgate (please report it): ZeroDivisionError at test_agent.py")
    assert said[2].startswith("generation 2 in force"), "tried again"


def test_rules_between_come_first_and_go_where_the_last_ones_are_refused(
    kernel: Kernel, policy: Path
) -> None:
    """Packets meet rules that hold by the table before and by the one that comes."""

    def change() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.refuses_after = 1
        reload()

    kernel.steps = [change]
    run(policy)
    once = ["applied", "swapped 1", "refused", "swapped 1", "applied"]
    assert kernel.touched[2:-2] == [*once, "applied", "swapped 1", "applied"], "refused, then tried again"


def test_rules_wait_for_workers_that_are_late(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules of the new policy must not meet what somebody answers by the one before."""
    monkeypatch.setattr(enforcement, "LATE_FOLLOW_SECONDS", 0)

    def change() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.late = 3
        reload()

    kernel.steps = [change]
    said = run(policy)
    assert kernel.touched[2:-2] == ["applied", "swapped 1", *["waited for workers"] * 3, "applied"]
    assert sum("workers are late" in line for line in said) == 1


def test_rules_do_not_wait_for_a_worker_that_hangs(kernel: Kernel, policy: Path) -> None:
    """Nor do they come: those of before are put back, and the daemon ends."""

    def change() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.late = 10**6
        running._enforcement.pulse.hung = lambda: 0  # type: ignore[method-assign]
        reload()

    said: list[str] = []
    running = agent_of(policy, said)
    kernel.steps = [change]
    with pytest.raises(AgentError, match="worker 0 has not come round"):
        running.run()
    assert any("does not take up a new table: worker 0 has not come round" in line for line in said)
    late = ["swapped 1", "waited for workers"]
    assert kernel.touched[2:8] == ["applied", *late, *late, "applied"]


@pytest.mark.parametrize("error", [ApplyError("filter", "v4", "no"), ValueError("no"), OSError("no")])
def test_rules_that_cannot_be_read_end_nothing(
    kernel: Kernel, policy: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[str]:
        raise error

    kernel.steps = [lambda: monkeypatch.setattr(enforcement.Netfilter, "check", fail)]
    assert "warning: rules cannot be checked or put back: " in "\n".join(run(policy))


@pytest.mark.parametrize(
    ("found", "told"),
    [(["a is gone"], "a is gone"), (["a is gone", "b is", "c is"], "a is gone (and 2 more)")],
)
def test_what_is_missing_is_told_as_long_as_it_is(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, found: list[str], told: str
) -> None:
    agent, problems = agent_of(policy, []), list[str | None]()

    def lose() -> None:
        kernel.refuses = 1
        monkeypatch.setattr(enforcement.Netfilter, "check", lambda *_: found)

    kernel.steps = [lose, lambda: problems.append(agent._enforcement.rules_problem())]
    agent.run()
    assert problems == [told]


@pytest.mark.parametrize("step", ["follow", "cut"])
def test_a_policy_whose_denials_cannot_be_cut_is_in_force(
    kernel: Kernel, policy: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    def change() -> None:
        monkeypatch.setattr(daemon.Revocation, step, fail)
        reload()

    kernel.steps = [change]
    said = run(policy)
    assert said[1] == "warning: connections that are denied now may go on: ZeroDivisionError()"
    assert said[2].startswith("generation 2 in force")


@pytest.mark.parametrize("error", [ApplyError("filter", "v4", "no"), ZeroDivisionError()])
def test_a_trial_that_fails_is_none(
    kernel: Kernel, policy: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[dict[str, Any]] = []

    def ask_in(agent: Agent) -> None:
        kernel.refuses, kernel.refusal = 1, error
        changed = POLICY.replace("eth0", "eth1")
        asked = {"paths": ["x"], "texts": [["x.yaml", changed]], "confirm": 60}
        with pytest.raises((ControlError, ZeroDivisionError)):
            agent._answer_apply(asked)
        answers.append(agent._answer_status({}))

    monkeypatch.setattr(daemon, "denied_sessions", lambda *_: [])
    monkeypatch.setattr(daemon, "status", lambda *_: {})
    options = Options((str(policy),), "edge1", None, True, {"stop": "remove", "watch": False})
    agent = Agent(options, lambda text: None)
    kernel.steps = [lambda: ask_in(agent)]
    agent.run()
    assert [answer["trial"] for answer in answers] == [None]
    assert "refused" in kernel.touched
    record = State(str(tmp_path / "state")).read()
    assert record is not None
    assert (record.trial, record.confirmed.is_applied) == (None, False)


def test_what_could_not_be_applied_is_tried_again_as_it_was_read(kernel: Kernel, policy: Path) -> None:
    """Nobody has asked for what was written to the files since."""

    def refuse() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.refuses = 2
        reload()

    kernel.steps = [refuse, lambda: policy.write_text("kind: [", encoding="utf-8")]
    said = run(policy)
    assert said[3].startswith("generation 2 in force")
    assert len(said) == 5


def applied(text: str = POLICY) -> dict[str, Any]:
    return {"paths": ["new.yaml"], "texts": [["new.yaml", text]]}


def test_what_is_applied_is_not_replaced_without_an_edit(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reload before it could not be done; its turn is over."""
    monkeypatch.setattr(daemon, "denied_sessions", lambda *_: [])
    said: list[str] = []
    agent = agent_of(policy, said)

    def refuse() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        kernel.refuses = 2
        reload()

    kernel.steps = [refuse, lambda: agent._answer_apply(applied()), lambda: None]
    agent.run()
    assert [line.split(":")[0] for line in said if " in force: node" in line] == [
        "generation 1 in force",
        "generation 2 in force",
    ]
    assert agent._enforcement.current.source.is_applied


def test_rules_are_put_back_while_connections_are_asked_about(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be hundreds of thousands of them."""

    def many(*asked: Any) -> list[Finding]:
        kernel.findings = ["v4: raw PREROUTING: our jump is gone"]
        asked[-1]()
        kernel.findings = []
        return []

    monkeypatch.setattr(daemon, "denied_sessions", many)
    said: list[str] = []
    agent = agent_of(policy, said)
    kernel.steps = [lambda: said.append(str(agent._answer_check(applied())))]
    agent.run()
    put_back = said.index("warning: v4: raw PREROUTING: our jump is gone; our rules are put back")
    assert put_back < said.index("{'findings': [], 'warnings': []}")


def test_rules_that_are_put_back_are_not_made_again(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand host endpoints that takes longer than to write them, and what is denied passes."""
    made: list[object] = []
    real = enforcement.ruleset
    monkeypatch.setattr(enforcement, "ruleset", lambda facts: made.append(real(facts)) or made[-1])

    def meddle() -> None:
        made.clear()
        kernel.findings = ["v4: raw PREROUTING: our jump is gone"]

    kernel.steps = [meddle, lambda: None]
    run(policy)
    assert kernel.touched == ["bound", "applied", "applied", "applied", "cleaned", "stopped"]
    assert made == []


@pytest.mark.parametrize(("stop", "expected"), [("keep", 3), ("remove", 2)])
def test_a_planned_stop_ends_a_trial(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, stop: str, expected: int
) -> None:
    """The rules of a policy that nobody has confirmed would stay for good."""
    monkeypatch.setattr(daemon, "denied_sessions", lambda *_: [])
    said: list[str] = []
    agent = agent_of(policy, said, stop=stop)
    trial = applied(POLICY.replace("eth0", "eth1")) | {"confirm": 60}
    kernel.steps = [lambda: agent._answer_apply(trial)]
    agent.run()
    assert agent._enforcement.current.number == expected
    assert ("the policy on trial is rolled back: the daemon stops" in said) == (stop == "keep")
    assert said[-1].startswith("stopped")


def test_refused_files_are_not_judged_anew_behind_what_is_applied(policy: Path) -> None:
    loader = Loader(Options((str(policy),), "edge1"), lambda _: None, lambda *_: None)
    links = Links((UPLINK,))
    before = loader.first(links, None)
    policy.write_text("kind: [", encoding="utf-8")
    with pytest.raises(LoadError):
        loader.next(before, links)
    generation = loader.applied(("new.yaml",), (("new.yaml", POLICY.encode()),), before, links)
    assert loader.next(generation, links, if_changed=True) is None


def test_a_refusal_at_the_start_stays(kernel: Kernel, policy: Path) -> None:
    """As long as the files are those that are refused."""
    run(policy)
    policy.write_text("kind: [", encoding="utf-8")
    agent = agent_of(policy, [], start="last-good")
    found: list[bool] = []

    def look() -> None:
        agent._reload(if_changed=True)
        found.append(agent._refusal is not None)

    kernel.steps = [look, lambda: policy.write_text(POLICY, encoding="utf-8"), look]
    agent.run()
    assert found == [True, False]


def test_a_restart_does_not_what_the_lockout_check_refused(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the files change, or a reload lets them through. Who starts it by hand is warned only."""

    def refuse(*_: object) -> None:
        raise LockOutError([Finding("ssh session", "tcp", "end of tier", is_lockout=True)])

    def change() -> None:
        policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
        reload()

    def started(*steps: Callable[[], object], start: str = "last-good") -> list[str]:
        """What is governed when it stops, and what it says first."""
        said: list[str] = []
        agent = agent_of(policy, said, start=start)
        kernel.steps = list(steps)
        agent.run()
        (host,) = agent._enforcement.current.table.rule_facts()["hosts"]
        return [*host["interfaces"], said[0].splitlines()[0]]

    run(policy)
    with monkeypatch.context() as patched:
        patched.setattr(daemon, "refuse_lockout", refuse)
        assert started(change)[0] == "eth0"
    interface, said = started()
    assert interface == "eth0"
    assert said.startswith("the files are those that the lock-out check refused")
    assert started(start="strict")[0] == "eth1"
    with monkeypatch.context() as patched:
        patched.setattr(daemon, "refuse_lockout", refuse)
        policy.write_text(POLICY, encoding="utf-8")
        started(change)
    assert started(reload)[0] == "eth1"
    assert started()[0] == "eth1"


def test_a_refusal_ends_with_its_cause(kernel: Kernel, policy: Path, tmp_path: Path) -> None:
    """A configuration that is as it was before gives no new generation; nor do interfaces."""
    config = tmp_path / "config.yaml"
    config.write_text("", encoding="utf-8")
    agent = agent_of(policy, [], config)
    found: list[str | None] = []

    def note() -> None:
        kernel.counters = json.dumps({"hooks": {hook: {} for hook in HOOKS}})
        refused = agent._answer_status({})["refused"]
        found.append(refused and refused["message"])

    def write(text: str) -> None:
        config.write_text(text, encoding="utf-8")
        agent._reload(if_changed=True)
        note()

    def change() -> None:
        kernel.links, kernel.refuses = Links((UPLINK, LATE)), 2

    policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")
    # Interfaces are tried twice in one turn.
    kernel.steps = [lambda: write("queues: {base: 5200}"), lambda: write(""), change, note, note]
    agent.run()
    wrong, mended, unlinked, linked = found
    assert "only a restart changes it" in str(wrong)
    assert mended is None
    assert "netfilter table filter" in str(unlinked)
    assert linked is None


def test_rules_that_would_be_the_same_are_not_written(kernel: Kernel, policy: Path) -> None:
    kernel.steps = [reload, reload]
    assert sum(" in force: " in message for message in run(policy)) == 3
    assert kernel.touched == ["bound", "applied", "swapped 1", "swapped 1", "cleaned", "stopped"]


def test_the_first_policy_waits_for_conntrack(kernel: Kernel, policy: Path) -> None:
    """Sessions that are open when a reload brings the first rules are known before they are judged."""
    policy.write_text("", encoding="utf-8")

    def change() -> None:
        policy.write_text(POLICY, encoding="utf-8")
        kernel.conntrack_is_off = True
        reload()

    kernel.steps = [change]
    run(policy)
    assert kernel.touched[:-2] == ["bound", "applied nothing", "waited", "swapped 1", "applied"]


@pytest.mark.parametrize("is_loose", [False, True])
def test_sessions_that_conntrack_cannot_come_to_know_are_warned_of(
    kernel: Kernel, policy: Path, is_loose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement, "tcp_loose", lambda: is_loose)
    kernel.conntrack_is_off = True
    warnings = [line for line in run(policy) if "nf_conntrack_tcp_loose is 0" in line]
    assert len(warnings) == (not is_loose)


@pytest.mark.parametrize("is_loose", [False, True])
def test_a_kernel_that_is_strict_already_is_told(
    is_loose: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(caution, "tcp_loose", lambda: is_loose)
    monkeypatch.setattr(caution, "set_tcp_loose", lambda _: True)
    said: list[str] = []
    wants_strict: Any = SimpleNamespace(config=SimpleNamespace(revoke="deny-now"))
    caution.Revocation(said.append, str(tmp_path)).follow(wants_strict)
    assert said == ([] if is_loose else ["nf_conntrack_tcp_loose is 0 already: a stop leaves it so"])


def test_rules_of_the_other_variant_are_told_once(kernel: Kernel, policy: Path) -> None:
    """Whenever they come; `status` says so as long as they are there. Writers of our marks by themselves."""
    agent = agent_of(policy, said := [])
    told: list[object] = []
    plain, writing = (
        {"v6": parse_save(f"*mangle\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n")}
        for rule in ("-j ACCEPT", "-j MARK --set-xmark 0x400/0x400")
    )

    def look() -> None:
        kernel.counters = json.dumps({"hooks": {hook: {} for hook in HOOKS}})
        told.append(agent._answer_status({})["rules"])

    def change(variant: object) -> Callable[[], None]:
        return lambda: setattr(kernel, "other_variant", variant)

    legacy, worse = ("legacy", plain), ("legacy", writing)
    kernel.steps = [look, change(legacy), look, change(worse), look, look, change(None), look]
    agent.run()
    (writer,) = [line for line in said if line.startswith("warning: iptables-legacy v6")]
    assert "mangle: `-A INPUT -j MARK --set-xmark 0x400/0x400` can write our mark bits" in writer
    told_of = [writer.removeprefix("warning: ").partition(": packets")[0]]
    assert told == [
        {"variant": "nft", "otherVariant": other, "markWriters": writers}
        for other, writers in (
            (None, []),
            ("legacy", []),
            ("legacy", told_of),
            ("legacy", told_of),
            (None, []),
        )
    ]
    assert len([line for line in said if line.startswith("warning: iptables-legacy has rules, too")]) == 1


def test_changes_of_our_rules_leave_room_for_marks(kernel: Kernel, policy: Path) -> None:
    """A flush has more to say than the log takes in a minute; who writes our marks meanwhile is told."""
    marking = {"v4": parse_save("*nat\n-A PREROUTING -j MARK --set-xmark 0x100/0x100\nCOMMIT\n")}

    def flush() -> None:
        kernel.findings = [f"v4 filter lg-{number}: not as it was installed" for number in range(12)]

    def write() -> None:
        kernel.findings, kernel.now = [], marking

    kernel.steps = [flush, write, lambda: None]
    said = run(policy)
    assert sum("our rules are put back" in line for line in said) == 10
    assert sum("can write our mark bits" in line for line in said) == 1


def test_rules_ahead_of_ours_are_told_once_at_the_start(kernel: Kernel, policy: Path) -> None:
    """As writers of our marks, if they are; as what a repeated packet does not survive otherwise."""
    marks, limit = "-j MARK --set-xmark 0x400/0x400", "-m limit --limit 5/sec -j DROP"
    kernel.now = {"v4": parse_save(f"*mangle\n-A PREROUTING {marks}\nCOMMIT\n")}
    kernel.hazards = [
        Hazard("mangle-prerouting", "PREROUTING", marks, "can write our mark bits"),
        Hazard("filter-input", "INPUT", limit, "can end the table in one pass and not in the other"),
    ]
    kernel.steps = [lambda: None]
    said = [line for line in run(policy) if "`-A" in line or "repeating" in line]
    assert [line.partition(": packets")[0] for line in said] == [
        f"warning: iptables-nft v4 mangle: `-A PREROUTING {marks}` can write our mark bits",
        f"warning: filter-input: `-A INPUT {limit}` can end the table in one pass and not in the other",
        "warning: answered without repeating packets: filter-input, mangle-prerouting",
    ]


def test_hazards_that_could_not_be_followed_are_tried_again(kernel: Kernel, policy: Path) -> None:
    def change() -> None:
        kernel.hazards = [Hazard("filter-input", "INPUT", "-j MARK", "can write our mark bits")]
        kernel.refuses = 1

    kernel.steps = [change, lambda: None]
    run(policy)
    tries = ["without repeat 1", "refused", "without repeat 1", "applied", "without repeat 1"]
    assert kernel.touched[2:-2] == tries


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("marks", "{mask: 0x7}"),
        ("queues", "{base: 5200}"),
        ("fail", "{filter-input: open}"),
        ("malformed", "accept"),
        ("backend", "legacy"),
        ("policies", "elsewhere"),
    ],
)
def test_what_only_a_start_can_change(
    key: str, value: str, kernel: Kernel, policy: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("", encoding="utf-8")

    def change() -> None:
        config.write_text(f"{key}: {value}", encoding="utf-8")
        reload()

    kernel.steps = [change]
    said: list[str] = []
    Agent(
        Options((str(policy),), "edge1", str(config), False, {"stop": "remove", "watch": False}), said.append
    ).run()
    assert said[1].startswith(f"{config}:1: {key}")
    assert "only a restart changes it\ngeneration 1 stays in force" in said[1]
    assert kernel.touched == ["bound", "applied", "cleaned", "stopped"]


def test_a_refusal_is_told_once_for_what_was_written(kernel: Kernel, policy: Path) -> None:
    """A log beside the files would be written, and hence the files read, without end."""
    said: list[str] = []
    agent = Agent(
        Options((str(policy),), "edge1", None, False, {"stop": "remove", "watch": False}), said.append
    )

    def event(text: str) -> Callable[[], None]:
        def write() -> None:
            policy.write_text(text, encoding="utf-8")
            agent._reload(if_changed=True)

        return write

    def refusals() -> int:
        return sum("generation" in line and "stays in force: the new policies" in line for line in said)

    counts: list[int] = []
    for step in (*["kind: ["] * 3, "kind: [ ", "kind: [ ", POLICY, "kind: [ "):
        kernel.steps += [event(step), lambda: counts.append(refusals())]
    kernel.steps += [reload, lambda: counts.append(refusals())]
    agent.run()
    assert counts == [1, 1, 1, 2, 2, 2, 3, 4], "who asks for it is told again"
    assert agent._loader.changes.refused["invalid"] == 4


@pytest.mark.parametrize("flags", [[], ["--node", "edge1"]], ids=["of the file", "of the command line"])
def test_the_node_stays_what_it_was(
    flags: list[str], kernel: Kernel, policy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A node named on the command line wins over the file, at a reload, too."""
    config = tmp_path / "config.yaml"
    config.write_text("node: edge1", encoding="utf-8")

    def change() -> None:
        config.write_text("node: elsewhere", encoding="utf-8")
        reload()

    kernel.steps = [change]
    done = CliRunner().invoke(
        cli, ["run", "-f", str(policy), "--config", str(config), "--stop", "remove", "--no-watch", *flags]
    )
    assert done.exit_code == 0
    _, *after = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("engines:")]
    refused = f"{config}:1: node: found `elsewhere`, expected `edge1` as at the start"
    assert after[0].startswith("generation 2 in force: node edge1" if flags else refused)


def test_another_host_name_is_not_another_node(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a restart: a lease of DHCP must not take the policy away, nor have edits refused."""

    def rename() -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")
        reload()

    monkeypatch.setattr(socket, "gethostname", lambda: "EDGE1")
    kernel.steps = [rename]
    said: list[str] = []
    Agent(Options((str(policy),), flags={"stop": "remove", "watch": False}), said.append).run()
    assert [line.split(",")[0] for line in said[:2]] == [
        f"generation {number} in force: node edge1" for number in (1, 2)
    ]


def test_a_reload_changes_the_stop_mode(kernel: Kernel, policy: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("stop: remove", encoding="utf-8")

    def change() -> None:
        config.write_text("stop: keep", encoding="utf-8")
        reload()

    kernel.steps = [change]
    said: list[str] = []
    Agent(Options((str(policy),), "edge1", str(config), flags={"watch": False}), said.append).run()
    assert said[-1] == "stopped: our rules stay, what they queue is dropped"
    assert "cleaned" not in kernel.touched


def test_only_a_stop_ends_a_wait() -> None:
    with Signals() as signals:
        reload()
        began = time.monotonic()
        signals.wait(0.2)
        assert time.monotonic() - began >= 0.2
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait(60)
        assert time.monotonic() - began < 5
        assert list(signals.take([], 0)) == [signal.SIGHUP, signal.SIGTERM]


def test_a_signal_ends_the_wait_for_others() -> None:
    """Ctrl-C stops the daemon at once, not at its next look at the rules."""
    with Signals() as signals, socket.socket() as nothing_comes_here:
        nothing_comes_here.bind(("127.0.0.1", 0))
        nothing_comes_here.listen()
        began = time.monotonic()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert list(signals.take([nothing_comes_here.fileno()], 100)) == [signal.SIGINT]
        assert time.monotonic() - began < 50


HALVES = (
    POLICY + "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: half}\n"
    "spec:\n  selector: all()\n  ingress:\n  - action: Allow\n    protocol: TCP\n",
    "    source: {nets: [192.0.2.0/24]}\n",
)


@pytest.mark.parametrize("halves", [("", POLICY + HALVES[0].replace(POLICY, "") + HALVES[1]), HALVES])
def test_half_a_file_is_not_in_force(
    kernel: Kernel, policy: Path, in_a_hurry: None, halves: tuple[str, str]
) -> None:
    """However long who writes it stands still: the shell truncates before a slow command has said a word."""
    said: list[str] = []
    agent = agent_of(policy, said, watch=True)
    seen: list[tuple[int, list[str]]] = []
    with ExitStack() as opened:

        def begin() -> None:
            writer = opened.enter_context(policy.open("w"))
            opened.callback(writer.write, halves[1])
            writer.write(halves[0])
            writer.flush()

        def look() -> None:
            kernel.counters = json.dumps({"hooks": {hook: {} for hook in HOOKS}})
            status = agent._answer_status({})
            assert bool(status["refused"]) == bool(status["files"]["open"])
            assert all(one["seconds"] > 0.1 for one in status["files"]["open"])
            seen.append((status["generation"]["number"], [one["file"] for one in status["files"]["open"]]))

        kernel.steps = [*waited(), begin, *waited(), look, opened.close, *waited(), look]
        agent.run()
    assert seen == [(1, [str(policy)]), (2, [])]
    assert stayed(said) == [f"{policy}: is being written"]
    keys = [resource.key for resource in agent._enforcement.current.snapshot.resources()]
    assert "GlobalNetworkPolicy/half" in keys


def test_a_reload_of_half_a_file_is_refused_unless_forced(
    kernel: Kernel, policy: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    agent = agent_of(policy, said)
    refusals: list[str] = []

    def refuse() -> None:
        with pytest.raises(ControlError) as refusal:
            agent._answer_reload({})
        refusals.append(str(refusal.value))

    with ExitStack() as opened:

        def begin(text: str) -> None:
            writer = opened.enter_context(policy.open("a"))
            writer.write(text)
            writer.flush()

        kernel.steps = [
            lambda: begin(""),
            reload,  # Nothing has changed.
            lambda: begin(HALVES[0].replace(POLICY, "")),
            reload,
            refuse,
            lambda: agent._answer_reload({"force": True}),
        ]
        agent.run()
    assert stayed(said) == [f"{policy}: is being written"] * 2
    assert all(str(policy) in refusal for refusal in refusals)
    assert agent._enforcement.current.number == 3


def test_half_a_configuration_is_not_in_force(
    kernel: Kernel, policy: Path, in_a_hurry: None, tmp_path: Path
) -> None:
    config, said = tmp_path / "config.yaml", list[str]()
    config.write_text("lockout: refuse\n", encoding="utf-8")
    agent = agent_of(policy, said, config, watch=True)
    found: list[str] = []
    with ExitStack() as opened:
        kernel.steps = [
            *waited(),
            lambda: opened.enter_context(config.open("w")).write("lockout: warn\n"),
            *waited(),
            lambda: found.append(agent._enforcement.current.config.lockout),
            opened.close,
            *waited(),
            lambda: found.append(agent._enforcement.current.config.lockout),
        ]
        agent.run()
    assert found == ["refuse", "warn"]
    assert stayed(said) == [f"{config}: somebody has it open for writing"]


def test_half_a_file_at_the_start(
    kernel: Kernel, policy: Path, in_a_hurry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file that is not valid: a service takes what was in force, and follows."""
    said: list[str] = []
    options = Options((str(policy),), "edge1", flags={"stop": "keep", "watch": True}, is_configured=True)
    monkeypatch.setenv("INVOCATION_ID", "1")
    Agent(options, said.append).run()
    with policy.open("a") as file:
        file.write("---\n")
        file.flush()
        again = Agent(options, said.append)
        kernel.steps = [*waited(), file.close, *waited()]
        again.run()
        assert again._enforcement.current.number == 2
    assert sum("is being written" in text for text in said) == 1 + len(stayed(said))
    monkeypatch.delenv("INVOCATION_ID")
    with policy.open("a"), pytest.raises(LoadError, match="is being written"):
        run(policy)


def test_a_file_that_was_emptied_is_told(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kubectl get > policy.yaml` that fails leaves nothing, which may be meant, too."""
    monkeypatch.setattr(daemon, "denied_sessions", lambda *_: [])
    said: list[str] = []
    agent = agent_of(policy, said)
    warning = f"{policy} held 1 resource and holds none now"
    asked = {"paths": [str(policy)], "texts": [[str(policy), "# nothing"], ["other.yaml", ""]]}
    answers: list[Any] = []
    kernel.steps = [
        lambda: answers.append(agent._answer_check(asked)["warnings"]),
        lambda: answers.append(agent._answer_apply(asked)["warnings"]),
        lambda: answers.append(agent._answer_apply(asked)["warnings"]),
        lambda: policy.write_text("# nothing", encoding="utf-8"),
        reload,
        reload,
        lambda: policy.write_text("", encoding="utf-8"),
        reload,
    ]
    agent.run()
    assert answers == [[warning], [warning], []]
    assert said.count(f"warning: {warning}") == 1
    assert agent._enforcement.current.number == 6


def test_a_file_that_is_not_read_for_its_name_is_told_once(kernel: Kernel, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(POLICY, encoding="utf-8")
    (folder / "B.YAML").write_text(POLICY, encoding="utf-8")
    kernel.steps = [reload, lambda: (folder / "C.JSON").write_text("{}"), reload]
    warnings = [text for text in run(folder) if "not read" in text]
    assert warnings == [
        f"warning: not read: {folder / name}; names end in .yaml, .yml or .json"
        for name in ("B.YAML", "C.JSON")
    ]
