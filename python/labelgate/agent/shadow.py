"""Some decisions of the packet loop, asked of the reference as well: they must be the same.

A thread of its own takes what the loop has sampled and judges it by the snapshot that the deciding table was
made from. The loop waits for nobody; what is not judged in time is left out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from labelgate.agent.generation import Generation
from labelgate.agent.rate_limit import RateLimited
from labelgate.flow import Packet
from labelgate.handlers import PacketLoop
from labelgate.reference import Reference

_SECONDS = 0.2
"""How often samples are taken."""
_MOST = 500
"""Samples of one turn."""
_KEPT = 16
"""Generations whose samples can still be judged."""


class Shadow:
    """Judges samples until it is stopped."""

    def __init__(self, enforcer: PacketLoop, first: Generation, say: Callable[[str], None]) -> None:
        self._enforcer = enforcer
        self._warn = RateLimited(say, "faults of the shadow")
        # The main thread changes it meanwhile: to be copied before it is gone through.
        self._generations: dict[int, Generation] = {1: first}
        self._indexes: dict[int, dict[int, str | None]] = {1: _names(first.links.indexes)}
        """By which packets were judged; the table may be bound to the interfaces of before."""
        self._references: dict[int, Reference] = {}
        self._early: list[dict[str, Any]] = []
        """Samples of a table whose generation is not yet known here."""
        self.checked = self.wrong = self.left_out = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelgate-shadow")
        self._thread.start()

    def swapped(self, number: int, generation: Generation, indexes: Iterable[tuple[int, str]]) -> None:
        """The packet loop answers by this generation and these indexes; `number` is the loop's own."""
        self._indexes[number] = _names(indexes)
        self._generations[number] = generation
        for old in [known for known in self._generations if known <= number - _KEPT]:
            del self._generations[old]
            del self._indexes[old]

    def counters(self) -> dict[str, int]:
        """Decisions that were judged, that were wrong, and that could not be judged any more."""
        return {"checked": self.checked, "wrong": self.wrong, "leftOut": self.left_out}

    def stop(self) -> None:
        """Judges no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_SECONDS):
            for sample in self._taken():
                if self._over.is_set():
                    return
                try:
                    self._judge(sample)
                except BaseException as error:  # Also a panic: nothing ends the checks without a word.
                    self.wrong += 1
                    self._warn(f"error: the reference cannot judge {sample}: {type(error).__name__}: {error}")
            self._warn.catch_up()

    def _taken(self) -> list[dict[str, Any]]:
        """What the loop has sampled; where it cannot be asked that is said, and asked again."""
        early, self._early = self._early, []
        try:
            taken: list[dict[str, Any]] = json.loads(self._enforcer.samples(_MOST))
            return early + taken
        except BaseException as error:
            self._warn(f"error: samples cannot be taken: {type(error).__name__}: {error}")
            return early

    def _judge(self, sample: dict[str, Any]) -> None:
        number: int = sample["generation"]
        generation = self._generations.get(number)
        if generation is None and number > max(tuple(self._generations)):
            self._early.append(sample)
            return
        names = self._indexes.get(number, {})
        if generation is None or not {sample["in"], sample["out"]} <= names.keys():
            self.left_out += 1
            return
        packet = packet_of(sample, names)
        answer = self._reference(number, generation).answer(packet)
        self.checked += 1
        expected, found = (answer.verdict, answer.accepted), (sample["verdict"], sample["acceptedAfter"])
        if found != expected:
            self.wrong += 1
            self._warn(
                f"error: wrong verdict (generation {generation.number}): {packet} was answered "
                f"{found[0]} (accepted: {found[1]}), the reference says {expected[0]} ({expected[1]})"
            )

    def _reference(self, number: int, generation: Generation) -> Reference:
        if number not in self._references:
            config, host = generation.config, generation.links.host_facts
            # Only the latest is needed again and again.
            self._references = {number: Reference(generation.snapshot, config.node, host, config.settings)}
        return self._references[number]


def _names(indexes: Iterable[tuple[int, str]]) -> dict[int, str | None]:
    return {0: None, **dict(indexes)}


def packet_of(sample: Mapping[str, Any], names: Mapping[int, str | None]) -> Packet:
    """The question of a sample; `names` are those of interfaces by index."""
    icmp = sample["icmp"] or (None, None)
    return Packet(
        hook=sample["hook"],
        src=ip_address(sample["src"]),
        dst=ip_address(sample["dst"]),
        protocol=sample["protocol"],
        sport=sample["sport"],
        dport=sample["dport"],
        icmp_type=icmp[0],
        icmp_code=icmp[1],
        in_=names[sample["in"]],
        out=names[sample["out"]],
        accepted=sample["accepted"],
        dnatted=sample["dnatted"],
        # Only then has a packet of a protocol with ports none.
        fragment=sample["sport"] is None and sample["icmp"] is None,
    )
