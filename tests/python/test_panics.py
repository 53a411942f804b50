"""The core panics: a change is refused, and what was in force is in force."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from labelgate.agent import Agent, caution, daemon, enforcement, follower, shadow
from labelgate.agent.generation import AgentError
from labelgate.agent.interfaces import InterfaceLog
from labelgate.agent.panics import CoreFault, Fault, faults_refused, panics_refused
from labelgate.agent.store import Store
from labelgate.compiler import Compiler
from labelgate.control import ControlError, ControlServer
from labelgate.handlers import PacketLoop
from labelgate.links import Links
from labelgate.resources import kinds
from labelgate.sources.watch import FileWatch
from labelgate.table import DecisionTable
from test_agent import LATE, POLICY, TWIN, UPLINK, Kernel, agent_of, applied

pytest_plugins = ["test_agent"]

PanicException = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
"""As pyo3 makes it: `except Exception` does not see it."""
FAULT = "a fault of labelgate's core (please report it): index out of bounds"


def panic(*_: object, **__: object) -> Any:
    raise PanicException("index out of bounds")


def once(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fault: Callable[[], object] = panic
) -> None:
    """Its next call panics; those behind it do what they did."""
    real = getattr(owner, name)

    def first(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        return fault()

    monkeypatch.setattr(owner, name, first)


def edit(policy: Path, text: str = POLICY.replace("eth0", "eth1")) -> None:
    policy.write_text(text, encoding="utf-8")
    os.kill(os.getpid(), signal.SIGHUP)


def test_other_ends_are_ends() -> None:
    for error in (KeyboardInterrupt, SystemExit, ZeroDivisionError):
        with pytest.raises(error), panics_refused():
            raise error
    with pytest.raises(CoreFault), panics_refused():
        panic()


def test_a_panic_of_the_compiler_refuses_the_edit(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next edit is compiled by another compiler: the one that panicked may be anything."""
    compilers: list[Compiler] = []
    real = Compiler.follow

    def follow(self: Compiler, *resources: Any) -> DecisionTable:
        compilers.append(self)
        return panic() if len(compilers) == 1 else real(self, *resources)

    monkeypatch.setattr(Compiler, "follow", follow)
    said: list[str] = []
    agent = agent_of(policy, said)
    refused: list[object] = []
    kernel.steps = [
        lambda: edit(policy),
        lambda: refused.append(agent._refusal and agent._refusal.message),
        lambda: edit(policy, f"{POLICY}---{TWIN}"),
        lambda: edit(policy, POLICY),
    ]
    agent.run()
    assert refused == [FAULT]
    assert said[1] == f"{FAULT}\ngeneration 1 stays in force: the new policies are not valid"
    assert [line.partition(":")[0] for line in said[2:-1]] == [
        "generation 2 in force",
        "generation 3 in force",
    ]
    assert len({id(one) for one in compilers}) == len(compilers) == 2


