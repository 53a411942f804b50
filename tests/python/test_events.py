"""Events: which ones an expression means, how they are kept; and how rules are counted over tables."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from labelgate import Settings, Snapshot
from labelgate.agent.event_file import EventFile
from labelgate.agent.events import KEPT, MOST_ANSWERED, EventLog
from labelgate.agent.generation import Generation
from labelgate.agent.journal import Journal
from labelgate.agent.rules import RuleCounts
from labelgate.events import ExpressionError, capture, line, parse
from labelgate.handlers import PacketLoop
from labelgate.links import Links
from labelgate.resources import load_text
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

EVENT: dict[str, Any] = {
    "time": 1_795_680_000_123, "kind": "deny", "generation": 1, "hook": "filter-input", "verdict": "deny",
    "in": "eth0", "out": None, "stage": "normal", "endpoint": "HostEndpoint/a", "tier": "default",
    "policy": "GlobalNetworkPolicy/web", "direction": "Ingress", "rule": 3, "action": "Deny",
    "reason": "rule (M-51)", "src": "192.0.2.1", "dst": "2001:db8::1", "protocol": 17, "sport": 5,
    "dport": 80, "icmp": None, "length": 1200, "header": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dport=80", True),
        ("dport != 80", False),
        ("protocol=udp and rule=3", True),
        ("protocol=6 or protocol=17", True),
        ("kind=log or kind=deny and dport=81", False),
        ("(kind=log or kind=deny) and not dport=81", True),
        ("not not src=192.0.2.0/24", True),
        ("src=2001:db8::/32", False),
        ("dst=2001:db8::/32", True),
        ("policy=*/web", True),
        ("policy=web", False),
        ('reason="rule (M-51)"', True),
        ("out=*", False),
        ("out!=eth1", True),
        ("policy=*/w[e]b", False),
    ],
)
def test_expressions(text: str, expected: bool) -> None:
    assert parse(text)(EVENT) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found the end, expected a field"),
        ("port=80", "found `port`, expected a field: action, "),
        ("dport", "found the end, expected `=` or `!=`"),
        ("dport=http", "found `http`, expected a number\n  dport=http\n        ^"),
        ("dport=", "found the end, expected a value"),
        ("src=nowhere", "found `nowhere`, expected an address or a CIDR"),
        ("protocol=gre", "found `gre`, expected a number or one of icmp"),
        ("dport=80 dport=81", "found `dport`, expected `and`, `or` or the end"),
        ("(dport=80", "found the end, expected `)`"),
        ('policy="a', 'found `"`'),
        ("not " * 60 + "dport=80", "more than 50"),
        ("x" * 5000, "too long"),
    ],
)
def test_expressions_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as found:
        parse(text)
    assert words in str(found.value)


def test_a_capture_holds_headers_of_both_families(tmp_path: Path) -> None:
    header = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2"))
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(capture([{**EVENT, "header": header.hex()}])))
    (packet,) = rdpcap(str(path))
    assert (packet[IPv6].dst, packet.wirelen, float(packet.time)) == ("2001:db8::2", 1200, 1_795_680_000.123)


def test_a_packet_of_which_less_is_known() -> None:
    """As a daemon tells it that could not read the kept bytes of a packet again."""
    unknown = dict.fromkeys(("src", "dst", "protocol", "sport", "dport", "icmp", "policy", "tier"))
    event = {**EVENT, **unknown}
    assert " deny ? ? > ? eth0>- filter-input " in line(event)
    assert b"".join(capture([event]))
    expressions = ("src=192.0.2.0/24", "dst=::/0", "protocol=17", "dport=80", "policy=*")
    assert not any(parse(text)(event) for text in expressions)
    assert parse("src!=192.0.2.1")(event)


class Loop:
    """Gives what it is told to give."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.tables: list[dict[str, Any]] = []

    def events(self, most: int) -> str:
        given, self.waiting = self.waiting[:most], self.waiting[most:]
        return json.dumps(given)

    def untold(self) -> tuple[int, int]:
        return 7, 8

    def rule_counts(self) -> str:
        given = json.dumps(self.tables)
        self.tables = [table for table in self.tables if not table["isOver"]]
        return given


