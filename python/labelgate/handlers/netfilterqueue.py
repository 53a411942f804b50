"""The PyPI package NetfilterQueue in the place of the core's packet loop: Python sees every packet.

Same queues, marks and table. `on_packet(packet, decision)` is asked about every packet that the table has
judged, and returns the verdict that shall hold: `decision.verdict`, or another word of that hook. What it
raises or says wrongly is a denial, counted as `on_packet_errors`; the first of each generation is printed.

Limits, all of the package: no GSO (large TCP segments are cut up ahead of the queue), one packet for each
call in and out, at most 3904 bytes of a packet, and with `fail: open` packets pass while nobody listens, but
a full queue drops them. Whether the kernel took a verdict cannot be told. Python runs one thread at a time:
while the daemon reads policies, packets wait longer.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import select
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from netfilterqueue import NetfilterQueue, Packet

from labelgate import _core
from labelgate.flow import HOOKS, VERDICTS, Hook, Verdict
from labelgate.links import interface_name
from labelgate.table import Decision

_VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)
HEADER_BYTES = {version: _core.copied_bytes(version) for version in _VERSIONS}
"""Copied of a packet: what the table needs."""
MOST_BYTES = 3904
"""For `on_packet`: as much as its buffer of 4096 takes beside all that the kernel may tell of a packet."""
PACKET_COST = 1024
"""Bytes of a socket buffer that one queued packet costs, beside what is copied of it: 832 measured."""
DROP, ACCEPT, REPEAT = 0, 1, 4
_SAY: dict[int, Callable[[Packet], None]] = {DROP: Packet.drop, ACCEPT: Packet.accept, REPEAT: Packet.repeat}


@dataclass(frozen=True, slots=True)
class QueuedPacket:
    """A packet that waits for its verdict."""

    hook: Hook
    version: Literal[4, 6]
    payload: bytes
    """From the IP header on, at most 3904 bytes."""
    mark: int
    in_: str | None
    out: str | None


OnPacket = Callable[[QueuedPacket, Decision], Verdict]
"""Runs on the thread that answers packets: everything waits for it."""


class NetfilterQueueLoop:
    """A `PacketLoop` (`labelgate.handlers`) on a thread of its own; OSError if a queue cannot be bound."""

    def __init__(
        self,
        table: _core.Table,
        interfaces: list[tuple[int, str]],
        *,
        base: int,
        workers: int = 1,
        maxlen: int,
        marks: tuple[int, int, int],
        fail_open: list[bool],
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        without_repeat: list[bool],
        sample_every: int = 0,
        event_rate: int = 0,
        event_policy_rate: int = 30,
        recorded: int = 0,
        on_packet: OnPacket | None = None,
    ) -> None:
        if sample_every:
            raise ValueError("decisions are not sampled by --handler netfilterqueue: set `shadow` to 0")
        self._marks, self._malformed_accept = marks, malformed_accept
        self._filter_reject, self._filter_return = filter_reject, filter_return
        self._without_repeat = without_repeat
        places = {
            _core.queue_number(hook, version, worker, base=base, workers=workers): (hook, version)
            for hook, version, worker in itertools.product(HOOKS, _VERSIONS, range(workers))
        }
        queues = {number: _Queue(*place, on_packet) for number, place in places.items()}
        self._queues = list(queues.values())
        self._generation = self._latest = _Generation(1, table, dict(interfaces))
        """What packets are answered by; and what takes its place when it has finished, if that is another."""
        self._changes = threading.Condition()
        self._drains: list[threading.Event] = []
        self._turns = 0
        self._is_stopped, self._failure = False, ""
        self._hand_out()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._end_reader, self._end_writer = os.pipe2(os.O_CLOEXEC)
        try:
            for number, queue in queues.items():
                queue.bind(number, maxlen)
        except OSError as error:
            self._close()
            self._forget()
            why = "another process has it, or CAP_NET_ADMIN is missing?"
            raise OSError(f"queue {number} cannot be bound: {error} ({why})") from None
        except BaseException:
            self._close()
            self._forget()
            raise
        self._thread = threading.Thread(target=self._run, name="labelgate-queues", daemon=True)
        self._thread.start()

    def swap(self, table: _core.Table, interfaces: list[tuple[int, str]]) -> int:
        """Puts a new table in force, to be taken up soon; its generation number.

        As `_core.Enforcer` does it: what has passed one hook is judged to its end by the table before.
        """
        with self._changes:
            number = self._latest.number + 1
            self._latest = _Generation(number, table, dict(interfaces))
        self._wake()
        return number

    def is_followed(self, generation: int, seconds: float) -> bool:
        """Waits until packets are answered by this table or a later one; False if that took too long."""
        with self._changes:
            return self._changes.wait_for(lambda: self._generation.number >= generation, seconds)

    def _follow(self) -> None:
        """Answers what waits behind the first hooks, and takes the new table."""
        for queue in self._queues:
            for _ in range(0 if queue.hook.startswith("raw") else _core.CLOSING_BATCHES):
                before = queue.counts["packets", ""]
                queue.serve()
                if queue.counts["packets", ""] == before:
                    break
        with self._changes:
            self._generation = self._latest
            self._hand_out()
            self._changes.notify_all()

    def fileno(self) -> int:
        """To be waited for beside other descriptors: readable when the loop has ended."""
        return self._end_reader

    def thread_ids(self) -> list[int]:
        """The kernel's number of the thread that answers."""
        return [] if self._thread.native_id is None else [self._thread.native_id]

    def turns(self) -> list[int]:
        """How often the thread has come round, about once a second at least, and how many packets it met.

        A function that is slow has many of them wait in one round: that is no hang.
        """
        return [self._turns + sum(queue.counts["packets", ""] for queue in self._queues)]

    def samples(self, most: int) -> str:
        """No decision is kept."""
        return "[]"

    def rule_counts(self) -> str:
        """Rules are not counted."""
        return "[]"

    def stage(self, generation: int, table: _core.Table | None) -> None:
        """Staged policies are not asked about."""

    def events(self, most: int) -> str:
        """Nothing is told."""
        return "[]"

    def recorded(self) -> str:
        """Nothing is recorded."""
        return "[]"

    def staged_denials(self) -> int:
        """Staged policies are not asked about."""
        return 0

    def untold(self) -> tuple[int, int]:
        """Nothing is told."""
        return 0, 0

    def set_without_repeat(self, hooks: list[bool]) -> None:
        """Hooks at which packets must not pass the table twice, in the order of `HOOKS`."""
        with self._changes:
            self._without_repeat = hooks
            self._hand_out()

    def set_filter_actions(self, *, reject: bool, returns: bool) -> None:
        """`FilterDenyAction` is Reject, `FilterAllowAction` is Return."""
        with self._changes:
            self._filter_reject, self._filter_return = reject, returns
            self._hand_out()

    def _hand_out(self) -> None:
        """One store for each queue: a packet meets everything of before, or everything of now."""
        for queue in self._queues:
            may_repeat = not self._without_repeat[HOOKS.index(queue.hook)]
            judge = _core.Judge(
                self._generation.table,
                hook=queue.hook,
                version=queue.version,
                marks=self._marks,
                malformed_accept=self._malformed_accept,
                filter_reject=self._filter_reject,
                filter_return=self._filter_return,
                may_repeat=may_repeat,
            )
            queue.judged_by = (self._generation, judge, may_repeat)

    def counters(self) -> str:
        """As those of `_core.Enforcer`, with `on_packet_errors`; null is what the package does not tell."""
        hooks = {hook: _counters(queue for queue in self._queues if queue.hook == hook) for hook in HOOKS}
        return json.dumps({"generation": self._generation.number, "hooks": hooks})

    def is_alive(self) -> bool:
        """Whether packets are being answered."""
        return self._thread.is_alive()

    def failure(self) -> str | None:
        """Why the loop ended by itself; None while it runs and after `stop`."""
        return self._failure or None

    def drain(self, seconds: float) -> bool:
        """Waits until every packet that is queued now has been answered; False if that took too long."""
        done = threading.Event()
        self._drains.append(done)
        self._wake()
        return done.wait(seconds)

    def stop(self) -> None:
        """Ends the loop and closes the queues; the kernel drops packets that still wait.

        A function that does not return is left to the end of the process.
        """
        self._is_stopped = True
        self._wake()
        self._thread.join(_core.STOP_SECONDS)
        if not self._thread.is_alive():
            self._forget()

    def _wake(self) -> None:
        with suppress(OSError):  # It is awake already, or has ended.
            os.write(self._wake_writer, b"w")

    def _run(self) -> None:
        """The thread. Whatever ends it closes the queues: fail closed."""
        try:
            self._serve()
        except BaseException as error:
            self._failure = f"{type(error).__name__}: {error}"
        finally:
            self._close()

    def _serve(self) -> None:
        poll = select.poll()
        queues = {queue.fileno: queue for queue in self._queues}
        for descriptor in (*queues, self._wake_reader):
            poll.register(descriptor, select.POLLIN)
        while not self._is_stopped:
            self._turns += 1
            drains = tuple(self._drains)
            ready = {descriptor for descriptor, _ in poll.poll(0 if drains else _core.IDLE_MILLISECONDS)}
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
            if self._latest is not self._generation:
                self._follow()
            waiting = ready & queues.keys()
            for descriptor in waiting:
                queues[descriptor].serve()
                self._turns += 1
            if not waiting:
                for done in drains:
                    self._drains.remove(done)
                    done.set()

    def _close(self) -> None:
        for queue in self._queues:
            queue.close()
        # `_wake` may come later still: it finds no reader.
        os.close(self._wake_reader)
        os.close(self._end_writer)

    def _forget(self) -> None:
        """Closes what others wake the thread by, and hear its end by; none of these numbers is used again."""
        for descriptor in {self._wake_writer, self._end_reader} - {-1}:
            os.close(descriptor)
        self._wake_writer = self._end_reader = -1


