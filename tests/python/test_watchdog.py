"""systemd's watchdog hears of each step of what takes long, and of nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from labelgate import Snapshot
from labelgate.agent import Agent, daemon, notify
from labelgate.agent.notify import ServiceManager
from labelgate.agent.process import Signals
from labelgate.compiler import Compiler
from labelgate.netfilter import apply
from labelgate.netfilter.apply import ApplyError, Netfilter
from labelgate.netfilter.ruleset import ruleset
from ruleset_examples import example
from test_agent import POLICY, TWIN, Kernel, agent_of

pytest_plugins = ["test_agent"]

WAIT = Agent._wait
"""Which the fixture takes away."""


STAGED = """
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: tight}
spec: {selector: all(), types: [Ingress]}
"""


def test_it_is_not_told_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    clock = [100.0]
    monkeypatch.setattr(ServiceManager, "_tell", lambda _, state: told.append(state))
    monkeypatch.setattr(notify.time, "monotonic", lambda: clock[0])
    manager = ServiceManager({})
    for _ in range(1000):
        manager.alive()
        clock[0] += 0.01
    assert told == ["WATCHDOG=1"] * 10


def test_the_steps_of_a_change_are_told(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that is parsed, the snapshot, the table; a second reading as the first."""
    monkeypatch.setattr(ServiceManager, "alive", lambda _: kernel.touched.append("alive"))
    real = Compiler.follow

    def compiled(self: Compiler, *resources: Any) -> Any:
        kernel.touched.append("compiling")
        return real(self, *resources)

    monkeypatch.setattr(Compiler, "follow", compiled)

    def edit() -> None:
        for number in range(3):
            text = (POLICY if number == 0 else TWIN).replace("name: in", f"name: in{number}")
            (policy / f"{number}.yaml").write_text(text, encoding="utf-8")
        os.kill(os.getpid(), signal.SIGHUP)

    policy.unlink()
    policy.mkdir()
    (policy / "0.yaml").write_text(POLICY, encoding="utf-8")
    kernel.steps = [lambda: kernel.touched.append("edited"), edit]
    agent_of(policy, []).run()
    behind = kernel.touched[kernel.touched.index("edited") :]
    before, after = behind[: behind.index("compiling")], behind[behind.index("compiling") :]
    # The loop's turn, the two files that are new, the snapshot.
    assert before.count("alive") == 1 + 2 + 1
    assert after[1] == "alive"


@pytest.mark.parametrize("faulty", [False, True])
def test_a_compile_has_more_time(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch, faulty: bool
) -> None:
    """Of the table and of the staged one; also where it ends with a fault, which is a refused change."""
    monkeypatch.setenv("WATCHDOG_USEC", "120000000")
    monkeypatch.setattr(ServiceManager, "_tell", lambda _, state, **__: kernel.touched.append(state))
    follow, compile_ = Compiler.follow, Snapshot.compile

    def followed(self: Compiler, *arguments: Any) -> Any:
        kernel.touched.append("compiling")
        if faulty:
            raise ValueError("no")
        return follow(self, *arguments)

    def compiled(self: Snapshot, **options: Any) -> Any:
        kernel.touched.append("compiling staged")
        return compile_(self, **options)

    monkeypatch.setattr(Compiler, "follow", followed)
    monkeypatch.setattr(Snapshot, "compile", compiled)

    def edit() -> None:
        policy.write_text(f"{POLICY}---{STAGED}", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGHUP)

    kernel.steps = [lambda: kernel.touched.append("edited"), edit]
    agent_of(policy, []).run()
    told = kernel.touched[kernel.touched.index("edited") :]
    long, short = "WATCHDOG_USEC=600000000", "WATCHDOG_USEC=120000000"
    whole = [long, "compiling", short]
    whole += [] if faulty else [long, "compiling staged", short]
    assert [state for state in told if state in whole] == whole


def test_without_a_watchdog_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ServiceManager, "_tell", lambda _, state, **__: told.append(state))
    for environ in ({}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "x"}):
        with ServiceManager(environ).patience():
            pass
    assert told == []
    with ServiceManager({"WATCHDOG_USEC": "900000000"}).patience():
        pass
    assert told == ["WATCHDOG_USEC=900000000"] * 2, "never less than is configured"


def test_each_program_that_has_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is not."""
    done: list[str] = []
    hangs: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        verb = command[0].rpartition("-")[2]
        done.append(verb)
        if verb in hangs:
            raise subprocess.TimeoutExpired(command, 30)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(apply.subprocess, "run", run)
    netfilter = Netfilter("nft", step=lambda: done.append("told"))
    families = len(netfilter.families)
    netfilter.read()
    assert done == ["save", "told"] * families
    done.clear()
    netfilter.apply(ruleset(example("host-endpoint")))
    restored = done.count("restore")
    assert restored > 0
    assert done[: 2 * (families + restored)] == ["save", "told"] * families + ["restore", "told"] * restored
    done.clear()
    hangs.append("save")
    with pytest.raises(ApplyError):
        netfilter.read()
    assert done == ["save"]


def test_a_wait_that_is_configured_is_told(
    kernel: Kernel, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`settle` may be longer than the watchdog's patience."""
    waits: list[float] = []
    monkeypatch.setattr(Agent, "_wait", WAIT)
    monkeypatch.setattr(daemon, "ALIVE_SECONDS", 0.01)
    monkeypatch.setattr(Signals, "wait", lambda _, seconds: waits.append(seconds))
    monkeypatch.setattr(ServiceManager, "alive", lambda _: kernel.touched.append("alive"))
    kernel.conntrack_is_off = True
    agent_of(policy, [], settle="100ms").run()
    assert len(waits) > 1
    assert max(waits) <= 0.01
    assert kernel.touched[: kernel.touched.index("applied")].count("alive") >= len(waits)
