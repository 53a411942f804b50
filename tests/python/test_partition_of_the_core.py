"""The core's partition, of `labelgate diff`, and that of Python, of lint and reach, are the same.

At every place of random states: what the core says of changes is held against one packet of each cell that
Python makes of the same rules, and the cells that the core shows are cells of Python's, address by address.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from labelgate.analysis.addresses import combine, contains, edges_of_networks, from_bytes
from labelgate.analysis.judged import Comparison, Compiled, comparisons, host_places, settled, workload_places
from labelgate.analysis.lint.coverage import Steps
from labelgate.analysis.partition import AddressClasses, Partition
from labelgate.analysis.services import Piece
from labelgate.columns import Flows
from labelgate.resources import LoadError
from random_world import HOST, Dice

STATES = 200
SAMPLE = ("protocol", "sport", "dport", "fragment")
UNCHANGED = -1


def compared():
    for seed in range(0, STATES, 2):
        old, new = (Dice(Random(number)).world() for number in (seed, seed + 1))
        with suppress(LoadError):
            compiled = Compiled((old.snapshot(), new.snapshot()), HOST, "edge1")
            pair = compiled.states("edge1", (old.settings, new.settings))
            places = ((pair, (*workload_places(pair), *host_places(pair))),)
            yield from comparisons(places, compiled.numbers)


@dataclass(frozen=True)
class Cells:
    """Those of Python for the rules of a place, then and now."""

    place: Comparison
    family: int

    @cached_property
    def partition(self) -> Partition:
        rules = []
        for state, chain in zip(self.place.states, self.place.chains, strict=True):
            rules += settled(state.settings, self.place.kind, self.place.direction)
            if chain is not None:
                rules += Steps.of(state.contents.chains[chain], state.contents.lists).rules
        return Partition.of(rules, self.family)

    @cached_property
    def is_egress(self) -> bool:
        return self.place.direction == "egress"

    @cached_property
    def sides(self) -> tuple[AddressClasses, AddressClasses]:
        """Own addresses, and those of peers."""
        sides = self.partition.sources, self.partition.destinations
        return sides if self.is_egress else (sides[1], sides[0])

    def answers(self) -> list[np.ndarray]:
        """Of each cell (own, peer, service) the verdicts then and now."""
        packets = vars(self.partition.packets())
        found = []
        for state, subject in zip(self.place.states, self.place.subjects, strict=True):
            verdicts = np.zeros(len(packets["src"]), np.uint8)
            if self.place.kind != "workload":
                sides = {"out" if self.is_egress else "in_": subject.interface}
                verdicts = state.table.decide_batch(self.place.hooks[0], **packets, **sides)[0]
            elif subject.endpoint is not None:
                core = state.table.core
                flows = Flows.read(
                    core, hook="filter-forward", in_=None, out=None, ct="new", accepted=False, dnatted=False,
                    **packets,
                )  # fmt: skip
                asked = np.full(len(verdicts), subject.endpoint.number, np.uint32)
                core.gate_batch(self.is_egress, asked, flows, verdicts, np.zeros(len(verdicts), np.uint32))
            answers = verdicts.astype(np.int64).reshape(self.partition.shape)
            found.append(answers if self.is_egress else answers.swapaxes(0, 1))
        return found

    def told(self, changes, member: int) -> np.ndarray:
        """Of each cell both verdicts as (old, new), as the core says them of a member; or `UNCHANGED`."""
        own, peers = self.sides
        found = np.full((len(own), len(peers), len(self.partition.services), 2), UNCHANGED)
        for _, members, verdicts, own_edges, peer_edges, pieces, cell in changes:
            if member not in members:
                continue
            inside = np.ix_(
                self.owned(member) if own_edges is None else self.classes(own, own_edges),
                self.classes(peers, peer_edges),
                self.services(pieces),
            )
            assert (found[inside] == UNCHANGED).all()
            found[inside] = verdicts
            self.check(cell, inside)
        return found

    def check(self, cell, inside) -> None:
        """The cell is one of Python's, among these, with the packet that Python takes for it."""
        own, peers = (
            self.classes(side, edges)
            for side, edges in zip(self.sides, (cell.own(), cell.peers()), strict=True)
        )
        (service,) = np.flatnonzero([tuple(one) == cell.service for one in self.partition.services.samples])
        for number, classes in zip((own, peers, [service]), inside, strict=True):
            assert len(number) == 1
            assert number[0] in classes

    def classes(self, side: AddressClasses, edges: bytes) -> np.ndarray:
        """The classes that addresses are made of: all of each."""
        wanted = from_bytes(self.family, edges)
        inside = contains(wanted, side.firsts)
        assert (side.edges(inside) == wanted).all()
        return np.flatnonzero(inside)

    def services(self, pieces) -> np.ndarray:
        wanted = {Piece(frozenset(one[0]), *one[1:]) for one in pieces}
        assert len(wanted) == len(pieces)
        classes = [
            number for number, one in enumerate(self.partition.services.pieces) if wanted.issuperset(one)
        ]
        assert sum(len(self.partition.services.pieces[number]) for number in classes) == len(wanted)
        return np.array(classes)

    def owned(self, member: int) -> np.ndarray:
        """The classes of own addresses that a member has any of."""
        own, nets = self.sides[0], self.place.members[member].nets
        has = edges_of_networks(self.family, nets)
        each = (own.edges(np.arange(len(own)) == number) for number in range(len(own)))
        return np.flatnonzero([not nets or len(combine(has, one, np.logical_and)) > 0 for one in each])


def test_both_partitions_tell_the_same_cells_apart():
    places = changed = 0
    for place in compared():
        changes = place.changes()
        for family in (4, 6):
            cells = Cells(place, family)
            old, new = cells.answers()
            for member in range(len(place.members)):
                owned = np.zeros(len(cells.sides[0]), np.bool_)
                owned[cells.owned(member)] = True
                differs = (old != new) & owned[:, None, None]
                wanted = np.where(differs[..., None], np.stack((old, new), axis=-1), UNCHANGED)
                of_family = [one for one in changes if one[0] == family]
                assert (cells.told(of_family, member if place.kind == "workload" else 0) == wanted).all()
                changed += int(differs.sum())
            places += 1
    assert places > 10 * STATES
    assert changed > 100 * STATES
