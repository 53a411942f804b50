"""What reaches what, as lines, a grid, JSON, DOT, or a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.matrix import Matrix, without_kind
from labelgate.analysis.reach import HOSTS, OUTSIDE, Peer, Reach
from labelgate.analysis.regions import Region

MOST_SINGLE = 50
"""More endpoints than a person reads one by one: they are shown by namespace."""


_LEGEND = "yes, .: no, 3/6: so many pairs, -: not asked (itself, both outside, or no IP version in common)"


def lines(found: Reach, sources: Sequence[int] | None, destinations: Sequence[int] | None) -> Iterator[str]:
    """For each asked peer who reaches it, or what it reaches; peers with equal services in one line."""
    every = list(range(len(found.peers)))
    for at in destinations or ():
        pairs = [(other, at) for other in (every if sources is None else sources)]
        yield from _peer_lines(found, at, pairs, ("is reached by", "nobody"))
    if destinations is None:
        for at in every if sources is None else sources:
            pairs = [(at, other) for other in every]
            yield from _peer_lines(found, at, pairs, ("reaches", "nothing"))


def _peer_lines(
    found: Reach, at: int, pairs: Sequence[tuple[int, int]], words: tuple[str, str]
) -> Iterator[str]:
    """`pairs` are (from, to); the peer `at` is one end of each."""
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for pair in pairs:
        if found.allowed[pair].any():
            key = found.allowed[pair].tobytes() + b"".join(map(np.ndarray.tobytes, _single(found, pair)))
            groups.setdefault(key, []).append(pair)
    name, (verb, nobody) = found.peers[at].name, words
    if not groups:
        yield f"{name} {verb} {nobody}"
    for several in groups.values():
        others = [to if source == at else source for source, to in several]
        yield f"{name} {verb} {_several(found, others)}: {_services(found, several[0])}"


def _single(found: Reach, pair: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """By IP version the services that pass in this one alone, where both ends have both."""
    return [found.partial[pair] & through[pair] for _, through in found.answers.values()]


def _services(found: Reach, pair: tuple[int, int]) -> str:
    """In words, those of one IP version behind the others."""
    parts = [("", found.allowed[pair] & ~found.partial[pair])]
    parts += zip((f"only v{version}: " for version in found.answers), _single(found, pair), strict=True)
    return "; ".join(
        word + found.services_of(np.flatnonzero(services)).text()
        for word, services in parts
        if services.any()
    )


def _several(found: Reach, several: Sequence[int]) -> str:
    outside = [found.peers[one] for one in several if found.peers[one].kind == "outside"]
    inside = [found.peers[one].name for one in several if found.peers[one].kind != "outside"]
    texts = [found.names.group(inside)] if inside else []
    return ", ".join([*texts, *(one.name for one in outside)])


@dataclass(frozen=True)
class Grid:
    """Shares of pairs that reach each other, by peer or by group."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    """Of each name the group that it stands in."""
    pairs: NDArray[np.int64]
    """How many pairs are asked about (from, to)."""
    allowed: NDArray[np.int64]
    """How many do, with one service at least."""


def grid(found: Reach, by: str | None = None) -> Grid:
    """By `endpoint`, `namespace` or `label:KEY`; None: by endpoint up to `MOST_SINGLE`, else by namespace."""
    endpoints = sum(peer.kind != "outside" for peer in found.peers)
    by = by or ("endpoint" if endpoints <= MOST_SINGLE else "namespace")
    reached = found.allowed.any(axis=2)
    names_of = without_kind(peer.name for peer in found.peers if peer.kind != "outside")
    keys = [_key(found, peer, by, names_of) for peer in found.peers]
    order = sorted(dict.fromkeys(keys), key=lambda key: (_rank(key[0]), key))
    member = np.array([[key == wanted for wanted in order] for key in keys], np.int64)
    names, groups = tuple(name for _, name in order), tuple(group for group, _ in order)
    return Grid(names, groups, member.T @ found.asked @ member, member.T @ reached @ member)


def _rank(group: str) -> int:
    return {HOSTS: 1, OUTSIDE: 2}.get(group, 0)


def _key(found: Reach, peer: Peer, by: str, names_of: Mapping[str, str]) -> tuple[str, str]:
    """(group, name) of the row that a peer is in."""
    if by == "endpoint" or peer.kind == "outside":
        return peer.group, names_of.get(peer.name, peer.name)
    if by == "namespace":
        return peer.group, peer.group
    wanted = by.removeprefix("label:")
    traits = dict(found.names.endpoints[peer.name].traits)
    value = traits.get(wanted)
    return ("", f"{wanted}={value}") if value is not None else ("", f"without {wanted}")


def matrix(shown: Grid) -> Matrix:
    """As text: `yes`, `.`, `3/6`, `-`."""

    def word(allowed: int, pairs: int) -> str:
        if not pairs:
            return "-"
        return "." if not allowed else "yes" if allowed == pairs else f"{allowed}/{pairs}"

    rows = zip(shown.allowed.tolist(), shown.pairs.tolist(), strict=True)
    cells = tuple(tuple(map(word, *row)) for row in rows)
    return Matrix(shown.names, cells, f"rows connect to columns; {_LEGEND}")


def to_json(found: Reach) -> dict[str, Any]:
    """Every peer, and every pair that has a service."""
    pairs = np.argwhere(found.allowed.any(axis=2))
    return {
        "peers": [
            {"name": peer.name, "kind": peer.kind, "group": peer.group, "nets": _nets(peer.region)}
            for peer in found.peers
        ],
        "reach": [
            {
                "from": found.peers[source].name,
                "to": found.peers[destination].name,
                "services": found.services_text(int(source), int(destination)),
                "oneFamilyOnly": bool(found.partial[source, destination].any()),
            }
            for source, destination in pairs
        ],
    }


def _nets(region: Region) -> list[str]:
    return [str(net) for net in region.networks]


def dot(shown: Grid) -> str:
    """For graphviz: an edge where all pairs reach each other, a dashed one where some do."""
    found = ["digraph reach {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    numbered = list(enumerate(zip(shown.groups, shown.names, strict=True)))
    for group, members in groupby(numbered, key=lambda item: item[1][0]):
        found += [f"  subgraph {_quoted('cluster_' + group)} {{", f"    label={_quoted(group)};"]
        found += [f"    n{number} [label={_quoted(name)}];" for number, (_, name) in members]
        found.append("  }")
    for row, column in np.argwhere(shown.allowed):
        whole = shown.allowed[row, column] == shown.pairs[row, column]
        found.append(f"  n{row} -> n{column}{'' if whole else ' [style=dashed]'};")
    return "\n".join([*found, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_GREEN, _NONE, _EMPTY = "#2a9d63", "#f4f4f2", "#ffffff"
_FAINTEST = 0.3
"""How green a cell is of which almost no pair is reached: it must not look like none."""
_LEAST_SIZE = 5
"""Points; smaller letters nobody can read."""


def picture(shown: Grid, path: Path, title: str) -> None:
    """Writes the grid as SVG or PNG, by the ending of the path; needs matplotlib (extra `plot`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    count = len(shown.names)
    cell = 0.24 if count > 12 else 0.42
    longest = max(map(len, shown.names), default=1)
    margin = 0.085 * longest + 0.9
    figure = Figure(figsize=(count * cell + margin + 0.4, count * cell + margin + 0.9))
    FigureCanvasAgg(figure)
    width, height = figure.get_figwidth(), figure.get_figheight()
    side = count * cell
    axes = figure.add_axes((margin / width, 0.7 / height, side / width, side / height))
    share = shown.allowed / np.maximum(shown.pairs, 1)
    shade = np.where(share > 0, _FAINTEST + (1 - _FAINTEST) * share, 0)
    colours = LinearSegmentedColormap.from_list("share", [_NONE, "#bfe3cf", _GREEN])
    axes.set_facecolor(_EMPTY)
    axes.pcolormesh(
        np.ma.masked_where(shown.pairs == 0, shade),
        cmap=colours,
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=1,
    )
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_aspect("equal")
    ticks = np.arange(count) + 0.5
    size = 8 if count > 12 else 9
    axes.set_yticks(ticks, shown.names, fontsize=size)
    axes.set_xticks(ticks, shown.names, fontsize=size, rotation=90)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    _dress(axes, shown, title, cell)
    undated = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.15, metadata=undated)


