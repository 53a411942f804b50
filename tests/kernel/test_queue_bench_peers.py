"""What `labelgate bench queue` compares with, on real packets: the least rules, a loop that notes less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelgate import _core
from labelgate.queue_bench.cases import NULL_COMMAND, Denied, Least, Place, raw_queues
from labelgate.queue_bench.denied import NOTED, NotingBench
from labelgate.queue_bench.measures import Bench, Cores, Effort, Processors
from labelgate.queue_bench.policies import TCP_PORT, denying, least_rules
from labelgate.queue_bench.rig import RECEIVER, SENDER, Rig, Router

EFFORT = Effort(flood=0.05, latency=20, connections=0.1, bulk=0.1, noting=0.1)
CONNECTIONS = 25


def test_the_least_rules_queue_the_first_packet_of_a_connection(backend: Any, tmp_path: Path) -> None:
    with Rig([Router(0)]) as rig:
        (router,), place = rig.routers, Place(rig, rig.routers[0], tmp_path, backend)
        case = Least("least", (), variant=backend, text=least_rules(raw_queues()), command=NULL_COMMAND)
        case.begin(place)
        case.finish(place)
        measured = Bench(case, place, Cores(), Processors())
        server = rig.call(RECEIVER, _core.LoadServer, f"0.0.0.0:{TCP_PORT}", "greet")
        targets = [f"{router.servers[0]}:{TCP_PORT}"]

        def connect() -> tuple[list[int], int]:
            return _core.connect_many(
                targets, threads=1, most=CONNECTIONS, seconds=30.0, patience=20.0, request=b""
            )

        found, lost = rig.call(SENDER, connect)
        queued = measured._watch.answered()
        tracked = rig.run(router.host, "conntrack", "-L").count(f"dport={TCP_PORT} ")
        server.stop()
        measured.close()
    assert (len(found), lost, tracked) == (CONNECTIONS, 0, CONNECTIONS)
    # One that is sent again because the machine stood still is queued twice.
    assert CONNECTIONS <= queued < 2 * CONNECTIONS


def test_a_loop_that_is_switched_denies_all_and_counts_as_it_is_told(backend: Any, tmp_path: Path) -> None:
    """Had a rule counted one packet too many or too few, the measure would fail."""
    case = Denied("denied", (), 20, text=denying(20))
    with Rig([Router(0)]) as rig:
        place = Place(rig, rig.routers[0], tmp_path, backend)
        case.begin(place)
        case.finish(place)
        measured = NotingBench(case, place, Cores(), Processors())
        turns, (floods,) = measured.samples("noting", EFFORT), measured.samples("denials", EFFORT)
        arrived, counted = measured._watch.received(), case.note("nothing")
        measured.close()
    assert all(block.keys() == NOTED.keys() and min(block.values()) > 0 for block in turns)
    assert all(floods[f"{name} kpps"] > 0 < floods[name] for name in NOTED)
    assert measured.checked.sent == measured.checked.delivered + measured.checked.dropped
    assert (arrived, measured.checked.unexplained) == (0, 0)
    assert 0 < counted < measured.checked.delivered, "half of the turns count"
