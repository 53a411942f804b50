"""The routers: what each has for rules, who answers its queue, and what is measured on it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Literal

from labelgate.demo.daemon import Daemon
from labelgate.demo.namespaces import WorldError, end
from labelgate.processors import pin
from labelgate.queue_bench import policies
from labelgate.queue_bench.loop import layout
from labelgate.queue_bench.rig import Rig, Router

Variant = Literal["nft", "legacy"]
Measure = Literal["flood", "burst", "drain", "latency", "connections", "bulk", "noting", "denials"]
Answers = Literal["same", "marks", "verdicts"]
"""All packets are answered alike, or with two marks in turn, or every other one is dropped."""

QUEUE, MAXLEN = 4200, 16_384
"""The first queue of raw PREROUTING in IPv4, and how many packets may wait in each."""
MARK_MASK, ALLOW_MARK = 0x1500, 0x0500
"""The bits of labelgate, and what it says with `allow-notrack`: decided and accepted."""
BIND_SECONDS = 30.0
_FLOODED: tuple[Measure, ...] = ("flood", "burst", "latency")
_QUEUED: tuple[Measure, ...] = ("flood", "burst", "drain", "latency")
_THROUGH: tuple[Measure, ...] = ("connections", "bulk")
_MIXED: dict[Answers, tuple[Measure, ...]] = {"marks": _QUEUED, "verdicts": ("drain",)}
"""What is denied does not come through."""
LEAST = "tracked, least rules, "
"""What the names of these cases begin with; then comes who answers."""
SINGLE = "one worker: "
"""What the names of these begin with; then comes that of the case with one for each processor."""


@dataclass
class Place:
    """Where a case is set up."""

    rig: Rig
    router: Router
    folder: Path
    backend: Variant

    def restore(self, variant: Variant, text: str) -> None:
        """Rules into the router."""
        self.rig.run(self.router.host, f"iptables-{variant}-restore", "--noflush", "--wait=20", stdin=text)

    @property
    def policies(self) -> Path:
        """The file that a daemon of this place has read."""
        return self.folder / f"{self.router.host}.json"

    def handler(self, *command: str, queues: range, **options: Any) -> Popen[str]:
        """Starts somebody who answers these queues; WorldError if nobody does in time."""
        process = self.rig.start(self.router.host, *command, **options)
        deadline = time.monotonic() + BIND_SECONDS
        while not {*queues} <= {*self.rig.queues(self.router)}:
            if process.poll() is not None or time.monotonic() > deadline:
                raise WorldError(f"{shlex.join(command)} does not answer queue {queues[0]}")
            time.sleep(0.02)
        return process

    def daemon(self, text: str, *options: str) -> Daemon:
        """`labelgate run` with these policies, configured as it is by default, not started yet."""
        path = self.policies
        path.write_text(text, encoding="utf-8")
        return Daemon(
            self.rig, path, backend=self.backend, host=self.router.host, node=policies.NODE,
            options=("--stop", "keep", *options),  # The rules go with the namespace.
        )  # fmt: skip


def raw_queues() -> range:
    """Those of raw PREROUTING in IPv4."""
    return range(QUEUE, QUEUE + layout().count)


@dataclass
class Case(ABC):
    """One router. `begin` starts what takes time, `finish` waits for it."""

    name: str
    measures: tuple[Measure, ...]
    rules: int = 10
    """Rules or policies, one port each; packets are for the last tenth."""
    is_peer: bool = False
    """Somebody else's handler, with the same verdict for all."""
    answers: Answers = "same"
    pids: list[int] = field(default_factory=list, init=False)
    """Who answers the queues."""

    @abstractmethod
    def begin(self, place: Place) -> None:
        """Rules, or the start of who makes them."""

    @abstractmethod
    def finish(self, place: Place) -> None:
        """After this, packets pass."""

    def judged(self) -> int | None:
        """Packets that the handler has judged so far, where it counts them."""
        return None


@dataclass
class Rules(Case):
    """Rules of the kernel only."""

    variant: Variant = "nft"
    text: str = ""
    entries: str = ""
    """Of an ipset."""

    def begin(self, place: Place) -> None:
        """All there is to do."""
        if self.entries:
            place.rig.run(place.router.host, "ipset", "restore", stdin=self.entries)
        if self.text:
            place.restore(self.variant, self.text)

    def finish(self, place: Place) -> None:
        """Nothing to wait for."""


