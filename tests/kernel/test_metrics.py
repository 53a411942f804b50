"""Metrics and health of the real daemon over HTTP: what was sent, and what was done to it."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import policies
from kit import Daemon, dual, enforce, restore, wait_until
from labelgate.demo.world import EDGE, World
from policies import ALLOWED_DATAGRAM as ALLOWED
from policies import REFUSED_DATAGRAM as REFUSED
from prometheus_client.parser import text_string_to_metric_families
from shipped import names_used
from test_failures import Meddled
from test_queue import flood

PORT = 9091
LISTEN = {"listen": str(PORT), "rules": 50}


def get(world: World, path: str) -> tuple[int, str]:
    """Status and body, asked on the edge node itself."""

    def work() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    return world.call(EDGE, work)


def is_up(world: World) -> bool:
    try:
        return get(world, "/metrics")[0] == 200
    except ConnectionError:
        return False


def scrape(world: World) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and values of its labels (in the order of their names)."""
    status, text = get(world, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: dict[tuple[str, tuple[str, ...]], float], name: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric."""
    return {labels: value for (metric, labels), value in found.items() if metric == name}


def test_values_are_those_of_the_packets(world: World, tmp_path: Path) -> None:
    events = {"file": str(tmp_path / "events.jsonl")}
    with enforce(
        world, tmp_path, "nft", policies.MANAGEMENT, metrics=LISTEN, events=events, shadow=1
    ) as daemon:
        assert wait_until(lambda: is_up(world))
        for probe, count in ((ALLOWED, 30), (ALLOWED.twin, 7), (REFUSED, 20)):
            flood(world, probe, count)
        hook = "filter-input"
        assert wait_until(lambda: scrape(world)["labelgate_packets_total", (hook, "deny")] >= 20)
        assert wait_until(lambda: scrape(world)["labelgate_packets_total", (hook, "allow")] == 37)
        found = scrape(world)
        assert found["labelgate_queue_packets_total", ("v4", hook)] == 50
        # IPv6 neighbours that ask for routers, or report groups, in their own time: they are denied.
        others = found["labelgate_queue_packets_total", ("v6", hook)] - 7
        assert others >= 0
        denied = 20 + others
        assert found["labelgate_packets_total", (hook, "deny")] == denied
        assert found["labelgate_queue_depth", ("v4", hook)] == 0
        assert found["labelgate_queue_dropped_total", ("v4", hook)] == 0
        denials = of(found, "labelgate_denied_packets_total")
        # The host itself asks for routers, too: rules of the kernel deny that, and count it.
        denials.pop(("(no profile allows (E-25))",), None)
        assert denials == {
            ("(end of tier (E-21), tier default)",): denied,
            ("(others)",): 0,
        }
        rules = of(found, "labelgate_rule_hits_total")
        # action, direction, id, policy, rule, tier; the twin of rule 2 is rule 3.
        ours = {labels: value for labels, value in rules.items() if labels[3].endswith("/management")}
        expected = {"2": 30, "3": 7}
        assert {labels[4]: value for labels, value in ours.items() if labels[0] == "Allow"} == expected
        assert found["labelgate_policies", ("GlobalNetworkPolicy",)] == 1
        assert found["labelgate_local_endpoints", ("host",)] == 1
        assert found["labelgate_events_unwritten_total", ("events.file",)] == 0
        assert names_used() <= {name for name, _ in found}
        a_bad_edit_is_counted(world, daemon, tmp_path / "policy.yaml", denied)


def a_bad_edit_is_counted(world: World, daemon: Daemon, policy: Path, denied: float) -> None:
    """And so is the good one that follows."""
    good = policy.read_text(encoding="utf-8")
    policy.write_text(good.replace("Allow", "Alow"), encoding="utf-8")
    daemon.reload()
    found = scrape(world)
    assert found["labelgate_reload_errors_total", ("invalid",)] == 1
    assert found["labelgate_change_refused", ()] == found["labelgate_table_generation", ()] == 1
    compiled = found["labelgate_table_compile_seconds_count", ()]
    policy.write_text(good.replace("9100", "9101"), encoding="utf-8")
    daemon.reload()
    found = scrape(world)
    assert (found["labelgate_change_refused", ()], found["labelgate_table_generation", ()]) == (0, 2)
    assert found["labelgate_table_compile_seconds_count", ()] == compiled + 1
    # Of the policy before: they are kept.
    assert found["labelgate_denied_packets_total", ("(end of tier (E-21), tier default)",)] >= denied


def test_not_ready_while_rules_are_gone(world: World, backend: str, tmp_path: Path) -> None:
    """Somebody deletes a jump of ours, and it cannot be put back: iptables fails."""
    program, broken = f"iptables-{backend}-restore", tmp_path / "broken"
    wrapper = tmp_path / program
    wrapper.write_text(f'#!/bin/sh\n[ -e {broken} ] && exit 1\nexec {shutil.which(program)} "$@"\n')
    wrapper.chmod(0o755)
    policy = tmp_path / "policy.yaml"
    policy.write_text(dual(policies.MANAGEMENT), encoding="utf-8")
    daemon = Daemon(world, policy, backend=backend, options=("--metrics", str(PORT)))
    daemon._command[:0] = ["env", f"PATH={tmp_path}:{os.environ['PATH']}"]
    with daemon:
        assert wait_until(lambda: is_up(world))
        good = (200, "table: ok\nrules: ok\nqueues: ok\n")
        assert [get(world, path) for path in ("/readyz", "/readiness")] == [good, good]
        broken.touch()
        restore(world, backend, "v4", "filter", "-D INPUT -j lg-INPUT")
        assert wait_until(lambda: get(world, "/readyz")[0] == 503)
        assert "rules: v4 " in get(world, "/readyz")[1]
        assert get(world, "/livez")[0] == 200
        broken.unlink()
        assert wait_until(lambda: get(world, "/readyz") == good)
        assert scrape(world)["labelgate_rules_restored_total", ()] >= 1


def test_not_ready_while_a_queue_is_not_bound(world: World, tmp_path: Path) -> None:
    with Meddled(world, tmp_path, "nft", "lose", metrics=LISTEN, queues={"workers": 1}) as daemon:
        assert wait_until(lambda: is_up(world))
        assert get(world, "/readyz")[0] == 200
        daemon.meddle()
        assert wait_until(lambda: get(world, "/readyz")[0] == 503)
        assert "queues: not bound: 4200\n" in get(world, "/readyz")[1]
        assert scrape(world)["labelgate_queues_unbound", ()] == 1
        assert get(world, "/healthz") == (200, "worker 0: ok\n")


HOLD = """
import ctypes, os, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
thread = int(sys.argv[1])
assert ptrace(0x4206, thread, None, None) == 0  # PTRACE_SEIZE
assert ptrace(0x4207, thread, None, None) == 0  # PTRACE_INTERRUPT
os.waitpid(thread, 0x40000000)  # __WALL: from now on it stands still
print("held", flush=True)
os.waitpid(thread, 0x40000000)  # Its end: a traced thread is gone only when its tracer has seen it.
"""


@contextmanager
def held(thread: str) -> Iterator[None]:
    """One thread of a process that does not run, as under a debugger."""
    command = [sys.executable, "-c", HOLD, thread]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.kill()


def names_of_threads(pid: int) -> Iterator[tuple[str, str]]:
    """Those of them that have not ended meanwhile."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            yield task.name, (task / "comm").read_text().strip()


def test_a_worker_that_hangs(world: World, tmp_path: Path) -> None:
    """Not live; then the daemon ends, so that no queue is answered while another is not."""
    config = {"metrics": LISTEN, "queues": {"workers": 2}}
    with enforce(world, tmp_path, "nft", policies.MANAGEMENT, **config) as daemon:
        assert wait_until(lambda: is_up(world))
        assert get(world, "/liveness") == (200, "worker 0: ok\nworker 1: ok\n")
        (thread,) = [task for task, name in names_of_threads(daemon.process.pid) if name == "labelgate-1"]
        with held(thread):
            assert wait_until(lambda: get(world, "/livez")[0] == 503)
            assert get(world, "/livez")[1].startswith("worker 0: ok\nworker 1: silent for ")
            said = daemon.wait_for("the packet loop ended")
            assert "(worker 1 has not come round for 10 s); our rules stay" in said
            assert daemon.exit_code() == 3
        assert world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue") == ""
