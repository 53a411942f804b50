"""How many workers a machine is given, and where they run."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from labelgate.processors import MOST_WORKERS, Workers, pin, receiving_processors


def interface(root: Path, name: str, queues: int, *, rps: str = "00", is_device: bool = True) -> None:
    for number in range(queues):
        queue = root / name / "queues" / f"rx-{number}"
        queue.mkdir(parents=True)
        (queue / "rps_cpus").write_text(f"{rps}\n", encoding="ascii")
    if is_device:
        (root / name / "device").mkdir()


@pytest.mark.parametrize(
    ("queues", "rps", "is_device", "processors", "workers"),
    [
        (4, "00", True, 8, 4),
        (4, "00", True, 3, 3),  # no more than there are
        (4, "00", True, 2, 1),
        (1, "00000000,0000003f", True, 8, 6),  # steered in software
        (16, "0", True, 64, 8),
        (16, "0", False, 64, 1),  # a veth
        (1, "f", False, 64, 4),
    ],
)
def test_workers(
    tmp_path: Path, queues: int, rps: str, is_device: bool, processors: int, workers: int
) -> None:
    interface(tmp_path, "lo", 1, is_device=False)
    interface(tmp_path, "eth0", queues, rps=rps, is_device=is_device)
    (tmp_path / "eth0" / "queues" / "tx-0").mkdir()
    assert receiving_processors(tmp_path, frozenset(range(processors))) == workers


def test_a_machine_without_interfaces_has_one_worker(tmp_path: Path) -> None:
    assert receiving_processors(tmp_path, frozenset(range(64))) == 1
    assert Workers.planned(None, "balance", ()).count >= 1


def kernel_choice(processor: int, workers: int) -> int:
    """The queue that `--queue-cpu-fanout` has for a packet (net/netfilter/xt_NFQUEUE.c)."""
    return processor % workers


@pytest.mark.parametrize("processors", [2, 3, 8, 12, 64])
def test_workers_run_where_their_packets_are(processors: int) -> None:
    usable = frozenset(range(processors))
    workers = Workers.planned(None, "cpu", (), usable=usable)
    assert (workers.count, workers.by_cpu) == (min(processors, MOST_WORKERS), True)
    assert all(cpu in workers.places[kernel_choice(cpu, workers.count)] for cpu in usable)
    assert sum(map(len, workers.places)) == processors, "each processor has one"


def test_one_processor_has_one_worker_anywhere() -> None:
    assert Workers.planned(None, "cpu", (), usable=frozenset({5})) == Workers(1)
    assert Workers.planned(1, "cpu", (), usable=frozenset(range(8))) == Workers(1)


def test_workers_that_may_not_run_where_their_packets_are_run_where_they_may() -> None:
    """Of four processors two are for the daemon, both even: packets of odd ones go to the second worker."""
    usable = frozenset({0, 2})
    assert Workers.planned(None, "cpu", (), usable=usable) == Workers(2, True, (usable, usable))
    usable = frozenset({2, 3})
    places = (frozenset({2}), frozenset({3}))
    assert Workers.planned(None, "cpu", (), usable=usable) == Workers(2, True, places)


def test_configured_processors() -> None:
    """There are as many workers as processors are named, eight at most, unless it is said how many."""
    one, two, three = (frozenset({number}) for number in (1, 2, 3))
    assert Workers.planned(None, "cpu", (2, 3)) == Workers(2, True, (two, three))
    assert Workers.planned(None, "cpu", (3, 2, 2)) == Workers(2, True, (two, three))
    assert Workers.planned(None, "cpu", (1, 2, 3)) == Workers(3, True, (three, one, two))
    assert Workers.planned(4, "cpu", (2, 3)) == Workers(4, True, (two | three, two | three, two, three))
    many = Workers.planned(None, "cpu", range(16))
    assert many == Workers(8, True, tuple(frozenset({number, number + 8}) for number in range(8)))
    assert Workers.planned(1, "cpu", (3,)) == Workers(1, False, (three,))
    assert Workers.planned(None, "balance", (2, 3)) == Workers(2, False, (two, three))
    assert Workers.planned(3, "balance", (2, 3)) == Workers(3, False, (two, three, two))


def test_there_are_no_more_workers_than_queue_numbers_left() -> None:
    usable = frozenset(range(8))
    counts = {base: Workers.planned(None, "cpu", (), base=base, usable=usable).count for base in BASES}
    assert counts == BASES


BASES = {4200: 8, 65536 - 8 * 14: 8, 65536 - 8 * 14 + 1: 7, 65536 - 28: 2, 65536 - 14: 1}


def test_workers_that_addresses_choose_run_anywhere(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", 4)
    usable = frozenset(range(8))
    assert Workers.planned(None, "balance", (), usable=usable, interfaces=tmp_path) == Workers(4)
    assert Workers.planned(3, "balance", (), usable=usable, interfaces=tmp_path) == Workers(3)


def test_threads_are_pinned() -> None:
    usable = frozenset(os.sched_getaffinity(0))
    over, threads = threading.Event(), []
    for _ in range(3):
        threads.append(threading.Thread(target=over.wait))
        threads[-1].start()
    try:
        numbers = [thread.native_id or 0 for thread in threads]
        assert pin(numbers, ()) == []
        assert all(os.sched_getaffinity(number) == usable for number in numbers)
        places = Workers.planned(3, "cpu", sorted(usable)[:2]).places
        assert pin(numbers, places) == []
        assert [frozenset(os.sched_getaffinity(number)) for number in numbers] == list(places)
        missing, last = frozenset({8190, 8191}), frozenset({max(usable)})
        failures = pin(numbers, [usable, missing, last])
        assert failures == ["worker 1 on processor 8190, 8191: Invalid argument"]
        found = [frozenset(os.sched_getaffinity(number)) for number in numbers]
        assert found == [usable, places[1], last], "those behind it are placed all the same"
    finally:
        over.set()
        for thread in threads:
            thread.join()