@dataclass(slots=True)
class _Generation:
    """A table, and the interfaces of the host as they were when it came into force or were first met."""

    number: int
    table: _core.Table
    names: dict[int, str]
    ids: dict[int, int] = field(default_factory=lambda: {0: 0})
    has_printed: bool = False

    def interface(self, index: int) -> int | None:
        """The table's number of an interface; None where it is gone."""
        known = self.ids.get(index)
        return self._learn(index) if known is None else known

    def _learn(self, index: int) -> int | None:
        if index not in self.names:
            try:
                self.names[index] = interface_name(index)
            except OSError:
                return None
        (self.ids[index],) = self.table.interface_ids([self.names[index]])
        return self.ids[index]


class _Queue:
    """One queue, its counters, and who judges its packets."""

    judged_by: tuple[_Generation, _core.Judge, bool]

    def __init__(self, hook: Hook, version: Literal[4, 6], on_packet: OnPacket | None) -> None:
        self.hook, self.version = hook, version
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wanted = self.granted = 0
        self._on_packet = on_packet
        self._copied = HEADER_BYTES[version] if on_packet is None else MOST_BYTES
        self._queue = NetfilterQueue()
        self._socket: socket.socket | None = None
        self._left = 0

    def bind(self, number: int, maxlen: int) -> None:
        """Opens it with a socket buffer for as many packets as may wait."""
        self.wanted = maxlen * (PACKET_COST + self._copied - HEADER_BYTES[4])
        self._queue.bind(number, self._answer, max_len=maxlen, range=self._copied, sock_len=self.wanted // 2)
        self._socket = socket.socket(fileno=os.dup(self.fileno))
        self.granted = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def fileno(self) -> int:
        """What to wait for."""
        return self._queue.get_fd()

    def close(self) -> None:
        """The kernel drops packets that still wait."""
        self._queue.unbind()
        if self._socket is not None:
            self._socket.close()

    def serve(self) -> None:
        """Answers what waits, at most a batch."""
        self.counts["batches", ""] += 1
        self._left = _core.BATCH
        self._queue.run_socket(self)  # type: ignore[arg-type]  # It asks for `recv` only.

    def recv(self, size: int) -> bytes:
        """One message; EAGAIN where none is left of the batch."""
        assert self._socket is not None
        if self._left == 0:
            raise BlockingIOError(errno.EAGAIN, "end of the batch")
        self._left -= 1
        try:
            return self._socket.recv(size, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.counts["overruns", ""] += 1
            raise BlockingIOError(errno.EAGAIN, "overrun") from None

    def _answer(self, packet: Packet) -> None:
        self.counts["packets", ""] += 1
        verdict, mark = self._reply(packet)
        if mark is not None:
            packet.set_mark(mark)
        _SAY[verdict](packet)

    def _reply(self, packet: Packet) -> tuple[int, int | None]:
        generation, judge, may_repeat = self.judged_by
        payload = packet.get_payload()
        length = len(payload) if len(payload) < self._copied else self._told_length(payload)
        interfaces = generation.interface(packet.indev), generation.interface(packet.outdev)
        question = (payload, length, packet.mark, interfaces[0] or 0, interfaces[1] or 0)
        counter, word, verdict, mark = judge.judge(*question)
        if counter == "verdicts":
            if None in interfaces:
                counter, word, verdict, mark = "unknown_interface", "", DROP, None
            elif self._on_packet is not None:
                word, verdict, mark = self._ask(self._on_packet, packet, question, generation, judge)
        self.counts[counter, word] += 1
        if word == "allow-notrack" and not may_repeat:
            self.counts["notrack_refused", ""] += 1
        return verdict, mark

    def _told_length(self, payload: bytes) -> int:
        """The whole length of a packet that may be cut: as its header says."""
        told = int.from_bytes(payload[2:4]) if self.version == 4 else 40 + int.from_bytes(payload[4:6])
        return max(told, len(payload))

    def _ask(
        self,
        on_packet: OnPacket,
        packet: Packet,
        question: tuple[bytes, int, int, int, int],
        generation: _Generation,
        judge: _core.Judge,
    ) -> tuple[str, int, int | None]:
        """The verdict of `on_packet`, as a word and for the kernel; all of one generation."""
        try:
            decided = judge.decision(*question)
            assert decided is not None, "it has been judged"
            verdict, failsafe, accepted, outcome, step = decided
            names = generation.names.get(packet.indev), generation.names.get(packet.outdev)
            queued = QueuedPacket(self.hook, self.version, question[0], packet.mark, *names)
            word = on_packet(queued, Decision(verdict, failsafe, accepted, *step, outcome))
            return (
                word,
                *(judge.judge(*question)[2:] if word == verdict else judge.reply(word, packet.mark)),
            )
        except BaseException:  # Also SystemExit: a packet loop that ends takes the network with it.
            self.counts["on_packet_errors", ""] += 1
            if not generation.has_printed:
                generation.has_printed = True
                traceback.print_exc()
            return "deny", DROP, None


_UNTOLD = ("netlink_errors", "unreadable_messages", "unsent")
_COUNTED = (
    "packets", "loop_guard", "unknown_interface", "notrack_refused", "batches", "overruns",
    "on_packet_errors",
)  # fmt: skip


def _counters(queues: Iterable[_Queue]) -> dict[str, Any]:
    """Of one hook."""
    queues = list(queues)
    counts = sum((Counter(dict(queue.counts)) for queue in queues), Counter())
    malformed = {word: count for (counter, word), count in counts.items() if counter == "malformed"}
    return {
        **{counter: counts[counter, ""] for counter in _COUNTED},
        **dict.fromkeys(_UNTOLD),
        "verdicts": {verdict: counts["verdicts", verdict] for verdict in VERDICTS},
        "malformed": malformed,
        "receive_buffer_wanted": sum(queue.wanted for queue in queues),
        "receive_buffer_granted": sum(queue.granted for queue in queues),
        "segmented_queues": len(queues),
    }