def test_a_fault_while_files_are_judged_refuses_the_edit(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V-80: whatever goes wrong with new policy, what is in force stays."""
    real, reads, calls = Compiler.follow, kinds.read, [0]

    def follow(self: Compiler, *resources: Any) -> DecisionTable:
        calls[0] += 1
        return {}[0] if calls[0] == 1 else real(self, *resources)  # type: ignore[return-value]

    monkeypatch.setattr(Compiler, "follow", follow)
    said: list[str] = []
    agent = agent_of(policy, said)
    refused: list[str] = []
    note = lambda: refused.append(agent._refusal.message if agent._refusal else "")  # noqa: E731

    def fail(_data: object, _location: object) -> None:
        raise RecursionError("too deep")

    def edit_unreadable() -> None:
        monkeypatch.setattr(kinds, "read", fail)
        edit(policy, f"{POLICY}---{TWIN}# another text\n")

    def edit_again() -> None:
        note()
        monkeypatch.setattr(kinds, "read", reads)
        edit(policy, f"{POLICY}---{TWIN}")

    kernel.steps = [lambda: edit(policy), note, edit_unreadable, edit_again]
    agent.run()
    assert [text.partition(" at ")[0] for text in refused] == [
        "a fault of labelgate (please report it): KeyError",
        f"{policy}: labelgate itself fails on this file\n  found: RecursionError",
    ]
    assert said[-2].startswith("generation 2 in force")


def test_faults_are_told_apart_from_refusals() -> None:
    for error in (LookupError, ZeroDivisionError):
        with pytest.raises(error), faults_refused(LookupError, ZeroDivisionError):
            raise error
        with pytest.raises(Fault, match="a fault of labelgate"), faults_refused(AgentError):
            raise error
    with pytest.raises(CoreFault), faults_refused():
        panic()
    with pytest.raises(KeyboardInterrupt), faults_refused():
        raise KeyboardInterrupt


def test_a_panic_of_the_swap_puts_the_table_back(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        once(monkeypatch, enforcement._core.Enforcer, "swap")
        edit(policy)

    kernel.steps = [change]
    said = run_all(kernel, policy)
    assert said[1].startswith(FAULT)
    assert kernel.touched[2:5] == ["applied", "swapped 1", "applied"], "the rules and the table of before"
    assert said[2].startswith("generation 2 in force"), "tried again"


def run_all(kernel: Kernel, policy: Path) -> list[str]:
    said: list[str] = []
    agent_of(policy, said).run()
    return said


def test_a_panic_for_new_interfaces_leaves_those_of_before(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        once(monkeypatch, DecisionTable, "on_host")
        kernel.links = Links((UPLINK, LATE))

    kernel.steps = [change, lambda: None]
    said = run_all(kernel, policy)
    assert said[1].startswith(FAULT)
    assert said[2] == "interfaces: eth1 is new"


FOLLOWED: list[tuple[object, str, str]] = [
    (ControlServer, "serve", "nobody can be answered"),
    (Agent, "_reload", "policies cannot be read as told"),
    (FileWatch, "poll", "files cannot be followed"),
    (Agent, "_end_trial", "a trial cannot be ended"),
    (Store, "keep_due", "state cannot be kept"),
    (InterfaceLog, "catch_up", "interfaces cannot be followed"),
    (enforcement.Enforcement, "restore", "rules cannot be looked after"),
]


@pytest.mark.parametrize(("owner", "name", "words"), FOLLOWED)
@pytest.mark.parametrize("kind", [PanicException, ZeroDivisionError])
def test_a_fault_in_what_is_followed_ends_nothing(
    kernel: Kernel,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    words: str,
    kind: type[BaseException],
) -> None:
    """It is said, what is in force stays, and it is tried again: an edit comes into force all the same."""
    monkeypatch.setattr(follower, "REST_SECONDS", 0.05)

    def fail() -> None:
        raise kind("index out of bounds")

    once(monkeypatch, owner, name, fail)
    kernel.steps = [lambda: None, lambda: edit(policy), *[lambda: time.sleep(0.01)] * 20]
    said: list[str] = []
    agent_of(policy, said, watch=owner is FileWatch).run()
    (told,) = (line for line in said if words in line)
    assert re.fullmatch(
        rf"warning: {words}: a fault of labelgate.*index out of bounds; what is in force stays, "
        "it is tried again",
        told,
    )
    assert any(line.startswith("generation 2 in force") for line in said)
    assert said[-1] == "stopped: our rules are removed"


def test_a_fault_for_new_interfaces_leaves_those_of_before(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise TypeError("no text")

    def change() -> None:
        once(monkeypatch, DecisionTable, "on_host", fail)
        kernel.links = Links((UPLINK, LATE))

    kernel.steps = [change, lambda: None]
    said = run_all(kernel, policy)
    assert said[1].startswith("a fault of labelgate (please report it): TypeError at test_panics.py")
    assert said[1].endswith("generation 1 stays in force: for the interfaces of before")
    assert said[2] == "interfaces: eth1 is new"


@pytest.mark.parametrize("kind", [ZeroDivisionError, OSError])
def test_interfaces_that_cannot_be_read_at_the_start_come_later(
    kernel: Kernel, policy: Path, kind: type[Exception]
) -> None:
    """What policy names is governed meanwhile."""
    kernel.is_silent = kind("no")
    policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")
    kernel.links = Links((UPLINK, LATE))
    kernel.steps = [lambda: None]
    said = run_all(kernel, policy)
    assert said[0].startswith("warning: interfaces cannot be read: ")
    assert said[1].startswith("generation 1 in force: node edge1, 0 host endpoints")
    assert said[2] == "interfaces: eth0 is new, eth1 is new"
    assert said[3] == "with an interface now: HostEndpoint/in, HostEndpoint/out"


def test_files_that_cannot_be_followed_at_the_start_are_told(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(daemon, "FileWatch", fail)
    said: list[str] = []
    agent_of(policy, said, watch=True).run()
    (told,) = (line for line in said if line.startswith("warning"))
    assert told.startswith("warning: files are not followed: a fault of labelgate (please report it): Rec")
    assert said[-1] == "stopped: our rules are removed"


@pytest.mark.parametrize("where", ["compile", "swap"])
def test_a_panic_of_an_apply_is_an_answer(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """And no trial."""
    monkeypatch.setattr(daemon, "denied_sessions", lambda *_: [])
    agent = agent_of(policy, [])
    answers: list[ControlError] = []
    owner, name = {"compile": (Compiler, "follow"), "swap": (enforcement._core.Enforcer, "swap")}[where]

    def ask() -> None:
        once(monkeypatch, owner, name)
        with pytest.raises(ControlError) as refused:
            agent._answer_apply(applied(POLICY.replace("eth0", "eth1")) | {"confirm": 60})
        answers.append(refused.value)

    kernel.steps = [ask]
    agent.run()
    assert str(answers[0]).startswith(FAULT)
    assert agent._trial is None
    assert agent._enforcement.current.number == 1


def test_a_panic_of_a_verb_ends_nothing(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "status", panic)
    agent = agent_of(policy, [])
    answers: list[bytes] = []

    def ask() -> None:
        assert agent._control is not None
        answers.append(agent._control._answered(b'{"version":1,"verb":"status"}'))

    kernel.steps = [ask]
    agent.run()
    assert b'"code":"internal"' in answers[0]


def test_a_panic_at_the_start_falls_back_on_the_policy_of_before(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(kernel, policy)
    policy.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
    once(monkeypatch, Compiler, "__init__")
    said: list[str] = []
    agent = agent_of(policy, said, start="last-good")
    agent.run()
    assert said[0] == f"{FAULT}\nthe policy that was in force last is put in force again"
    (host,) = agent._enforcement.current.table.rule_facts()["hosts"]
    assert host["interfaces"] == ["eth0"]


def test_a_panic_of_the_lockout_check_is_told(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel does not tell: an edit is made, what somebody asks for is not."""
    monkeypatch.setattr(caution, "findings", panic)
    monkeypatch.setattr(caution, "open_sessions", list)
    monkeypatch.setattr(caution, "read_connections", list)
    agent = agent_of(policy, [])
    agent.run()
    current, said = agent._enforcement.current, list[str]()
    caution.refuse_lockout(current, current, current.links, said.append, lambda: None)
    assert said[0].startswith("warning: who is locked out cannot be told: CoreFault")
    with pytest.raises(caution.LockOutError):
        caution.denied_sessions(current, current, current.links, None, lambda: None)


@pytest.mark.parametrize("kind", [PanicException, ZeroDivisionError])
def test_counters_that_cannot_be_told_end_nothing(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def fail(_: object) -> None:
        raise kind("no")

    monkeypatch.setattr(enforcement.Enforcement, "counters", fail)
    kernel.steps = [lambda: os.kill(os.getpid(), signal.SIGUSR1), lambda: None]
    said = run_all(kernel, policy)
    assert said[1].startswith("error: counters cannot be told: ")
    assert said[2:] == ["stopped: our rules are removed"]


def test_a_panic_while_rules_are_put_back_is_told(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        monkeypatch.setattr(enforcement.Netfilter, "check", lambda *_: ["a jump is gone"])
        once(monkeypatch, DecisionTable, "rule_facts")

    kernel.steps = [lose]
    assert f"warning: rules cannot be checked or put back: {FAULT}" in run_all(kernel, policy)


def test_a_panic_at_the_stop_is_told(kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.steps = [lambda: monkeypatch.setattr(DecisionTable, "rule_facts", panic)]
    said: list[str] = []
    agent_of(policy, said, stop="open").run()
    assert f"warning: stop: {FAULT}" in said


class Sampling:
    """A packet loop whose samples cannot be had, then cannot be judged; what it was asked is counted."""

    def __init__(self) -> None:
        self.asked = 0
        self.enough = threading.Event()

    def samples(self, most: int) -> str:
        self.asked += 1
        if self.asked == 1:
            panic()
        if self.asked > 2:
            self.enough.set()
        return '[{"generation": 1, "in": 0, "out": 0}]' if self.asked == 2 else "[]"


def test_the_shadow_goes_on_behind_panics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_SECONDS", 0.0)
    monkeypatch.setattr(shadow, "packet_of", panic)
    loop, said = Sampling(), list[str]()
    generation: Any = SimpleNamespace(links=Links((UPLINK,)))
    checks = shadow.Shadow(cast(PacketLoop, loop), generation, said.append)
    went_on = loop.enough.wait(30)
    checks.stop()
    assert went_on
    assert [line.partition(" {")[0] for line in said] == [
        "error: samples cannot be taken: PanicException: index out of bounds",
        "error: the reference cannot judge",
    ]
    assert checks.counters() == {"checked": 0, "wrong": 1, "leftOut": 0}