@dataclass
class Labelgate(Case):
    """`labelgate run`."""

    text: str = ""
    options: tuple[str, ...] = ()
    config: str = ""
    others: str = ""
    """Rules that are there already."""

    def begin(self, place: Place) -> None:
        """Starts the daemon."""
        if self.others:
            place.restore(place.backend, self.others)
        options = self.options
        if self.config:
            path = place.folder / f"{place.router.host}.yaml"
            path.write_text(self.config, encoding="utf-8")
            options += ("--config", str(path))
        self._daemon = place.daemon(self.text, *options)
        self._daemon.start()

    def finish(self, place: Place) -> None:
        """Waits until the policies are in force."""
        self._daemon.wait_for("in force", 120)
        self.pids = [self._daemon.process.pid]

    def judged(self) -> int:
        """As the daemon counts, at raw PREROUTING."""
        return sum(self._daemon.verdicts("raw-prerouting").values())


@dataclass
class Other(Case):
    """labelgate's rules, and somebody else who answers every packet alike."""

    text: str = ""
    command: Command = ()
    others: str = ""
    """Rules that are there already."""

    def begin(self, place: Place) -> None:
        """The daemon makes the rules and goes."""
        if self.others:
            place.restore(place.backend, self.others)
        self._daemon = place.daemon(self.text)
        self._daemon.start()

    def finish(self, place: Place) -> None:
        """The other one binds the queues that the daemon has left."""
        self._daemon.wait_for("in force", 120)
        end(self._daemon.process)
        self.pids = self.answering(place)

    def answering(self, place: Place) -> list[int]:
        """Starts the other one."""
        return answering(place, self.command)


@dataclass
class Denied(Other):
    """Every packet is denied, by the core's loop, which switches what it notes of them as it is told."""

    def answering(self, place: Place) -> list[int]:
        """With the policies that the daemon made the rules of, and a line to it."""
        module = ("-m", "labelgate.queue_bench.noting", str(place.policies))
        command = (sys.executable, *module, str(QUEUE), str(MAXLEN), hex(MARK_MASK))
        self._process = place.handler(*command, queues=raw_queues(), stdin=PIPE, stdout=PIPE)
        return [self._process.pid]

    def note(self, word: str) -> int:
        """Has it note so much, from the next packet on; how many packets it has counted by rule so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise WorldError("the loop that denies has ended")
        return int(line)

    def close(self) -> None:
        """The loop ends with its input."""
        for line in filter(None, (self._process.stdin, self._process.stdout)):
            with suppress(BrokenPipeError):
                line.close()


@dataclass
class Least(Rules):
    """The least rules that have the first packet of each tracked connection answered by somebody."""

    command: Command = ()

    def finish(self, place: Place) -> None:
        """Who answers binds the queues."""
        self.pids = answering(place, self.command)


Command = tuple[str, ...]
"""Of a program that answers the queues; where it names `{queue}`, one is started for each of them."""
NULL_COMMAND: Command = (
    sys.executable, "-m", "labelgate.queue_bench.null", str(QUEUE), str(MAXLEN), hex(MARK_MASK),
)  # fmt: skip


def answering(place: Place, command: Command) -> list[int]:
    """Starts a program, or one for each queue, which runs where the packets of that queue are."""
    if not any("{queue}" in word for word in command):
        return [place.handler(*command, queues=raw_queues()).pid]
    found = []
    for number, queue in enumerate(raw_queues()):
        words = [word.replace("{queue}", str(queue)) for word in command]
        process = place.handler(*words, queues=range(queue, queue + 1))
        pin([process.pid], layout().places[number : number + 1])
        found.append(process.pid)
    return found


def null(name: str = "null verdict") -> Other:
    """Every packet answered without looking, by the core's loop."""
    return Other(name, (*_QUEUED, *_THROUGH), text=policies.untracked(10), command=NULL_COMMAND)


def peer(text: str, answers: Answers = "same") -> Other:
    """`NAME=COMMAND`: a program of somebody else, with `{queue}`, `{maxlen}` and `{mark}` filled in."""
    name, is_given, command = text.partition("=")
    if not (name and is_given and command):
        raise ValueError(f"found `{text}`, expected NAME=COMMAND")
    words = shlex.split(command.format(queue="{queue}", maxlen=MAXLEN, mark=hex(ALLOW_MARK)))
    if words and os.sep in words[0]:
        words[0] = str(Path(words[0]).resolve())
    measures = _MIXED.get(answers, (*_QUEUED, *_THROUGH))
    text, others = _policies(10, answers)
    is_peer = answers == "same"
    return Other(
        name, measures, is_peer=is_peer, answers=answers, text=text, command=tuple(words), others=others
    )


def _policies(count: int, answers: Answers) -> tuple[str, str]:
    """Policies that ask for these answers, and rules of others ahead of theirs."""
    is_mixed = answers != "same"
    text = policies.untracked(count, behind_others=is_mixed, denies_half=answers == "verdicts")
    return text, policies.MARK_RULES if is_mixed else ""


