"""Rules of others around labelgate's: they bring packets into the state of their row, and count them.

A row is answered by one hook, which has its place in one table. Its packet is counted `before` that place if
it is in the state of the row, `behind` labelgate's jump in the same table, and `beyond`, in the table after
filter. The base chains of filter drop, so that only what labelgate accepts gets beyond.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from case_node import NUMBER, CaseNode, endpoint, length_of
from case_rows import STAND_IN, Row
from kit import ACCEPT, PROGRAMS
from labelgate.demo.world import EDGE
from labelgate.flow import Hook, Packet, Verdict

Place = tuple[str, str]
"""Table and chain."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the packets of a hook are counted, and where a rule may still change them before."""

    ahead: Place | None
    before: Place | None
    at: Place
    beyond: Place | None = None


PLACES: Mapping[Hook, Places] = {
    # No table is ahead of raw: packets that come in are counted by their interface.
    "raw-prerouting": Places(None, None, ("raw", "PREROUTING")),
    "raw-output": Places(None, None, ("raw", "OUTPUT")),
    "mangle-prerouting": Places(("raw", "PREROUTING"), ("raw", "PREROUTING"), ("mangle", "PREROUTING")),
    "filter-input": Places(
        ("mangle", "PREROUTING"), ("mangle", "INPUT"), ("filter", "INPUT"), ("security", "INPUT")
    ),
    "filter-forward": Places(
        ("mangle", "PREROUTING"), ("mangle", "FORWARD"), ("filter", "FORWARD"), ("security", "FORWARD")
    ),
    "filter-output": Places(
        ("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"), ("security", "OUTPUT")
    ),
    "mangle-postrouting": Places(("filter", "OUTPUT"), ("security", "OUTPUT"), ("mangle", "POSTROUTING")),
}
FORWARDED = Places(("filter", "FORWARD"), ("security", "FORWARD"), ("mangle", "POSTROUTING"))
"""Of forwarded packets in mangle POSTROUTING."""


def places_of(packet: Packet) -> Places:
    """Of a row."""
    return FORWARDED if packet.hook == "mangle-postrouting" and packet.in_ else PLACES[packet.hook]


def install(node: CaseNode, backend: str, rows: Mapping[int, Row]) -> None:
    """All rules for these rows."""
    for version, name in ((4, "v4"), (6, "v6")):
        lines = {"filter": [f":{chain} DROP [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")]}
        for number, row in rows.items():
            if row.packet.src.version == version:
                for (table, chain), rule in (*_bring(node, row, number), *_count(row, number)):
                    lines.setdefault(table, []).append(f"-A {chain} {rule}")
        text = "".join(f"*{table}\n{chr(10).join(found)}\nCOMMIT\n" for table, found in lines.items())
        node.run(EDGE, f"{PROGRAMS[name]}-{backend}-restore", "--noflush", stdin=text)
    # Conntrack, on from now, would take the checksum of UDPLite for one of UDP.
    node.set_sysctls(EDGE, {"net/netfilter/nf_conntrack_checksum": "0"})


def _is(number: int, accepted: bool | None = None) -> str:
    """Matches the packet of a row, with or without labelgate's accept mark, or either way."""
    mark, mask = number << NUMBER, 0xFFF << NUMBER
    if accepted is not None:
        mark, mask = mark | ACCEPT * accepted, mask | ACCEPT
    return f"-m mark --mark {mark:#x}/{mask:#x}"


def _bring(node: CaseNode, row: Row, number: int) -> Iterator[tuple[Place, str]]:
    """What makes the packet the row's."""
    packet, places = row.packet, places_of(row.packet)
    first = "PREROUTING" if packet.in_ else "OUTPUT"
    if packet.in_:
        known = f"-i {packet.in_} -m length --length {length_of(number)}"
        yield ("raw", first), f"{known} -j MARK --set-xmark {node.mark(row, number):#x}/0xffff0000"
    if row.notrack:
        yield ("raw", first), f"{_is(number)} -j CT --notrack"
    if places.ahead and row.mark is not None:
        yield places.ahead, f"{_is(number)} -j MARK --set-xmark {ACCEPT * row.mark:#x}/{ACCEPT:#x}"
    if places.ahead and packet.hook == "mangle-postrouting":
        yield places.ahead, f"{_is(number)} -j ACCEPT"
    if packet.dnatted or packet.ct == "untracked":
        # Nothing is translated without conntrack (E-62): an untracked packet stays as it is.
        to = packet if packet.dnatted else replace(packet, dst=STAND_IN[packet.dst.version])
        match = f"{_is(number)} -p {packet.protocol}"
        yield ("nat", first), f"{match} -j DNAT --to-destination {endpoint(to)}"