def test_who_asks_too_seldom_is_told(tmp_path: Path) -> None:
    loop, said, file = Loop(), list[str](), tmp_path / "events.jsonl"
    config = SimpleNamespace(event_file=str(file), event_journal=False)
    first = SimpleNamespace(links=SimpleNamespace(indexes=[(2, "eth7")]), number=4, config=config)
    log = EventLog(cast(PacketLoop, loop), cast(Generation, first), said.append)
    loop.waiting = [{**EVENT, "in": 2, "out": 0, "sport": number} for number in range(1000)]
    log.stop()
    answer = log.answer(None)
    assert [event["sport"] for event in answer["events"]] == list(range(MOST_ANSWERED))
    assert answer["events"][0] == {**EVENT, "in": "eth7", "out": None, "sport": 0, "generation": 4}
    assert [answer[name] for name in ("next", "missed", "limited", "lost")] == [MOST_ANSWERED, 0, 7, 8]
    assert log.answer(1000) == {**answer, "events": [], "next": 1000}
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1000
    for _ in range(4):
        loop.waiting = [{**EVENT, "in": 0, "out": 0}] * 1000
        log._take()
    assert log.answer(100)["missed"] == 5000 - KEPT - 100
    assert log.answer(10**9)["events"] == []
    assert said == []


def log_of(loop: Loop, file: Path, said: list[str]) -> EventLog:
    config = SimpleNamespace(event_file=str(file), event_journal=False)
    first = SimpleNamespace(links=SimpleNamespace(indexes=[(2, "eth7")]), number=4, config=config)
    return EventLog(cast(PacketLoop, loop), cast(Generation, first), said.append)


def test_an_event_has_the_names_of_its_own_time(tmp_path: Path) -> None:
    """Indexes are used again, and interfaces renamed."""
    loop = Loop()
    log = log_of(loop, tmp_path / "events", [])
    log.swapped(2, 5, cast(Links, SimpleNamespace(indexes=[(2, "eth8")])))
    loop.waiting = [{**EVENT, "in": 2, "out": 0, "generation": number} for number in (1, 2)]
    log.stop()
    told = [(event["generation"], event["in"]) for event in log.answer(None)["events"]]
    assert told == [(4, "eth7"), (5, "eth8")]


def test_an_event_of_a_table_that_is_not_known_yet_waits(tmp_path: Path) -> None:
    """The packet loop answers by a table a moment before anybody is told its number."""
    loop = Loop()
    log = log_of(loop, tmp_path / "events", [])
    event = {**EVENT, "in": 2, "out": 0}
    loop.waiting = [{**event, "generation": number} for number in (1, 2, 1)]
    while loop.waiting:
        log._take()
    assert [event["generation"] for event in log.answer(None)["events"]] == [4, 4]
    log.swapped(2, 5, cast(Links, SimpleNamespace(indexes=[(2, "eth8")])))
    log._take()
    last = log.answer(None)["events"][-1]
    assert (last["generation"], last["in"]) == (5, "eth8")
    loop.waiting = [{**event, "generation": 3}]
    log.stop()
    assert log.answer(None)["next"] == 4, "at the end nothing waits any more"


def test_a_disk_that_does_not_answer_holds_up_nobody_else(tmp_path: Path) -> None:
    loop = Loop()
    log = log_of(loop, tmp_path / "events", [])
    writes, goes_on = threading.Event(), threading.Event()

    def hang(events: Any) -> None:
        writes.set()
        goes_on.wait(60)

    assert log._file
    log._file.write = hang  # type: ignore[method-assign]
    loop.waiting = [EVENT | {"in": 0, "out": 0}]
    assert writes.wait(60)
    log.swapped(2, 5, cast(Links, SimpleNamespace(indexes=[])))
    assert log.answer(0)["next"] <= 1
    goes_on.set()
    log.stop()