def _least(chosen: Selection) -> list[Case]:
    """The null verdict, and the first peer: what a handler on this kernel can reach at all."""
    handlers: list[tuple[str, Command]] = [("null verdict", NULL_COMMAND)]
    handlers += [(other.name, other.command) for other in map(peer, chosen.peers[:1])]
    variant, text = chosen.variants[0], policies.least_rules(raw_queues())
    return [
        Least(f"{LEAST}{name}", _THROUGH, variant=variant, text=text, command=command)
        for name, command in handlers
    ]


@dataclass(frozen=True)
class Selection:
    """Which cases there are."""

    sizes: Sequence[int]
    """Policies of labelgate."""
    linear: Sequence[int]
    """Rules of iptables."""
    variants: Sequence[Variant]
    """Of iptables, as far as they are installed; the first is labelgate's."""
    has_ipset: bool
    has_netfilterqueue: bool
    has_mixed: bool = True
    hooks: Sequence[int] = (1, 2)
    """At how many hooks tracked connections meet policy."""
    has_single: bool = True
    has_denied: bool = True
    peers: Sequence[str] = ()
    mixed_peers: Sequence[str] = ()
    mark_peers: Sequence[str] = ()


def cases(chosen: Selection) -> list[Case]:
    """All of them, in the order of the table."""
    through = (*_FLOODED, *_THROUGH)
    largest, first = max(chosen.sizes), chosen.variants[0]
    found: list[Case] = [
        Rules("no rule", through),
        Rules("conntrack only", through, variant=first, text=policies.CONNTRACK_RULES),
        null(),
    ]
    for size in chosen.sizes:
        more = _THROUGH if size == largest else ()
        found.append(Labelgate(f"labelgate {size:,}", (*_QUEUED, *more), size, text=policies.untracked(size)))
    text = policies.untracked(largest, names_tcp=False)
    found.append(Labelgate(f"{PAST}{largest:,}", _THROUGH, largest, text=text))
    if chosen.has_mixed:
        for answers, measures in _MIXED.items():
            text, others = _policies(largest, answers)
            name = f"mixed {answers} {largest:,}"
            found.append(Labelgate(name, measures, largest, answers=answers, text=text, others=others))
    if chosen.has_netfilterqueue:
        text, options = policies.untracked(largest), ("--handler", "netfilterqueue")
        measures = (*_QUEUED, *_THROUGH)
        found.append(Labelgate(f"NetfilterQueue {largest:,}", measures, largest, text=text, options=options))
    found += [peer(text) for text in chosen.peers]
    found += [peer(text, "marks") for text in chosen.mark_peers]
    found += [peer(text, "verdicts") for text in chosen.mixed_peers]
    for variant in chosen.variants:
        for size in chosen.linear:
            text = policies.linear_rules(size)
            found.append(Rules(f"{variant} rules {size:,}", _FLOODED, size, variant=variant, text=text))
    if chosen.has_ipset:
        entries, text = policies.ipset_entries("ports", largest), policies.ipset_rules("ports")
        found.append(
            Rules(f"ipset {largest:,}", _FLOODED, largest, variant=first, text=text, entries=entries)
        )
    connecting: tuple[Measure, ...] = ("latency", *_THROUGH)
    if chosen.hooks:
        found += _least(chosen)
    for hooks in chosen.hooks:
        text = policies.forwarded(100, prednat=hooks == 2)
        name = f"labelgate, tracked, {_HOOKS[hooks]}"
        found.append(Labelgate(name, connecting, 100, text=text))
    if chosen.has_single and layout().count > 1:
        names = (f"labelgate {largest:,}", f"labelgate, tracked, {_HOOKS[1]}")
        found += [_single(case) for case in found if isinstance(case, Labelgate) and case.name in names]
    if chosen.has_denied:
        text = policies.denying(DENIED_POLICIES)
        found.append(Denied("denied", ("noting", "denials"), DENIED_POLICIES, text=text))
    return found


def _single(case: Labelgate) -> Labelgate:
    """The same, answered by one worker, which is on whichever processor the scheduler finds."""
    measures = tuple(measure for measure in case.measures if measure not in ("drain", "burst"))
    return replace(case, name=f"{SINGLE}{case.name}", measures=measures, config="queues: {workers: 1}\n")


PAST = "past the queue "
"""Untracked policy that is not about the packets that are measured."""
_HOOKS = {1: "one hook", 2: "two hooks"}
DENIED_POLICIES = 100
"""Packets meet a tenth of them: few enough that most packets are above the rates, as they are in a flood."""
