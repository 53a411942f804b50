"""How many workers a machine is given."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from labelgate.processors import pin, receiving_processors


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
    assert receiving_processors() >= 1


def test_threads_are_pinned_in_turn() -> None:
    usable = sorted(os.sched_getaffinity(0))
    over, threads = threading.Event(), []
    for _ in range(3):
        threads.append(threading.Thread(target=over.wait))
        threads[-1].start()
    try:
        numbers = [thread.native_id or 0 for thread in threads]
        pin(numbers, ())
        assert all(os.sched_getaffinity(number) == set(usable) for number in numbers)
        pin(numbers, usable[:2])
        expected = [{usable[number % min(2, len(usable))]} for number in range(3)]
        assert [os.sched_getaffinity(number) for number in numbers] == expected
        with pytest.raises(OSError, match="Invalid argument"):
            pin(numbers, [8191])
    finally:
        over.set()
        for thread in threads:
            thread.join()
