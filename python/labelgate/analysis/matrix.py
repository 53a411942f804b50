"""The truth table of workloads or namespaces: who reaches whom at one port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

from labelgate.arguments import check_type, shown
from labelgate.flow import VERDICTS, IPAddress
from labelgate.table import DecisionTable
from labelgate.tabular import Tabular, html_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

By = Literal["workload", "namespace"]
MOST_PAIRS = 25_000_000
"""Of workloads, in a grid of them: 5,000 by 5,000."""
_LEGENDS: Mapping[By, str] = {
    "workload": "yes, no, v4 or v6: only in that family, -: itself, or no address family in common",
    "namespace": "all, none, 3/6: so many pairs of workloads, -: no pairs",
}


@dataclass(frozen=True)
class Matrix(Tabular):
    """A square grid: rows connect to columns. As an array or frame it has a row for each cell."""

    names: tuple[str, ...]
    """Of rows and columns, sorted: `namespace/name`, with the kind where several have it, or `namespace`."""
    cells: tuple[tuple[str, ...], ...]
    legend: str
    """What the words in the cells mean."""

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """`from`, `to` and what the cell says, text."""
        import numpy as np

        count = len(self.names)
        names = np.array(self.names, object)
        reached = [cell for row in self.cells for cell in row]
        return {
            "from": np.repeat(names, count),
            "to": np.tile(names, count),
            "reached": np.array(reached, object),
        }

    def caption(self) -> str:
        """What rows, columns and words mean."""
        return f"rows connect to columns; {self.legend}"

    def _repr_html_(self) -> str:
        rows = ((name, *row) for name, row in zip(self.names, self.cells, strict=True))
        return html_table(self.caption(), ["", *self.names], rows, len(self.names))

    def text(self) -> str:
        """As plain text; columns are numbered as the rows are."""
        numbers = [str(index + 1) for index in range(len(self.names))]
        labels = [f"{number} {name}" for number, name in zip(numbers, self.names, strict=True)]
        columns = zip(*self.cells, strict=True)
        widths = [max(map(len, (number, *column))) for number, column in zip(numbers, columns, strict=True)]
        first = max(map(len, labels))
        rows = zip(("", *labels), (tuple(numbers), *self.cells), strict=True)
        return "\n".join(
            "  ".join((label.ljust(first), *map(str.ljust, cells, widths))).rstrip() for label, cells in rows
        )


class TooManyPairs(ValueError):
    """A grid that nobody reads."""


def matrix(
    table: DecisionTable,
    *,
    port: int,
    protocol: int,
    sport: int | None = None,
    by: By = "workload",
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> Matrix:
    """The grid of a table of the cluster (`Snapshot.compile(node=None)`); of one of a node, its workloads'.

    A new connection from source port `sport` (None: the usual one, 40000) between the first addresses of each
    family. `progress` is told how many workloads have been asked about, and how many there are.

    Raises:
        TooManyPairs: of workloads one by one, more than `MOST_PAIRS`.
        TypeError, ValueError: another argument cannot be used.
    """
    import numpy as np

    from labelgate.analysis.services import USUAL_SOURCE_PORT, check_port

    check_port(protocol, port)
    if by not in _LEGENDS:
        raise ValueError(f"by: found {shown(by)}, expected one of {', '.join(_LEGENDS)}")
    check_type("table", table, DecisionTable, "a DecisionTable")
    ports = USUAL_SOURCE_PORT if sport is None else sport, port
    workloads = table.workloads()
    short = without_kind(workloads)
    keys = sorted(workloads, key=lambda key: (key.partition("/")[2], key))
    names = tuple(short[key] for key in keys)
    if by == "workload" and len(names) ** 2 > MOST_PAIRS:
        raise TooManyPairs(
            f"{len(names)} workloads are {len(names) ** 2:,} pairs, and a grid has at most {MOST_PAIRS:,}:"
            " ask by namespace (--by namespace), or load fewer"
        )
    rows = _rows(table, [_by_family(workloads[key]) for key in keys], protocol, ports, progress)
    if by == "namespace":
        return _by_namespace(rows, [key.split("/")[1] for key in keys])
    words = np.array(_WORDS, object)
    return Matrix(names, tuple(tuple(words[row].tolist()) for row in rows), _LEGENDS["workload"])


def without_kind(keys: Iterable[str]) -> dict[str, str]:
    """How endpoints are called in a grid: with their kind where another one has the rest of their key."""
    short = {key: key.partition("/")[2] for key in keys}
    counts = Counter(short.values())
    return {key: name if counts[name] == 1 else key for key, name in short.items()}


def _by_family(addresses: Sequence[str]) -> dict[int, IPAddress]:
    """The first address of each family."""
    found: dict[int, IPAddress] = {}
    for address in map(ip_address, addresses):
        found.setdefault(address.version, address)
    return found


_WORDS = ("-", "no", "yes", "no", "no", "v6", "yes", "v4", "yes")
"""By what becomes of IPv4, three times, and of IPv6: not asked (0), denied (1), let through (2)."""
_THROUGH = (2, 6, 8)
"""Those that are let through in every family that was asked."""


def _rows(
    table: DecisionTable,
    workloads: Sequence[Mapping[int, IPAddress]],
    protocol: int,
    ports: tuple[int, int],
    progress: Callable[[int, int], None],
) -> Iterator[NDArray[np.uint8]]:
    """For each workload what becomes of its connections to every one, as an index of `_WORDS`.

    `ports` are those of the source and of the destination.
    """
    import numpy as np

    from labelgate.columns import address_column

    deny, ends = VERDICTS.index("deny"), {}
    for family, weight in ((4, 3), (6, 1)):
        at = [number for number, one in enumerate(workloads) if family in one]
        if at:
            ends[family] = weight, np.array(at), address_column([workloads[one][family] for one in at])
    for number, addresses in enumerate(workloads):
        row = np.zeros(len(workloads), np.uint8)
        for family, address in addresses.items():
            weight, others, column = ends[family]
            egress, ingress = table.connectivity_batch(address, column, protocol, *ports)
            passes = (egress[0] != deny) & (ingress[0] != deny)
            row[others] += np.where(passes, 2 * weight, weight).astype(np.uint8)
        row[number] = 0
        progress(number + 1, len(workloads))
        yield row


def _by_namespace(rows: Iterable[NDArray[np.uint8]], namespaces: Sequence[str]) -> Matrix:
    """`namespaces` has that of each row."""
    import numpy as np

    names = tuple(sorted(set(namespaces)))
    numbers = {name: number for number, name in enumerate(names)}
    of = np.array([numbers[name] for name in namespaces], np.intp)
    pairs = np.zeros((2, len(names), len(names)), np.int64)
    for source, row in zip(of, rows, strict=True):
        pairs[0, source] += np.bincount(of[np.isin(row, _THROUGH)], minlength=len(names))
        pairs[1, source] += np.bincount(of[row != 0], minlength=len(names))
    through, asked = pairs.tolist()
    cells = tuple(tuple(map(_share, *ends)) for ends in zip(through, asked, strict=True))
    return Matrix(names, cells, _LEGENDS["namespace"])


def _share(through: int, asked: int) -> str:
    if not asked:
        return "-"
    if through == asked:
        return "all"
    return f"{through}/{asked}" if through else "none"