def _dress(axes: Any, shown: Grid, title: str, cell: float) -> None:
    """Group lines, shares that are neither none nor all, and what the colours mean."""
    count = len(shown.names)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for at in range(1, count):
        if shown.groups[at] != shown.groups[at - 1]:
            axes.axhline(at, color="#777777", linewidth=0.8)
            axes.axvline(at, color="#777777", linewidth=0.8)
    some = (shown.allowed > 0) & (shown.allowed < shown.pairs)
    write, size = _shares(shown, some, cell)
    for row, column in np.argwhere(some):
        text = write(int(shown.allowed[row, column]), int(shown.pairs[row, column]))
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size)
    for at in range(count):
        if shown.pairs[at, at] == 0:
            axes.plot([at + 0.3, at + 0.7], [at + 0.5, at + 0.5], color="#bbbbbb", linewidth=0.8)
    shares = f"; light green: {write(3, 6)} of the pairs reached" if some.any() else ""
    caption = f"{title}\nrows connect to columns; green: reached, grey: denied, white: not asked{shares}"
    axes.set_xlabel(caption, fontsize=8, loc="left", labelpad=8)


def _shares(shown: Grid, some: NDArray[np.bool_], cell: float) -> tuple[Callable[[int, int], str], float]:
    """How shares are written, all alike, and how large: numbers, or per cent where these do not fit."""

    def pairs(allowed: int, of: int) -> str:
        return f"{allowed}/{of}"

    def per_cent(allowed: int, of: int) -> str:
        rounded = min(max(round(100 * allowed / of), 1), 99)
        return f"{rounded}%"

    numbers = zip(shown.allowed[some].tolist(), shown.pairs[some].tolist(), strict=True)
    longest = max((len(pairs(*one)) for one in numbers), default=1)
    largest = 5.0 if cell < 0.3 else 7.0
    fitting = 72 * cell / (0.66 * longest)  # A digit is that much of its height wide.
    return (pairs, min(largest, fitting)) if fitting >= _LEAST_SIZE else (per_cent, largest)