def _count(row: Row, number: int) -> Iterator[tuple[Place, str]]:
    """Where it gets, and its end."""
    packet, places = row.packet, places_of(row.packet)

    def counted(place: Place, match: str, name: str) -> tuple[Place, str]:
        return place, f"{match} -m comment --comment {number}-{name}"

    if places.before:
        yield counted(places.before, f"{_is(number, packet.accepted)} {_state(row, places.before)}", "before")
    for accepted in (False, True):
        match = _is(number, accepted)
        if places.at[0] == "raw":
            for word, tracked in (("untracked", ""), ("tracked", "! ")):
                state = f"-m conntrack {tracked}--ctstate UNTRACKED"
                yield counted(places.at, f"{match} {state}", f"behind-{word}-{accepted}")
        else:
            yield counted(places.at, match, f"behind-{accepted}")
        if places.beyond:
            yield counted(places.beyond, match, f"beyond-{accepted}")
    yield places.beyond or places.at, f"{_is(number)} -j DROP"


def _state(row: Row, place: Place) -> str:
    """Matches what the row says, as far as it can be seen there."""
    packet, (table, chain) = row.packet, place
    matches = []
    if table != "raw":
        before_nat = place == ("mangle", "OUTPUT")
        matches += [
            f"-d {row.sent.dst if before_nat else packet.dst}",
            f"-m conntrack --ctstate {packet.ct.upper()}",
        ]
    if chain != "OUTPUT":
        matches.append(f"-i {packet.in_}")
    if chain in ("OUTPUT", "FORWARD"):
        matches.append(f"-o {packet.out}")
    if table == "security":
        matches.append(f"-m conntrack {'' if packet.dnatted else '! '}--ctstate DNAT")
    return " ".join(matches)


def counters(node: CaseNode, backend: str) -> dict[str, int]:
    """Packets by the name of their counter."""
    found: dict[str, int] = {}
    for program in PROGRAMS.values():
        listed = node.run(EDGE, f"{program}-{backend}-save", "-c")
        for packets, name in re.findall(r"^\[(\d+):\d+\] .*--comment (\d+-\S+)", listed, re.MULTILINE):
            found[name] = found.get(name, 0) + int(packets)
    return found


def judged(packet: Packet, number: int, counts: Mapping[str, int]) -> tuple[Verdict, bool] | str:
    """The verdict that the kernel gave and the accept mark after it, or where else the packet was seen."""
    names = [name.split("-", 1) for name, count in counts.items() for _ in range(count)]
    seen = sorted(name for of, name in names if of == str(number))
    behind = [name for name in seen if name.startswith("behind")]
    beyond = [name for name in seen if name.startswith("beyond")]
    in_state = seen.count("before") == bool(places_of(packet).before)
    if (
        not in_state
        or len(behind) > 1
        or len(beyond) > 1
        or not (verdict := _verdict(packet, behind, beyond))
    ):
        return f"seen {', '.join(seen) or 'nowhere'}"
    return verdict, verdict != "deny" and (beyond or behind)[0].endswith("True")


def _verdict(packet: Packet, behind: list[str], beyond: list[str]) -> Verdict | None:
    """What led a packet there; None: no verdict does."""
    if not behind and not beyond:
        return "deny"
    match packet.hook:
        case "raw-prerouting" | "raw-output":
            words: dict[str, Verdict] = {
                "behind-tracked-False": "continue", "behind-untracked-True": "allow-notrack",
            }  # fmt: skip
            return words.get(behind[0])
        case "mangle-prerouting":
            return "allow-skip-hep" if behind == ["behind-True"] and not packet.accepted else "continue"
        case "mangle-postrouting":
            return "continue"
    # What filter's base chains have not dropped, labelgate has accepted.
    return "allow" if beyond else "continue"
