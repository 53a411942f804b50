"""The truth table of workloads or namespaces: who reaches whom at one port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

from labelgate.flow import VERDICTS, IPAddress
from labelgate.table import DecisionTable
from labelgate.tabular import Tabular, html_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

By = Literal["workload", "namespace"]
_LEGENDS: Mapping[By, str] = {
    "workload": "yes, no, v4 or v6: only in that family, -: itself, or no address family in common",
    "namespace": "all, none, 3/6: so many pairs of workloads, -: no pairs",
}


@dataclass(frozen=True)
class Matrix(Tabular):
    """A square grid: rows connect to columns. As an array or frame it has a row for each cell."""

    names: tuple[str, ...]
    """Of rows and columns, sorted: `namespace/name` or `namespace`."""
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


def matrix(table: DecisionTable, *, port: int, protocol: int, by: By = "workload") -> Matrix:
    """The grid of a table of the cluster (`Snapshot.compile(node=None)`).

    A new connection from source port 0, which no policy can name, between the first addresses of each family.
    """
    workloads = {name.partition("/")[2]: _by_family(found) for name, found in table.workloads().items()}
    names = tuple(sorted(workloads))
    reached: dict[tuple[str, str], dict[int, bool]] = {
        (source, destination): {} for source in names for destination in names if source != destination
    }
    for family in (4, 6):
        addresses = {name: workloads[name][family] for name in names if family in workloads[name]}
        for pair, allowed in _reached(table, addresses, port, protocol):
            if pair in reached:
                reached[pair][family] = allowed
    if by == "namespace":
        return _by_namespace(reached, names)
    cells = tuple(
        tuple(_word(reached.get((source, destination), {})) for destination in names) for source in names
    )
    return Matrix(names, cells, _LEGENDS["workload"])


def _by_family(addresses: Sequence[str]) -> dict[int, IPAddress]:
    """The first address of each family."""
    found: dict[int, IPAddress] = {}
    for address in map(ip_address, addresses):
        found.setdefault(address.version, address)
    return found


def _reached(
    table: DecisionTable, addresses: Mapping[str, IPAddress], port: int, protocol: int
) -> Iterator[tuple[tuple[str, str], bool]]:
    """Whether a connection gets through, from each to each, itself among them; addresses of one family."""
    if not addresses:
        return
    from labelgate.columns import address_column

    column, deny = address_column(list(addresses.values())), VERDICTS.index("deny")
    for source, address in addresses.items():
        egress, ingress = table.connectivity_batch(address, column, protocol, 0, port)
        allowed = (egress[0] != deny) & (ingress[0] != deny)
        for destination, passes in zip(addresses, allowed.tolist(), strict=True):
            yield (source, destination), passes


def _word(reached: Mapping[int, bool]) -> str:
    if not reached:
        return "-"
    if len(set(reached.values())) > 1:
        return next(f"v{family}" for family, allowed in reached.items() if allowed)
    return "yes" if all(reached.values()) else "no"


def _by_namespace(reached: Mapping[tuple[str, str], dict[int, bool]], workloads: Sequence[str]) -> Matrix:
    names = tuple(sorted({name.partition("/")[0] for name in workloads}))
    pairs: dict[tuple[str, str], list[bool]] = {}
    for (source, destination), families in reached.items():
        if families:
            key = (source.partition("/")[0], destination.partition("/")[0])
            pairs.setdefault(key, []).append(all(families.values()))
    cells = tuple(
        tuple(_share(pairs.get((source, destination), [])) for destination in names) for source in names
    )
    return Matrix(names, cells, _LEGENDS["namespace"])


def _share(pairs: Sequence[bool]) -> str:
    if not pairs:
        return "-"
    if all(pairs):
        return "all"
    return f"{sum(pairs)}/{len(pairs)}" if any(pairs) else "none"