def test_a_file_that_takes_nothing_is_told_of_once() -> None:
    """It can be opened all the while."""
    loop, said = Loop(), list[str]()
    log = log_of(loop, Path("/dev/full"), said)
    for waiting in ([EVENT | {"in": 0, "out": 0}], [], [EVENT | {"in": 0, "out": 0}]):
        loop.waiting = waiting
        log._take()
    log.stop()
    assert said == ["warning: events.file: /dev/full: No space left on device; events are lost"]
    assert log.unwritten == {"events.file": 2}


def test_a_link_is_named(tmp_path: Path) -> None:
    said, link = list[str](), tmp_path / "link"
    link.symlink_to("events")
    log = log_of(Loop(), link, said)
    log._take()
    log.stop()
    assert said == [f"warning: events.file: {link}: is a link; name the file itself; events are lost"]


def test_a_file_that_is_moved_away_is_made_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "events", tmp_path / "events.1"
    file = EventFile(str(path))
    file.write([{"a": 1}])
    path.rename(moved)
    file.write([{"a": 2}])
    path.unlink()
    file.write([])
    file.write([{"a": 3}])
    file.close()
    assert (moved.read_text(), path.read_text()) == ('{"a":1}\n', '{"a":3}\n')


@pytest.mark.parametrize(
    ("room", "left"),
    [
        (0, ""),
        (3, '{"a\n'),
        (8, '{"a":1}\n'),
        (9, '{"a":1}\n{\n'),
    ],
)
def test_the_line_behind_a_full_disk_is_whole(
    room: int, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes nothing, a part, or whole lines: what is half a line is ended, and nothing else."""
    file, write = EventFile(str(tmp_path / "events")), os.write
    rooms = [room]

    def until_full(descriptor: int, text: bytes) -> int:
        if not rooms[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, text[: rooms[0]])
        rooms[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", until_full)
        with pytest.raises(OSError, match="No space left"):
            file.write([{"a": 1}, {"a": 2}])
    file.write([{"a": 3}])
    file.close()
    assert (tmp_path / "events").read_text() == left + '{"a":3}\n'


def test_half_a_line_of_somebody_before_is_no_beginning(tmp_path: Path) -> None:
    """Of a daemon that ended on a full disk; a pipe has no lines before."""
    path = tmp_path / "events"
    path.write_text('{"a":1}\n{"a')
    for number in (2, 3):
        file = EventFile(str(path))
        file.write([{"a": number}])
        file.close()
        file.write([])
        file.close()
    assert path.read_text() == '{"a":1}\n{"a\n{"a":2}\n{"a":3}\n'
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = EventFile(str(pipe))
    file.write([{"a": 1}])
    assert os.read(reader, 100) == b'{"a":1}\n'
    file.close()
    os.close(reader)


def test_the_journal_gets_what_is_told(tmp_path: Path) -> None:
    """Each field by its name; a value of two lines in the form with a length; without a reader no waiting."""
    path = str(tmp_path / "journal")
    journal = Journal(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        reader.settimeout(10)
        journal.write([{**EVENT, "in": "eth7", "icmp": [8, 0], "policy": "two\nlines"}])
        found = reader.recv(65536)
    policy = b"LABELGATE_POLICY\n" + struct.pack("<Q", 9) + b"two\nlines\n"
    assert found.count(policy) == 1
    fields = dict(field.split(b"=", 1) for field in found.split(policy)[1].splitlines())
    fields |= dict(field.split(b"=", 1) for field in found.split(policy)[0].splitlines() if b"=" in field)
    assert fields[b"SYSLOG_IDENTIFIER"] == b"labelgate"
    assert fields[b"PRIORITY"] == b"5"
    assert fields[b"LABELGATE_INTERFACE_IN"] == b"eth7"
    assert fields[b"LABELGATE_ICMP"] == b"8,0"
    assert b"LABELGATE_OUT" not in found
    assert all(re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name) for name in fields)
    with pytest.raises(OSError, match="refused"):
        journal.write([{**EVENT, "in": "eth7"}])
    journal.close()


def test_a_slow_journal_is_waited_for_a_hanging_one_is_not(tmp_path: Path) -> None:
    """More entries than any socket holds, to one who reads; and then to one who does not."""
    path, number = str(tmp_path / "journal"), 2000
    journal, hasty = Journal(path, patience=60), Journal(path, patience=0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        reader.settimeout(60)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(lambda: [reader.recv(65536) for _ in range(number)])
            journal.write({**EVENT, "rule": rule} for rule in range(number))
            rules = [re.findall(rb"LABELGATE_RULE=(\d+)\n", datagram) for datagram in found.result(60)]
        assert rules == [[str(rule).encode()] for rule in range(number)]
        for _ in range(5):
            with pytest.raises(BlockingIOError):
                hasty.write([EVENT] * number)
        while select.select([reader], [], [], 0)[0]:
            reader.recv(65536)
        hasty.write([{**EVENT, "policy": "again"}])
        assert b"LABELGATE_POLICY=again\n" in reader.recv(65536)
    journal.close()
    hasty.close()


POLICY = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: web}}
spec:
  selector: all()
  ingress: {rules}
  egress: [{{action: Allow, protocol: TCP}}]
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: a}}
spec: {{node: n, interfaceName: eth0}}
"""
TCP, UDP, SCTP = ({"action": "Allow", "protocol": word} for word in ("TCP", "UDP", "SCTP"))


def generation(number: int, *rules: dict[str, str]) -> Generation:
    snapshot = Snapshot.of(load_text(POLICY.format(rules=json.dumps(rules))))
    config = SimpleNamespace(settings=Settings())
    fields = {"number": number, "snapshot": snapshot, "config": config, "table": snapshot.compile(node="n")}
    return cast(Generation, SimpleNamespace(**fields))


def met(direction: str, rule: int, packets: int) -> dict[str, Any]:
    names = {"tier": "default", "policy": "GlobalNetworkPolicy/web", "direction": direction, "rule": rule}
    return {**names, "action": "Allow", "reason": "rule (M-50)", "packets": packets, "lastHit": packets}


def test_counts_go_with_the_rule() -> None:
    loop = Loop()
    counts = RuleCounts(cast(PacketLoop, loop), generation(1, TCP, UDP, TCP))

    def packets() -> dict[tuple[str, int], int]:
        rows = counts.rows()["rules"]
        return {(row["direction"], row["rule"]): row["packets"] for row in rows}

    loop.tables = [
        {
            "generation": 1,
            "isOver": False,
            "rules": [met("Ingress", 0, 5), met("Ingress", 2, 9), met("Egress", 0, 2)],
        }
    ]
    once = {("Ingress", 0): 5, ("Ingress", 1): 0, ("Ingress", 2): 9, ("Egress", 0): 2}
    assert packets() == packets() == once
    # Another rule above, one less, and equal ones change places without a difference.
    counts.swapped(2, generation(2, SCTP, TCP, TCP))
    loop.tables[0]["isOver"] = True
    loop.tables.append(
        {"generation": 2, "isOver": False, "rules": [met("Ingress", 2, 1), met("Egress", 0, 1)]}
    )
    assert (
        packets() == packets() == {("Ingress", 0): 0, ("Ingress", 1): 5, ("Ingress", 2): 10, ("Egress", 0): 3}
    )
    # The rule that was taken out comes back.
    counts.swapped(3, generation(3, UDP, TCP))
    assert packets()["Ingress", 1] == 5
