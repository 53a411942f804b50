"""Questions by column: what `DecisionTable.decide_batch` and its like are given, checked for the core.

A column is a numpy array with one value for each flow. The core reads it where it is, so it must have the
dtype, the shape and the layout asked for: nothing is converted or copied quietly, errors say how to do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.arguments import shown
from labelgate.flow import CT_STATES, HOOKS, IPAddress, is_text, protocol_number, read_address

Answers = tuple[NDArray[np.uint8], NDArray[np.uint32]]
"""Verdicts and outcome ids."""

OUTCOME = np.dtype(
    [
        ("action", object),
        ("tier", object),
        ("policy", object),
        ("rule", np.int32),
        ("reason", object),
        ("logs", object),
    ]
)
"""Of the rows of `DecisionTable.outcomes`."""

_ADDRESS = "an address, or a column of uint32 (IPv4) or of uint8 in shape (n, 16) (IPv6)"
_INTERFACE = "the name of an interface, None, or a column of uint32 (ids of `interface_ids`)"
_PROTOCOL = "a name, a number 0..255, or a column of uint8"
_PORT = "a number 0..65535, or a column of uint16"
_CT = f"one of {', '.join(CT_STATES)}, or a column of uint8 (indexes of `labelgate.flow.CT_STATES`)"
_FLAG = "True, False, or a column of bool"


@dataclass(frozen=True, slots=True)
class Flows:
    """Questions at one hook as the core reads them: an array has one for each flow, all else is for all."""

    hook: str
    src: int | bytes | NDArray[Any]
    """IPv4: a number, or uint32 (n,). IPv6: 16 bytes in network order, or uint8 (n, 16)."""
    dst: int | bytes | NDArray[Any]
    protocol: int | NDArray[Any]
    sport: int | NDArray[Any]
    dport: int | NDArray[Any]
    in_: int | NDArray[Any]
    out: int | NDArray[Any]
    ct: int | NDArray[Any]
    accepted: int | NDArray[Any]
    """Flags are numbers, not zero: set."""
    dnatted: int | NDArray[Any]
    fragment: int | NDArray[Any]

    @classmethod
    def connections(cls, table: _core.Table, **given: Any) -> Flows:
        """New connections between workloads, where hook and interfaces play no part; otherwise as `read`."""
        nothing = {"in_": None, "out": None, "ct": "new", "accepted": False, "dnatted": False}
        return cls.read(table, hook="filter-forward", **nothing, **given)

    @classmethod
    def read(cls, table: _core.Table, **given: Any) -> Flows:
        """Checks what `DecisionTable.decide_batch` was given, by the names of its arguments.

        Raises:
            TypeError: an argument is of no use: its type or dtype.
            ValueError: an argument does not fit: a number, a word, a shape, a layout.
        """
        flows = cls(
            hook=_hook(given["hook"]),
            src=_address("src", given["src"]),
            dst=_address("dst", given["dst"]),
            protocol=_protocol(given["protocol"]),
            sport=_port("sport", given["sport"]),
            dport=_port("dport", given["dport"]),
            in_=_interface(table, "in_", given["in_"]),
            out=_interface(table, "out", given["out"]),
            ct=_ct(given["ct"]),
            accepted=_flag("accepted", given["accepted"]),
            dnatted=_flag("dnatted", given["dnatted"]),
            fragment=_flag("fragment", given["fragment"]),
        )
        if _is_ipv4(flows.src) != _is_ipv4(flows.dst):
            raise ValueError(f"dst: found {_family(flows.dst)}, expected {_family(flows.src)} as in src")
        return flows

    def answers(self, into: Answers | None, name: str = "into") -> Answers:
        """Where the answers go: new arrays, or those given (as the argument `name`) if they fit.

        Raises:
            TypeError: `into` is no pair of arrays of uint8 and uint32.
            ValueError: columns, `into` among them, differ in length, or there is none.
        """
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        if into is None:
            count = _count(columns)
            return np.empty(count, np.uint8), np.empty(count, np.uint32)
        if not isinstance(into, tuple | list) or len(into) != 2:
            raise TypeError(f"{name}: found {shown(into)}, expected a pair (verdicts, outcomes)")
        verdicts = _column(f"{name}[0]", into[0], np.uint8, "an array of uint8", is_answer=True)
        outcomes = _column(f"{name}[1]", into[1], np.uint32, "an array of uint32", is_answer=True)
        _count({**columns, f"{name}[0]": verdicts, f"{name}[1]": outcomes})
        return verdicts, outcomes

    def answers_of_both(self, into: tuple[Answers, Answers] | None) -> tuple[Answers, Answers]:
        """The same for egress and ingress.

        Raises:
            TypeError, ValueError: as `answers`, or `into` is no pair of pairs.
        """
        if into is None:
            return self.answers(None), self.answers(None)
        if not isinstance(into, tuple | list) or len(into) != 2:
            raise TypeError(f"into: found {shown(into)}, expected a pair (egress, ingress) of pairs")
        egress, ingress = self.answers(into[0], "into[0]"), self.answers(into[1], "into[1]")
        _count({"into[0][0]": egress[0], "into[1][0]": ingress[0]})
        return egress, ingress


def address_column(addresses: Sequence[IPAddress]) -> NDArray[Any]:
    """Addresses of one IP version, one at least, as a column.

    >>> address_column([IPv4Address("10.0.0.1")])
    array([167772161], dtype=uint32)
    """
    if addresses[0].version == 4:
        return np.array([int(address) for address in addresses], np.uint32)
    return np.frombuffer(b"".join(address.packed for address in addresses), np.uint8).reshape(-1, 16).copy()


MOST_THREADS = 1024


def read_threads(threads: int) -> int:
    """The number of threads, checked.

    Raises:
        TypeError, ValueError: it is no number, or none of the right size.
    """
    if not isinstance(threads, int | np.integer) or isinstance(threads, bool):
        raise TypeError(f"threads: found {shown(threads)}, expected a number 1..{MOST_THREADS}")
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads: found {threads}, expected 1..{MOST_THREADS}")
    return int(threads)


def _count(columns: Mapping[str, object]) -> int:
    """How many flows there are."""
    lengths = {name: len(column) for name, column in columns.items() if isinstance(column, np.ndarray)}
    if not lengths:
        raise ValueError("found no column, expected at least one; `decide` answers single questions")
    (first, count), *others = lengths.items()
    for name, found in others:
        if found != count:
            raise ValueError(f"{name}: found {found} values, expected {count} as in {first}")
    return count


def _column(
    name: str,
    value: object,
    dtype: type[np.generic],
    expected: str,
    width: int = 0,
    *,
    is_answer: bool = False,
) -> NDArray[Any]:
    """The value, if it is a column that can be used where it is; nobody would see answers in a copy of it."""

    def hint(call: str, what: str) -> str:
        return "" if is_answer else f"; {name}.{call} {what}"

    # The values under the mask would be asked about, too.
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        known = hint("to_numpy()", "makes a column") if hasattr(value, "to_numpy") else ""
        raise TypeError(f"{name}: found {shown(value)}, expected {expected}{known}")
    if value.dtype != dtype:
        call = f"astype(np.{dtype.__name__})"
        known = hint(call, "converts it, if all values fit") if value.dtype.kind in "biu" else ""
        raise TypeError(f"{name}: found a column of {value.dtype}, expected {expected}{known}")
    if value.shape[1:] != ((width,) if width else ()) or not value.ndim:
        shape = f"(n, {width})" if width else "(n,)"
        raise ValueError(f"{name}: found shape {value.shape}, expected {shape}")
    if not value.flags.c_contiguous:
        raise ValueError(
            f"{name}: found values that are not side by side in memory (strides {value.strides}), expected a "
            f"C-contiguous column{hint('copy()', 'makes one')}"
        )
    if not value.flags.aligned:
        raise ValueError(
            f"{name}: found values that do not begin at a multiple of {value.itemsize} in memory, expected "
            f"an aligned column{hint('copy()', 'makes one')}"
        )
    return value


def _hook(value: object) -> str:
    if isinstance(value, str) and value in HOOKS:
        return value
    raise ValueError(f"hook: found {shown(value)}, expected one of {', '.join(HOOKS)}")


def _address(name: str, value: object) -> int | bytes | NDArray[Any]:
    if isinstance(value, str):
        value = read_address(value, name)
    if isinstance(value, IPv4Address):
        return int(value)
    if isinstance(value, IPv6Address):
        return value.packed
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return _column(name, value, np.uint8, _ADDRESS, width=16)
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype.kind in "OUS"):
        found = shown(value) if isinstance(value, list) else f"a column of {value.dtype}"
        call = f"labelgate.columns.address_column([ipaddress.ip_address(one) for one in {name}])"
        raise TypeError(f"{name}: found {found}, expected {_ADDRESS}; {call} makes one")
    return _column(name, value, np.uint32, _ADDRESS)


def _protocol(value: object) -> int | NDArray[Any]:
    if isinstance(value, str | int | np.integer):
        return protocol_number(int(value) if isinstance(value, np.integer) else value)
    return _column("protocol", value, np.uint8, _PROTOCOL)


def _port(name: str, value: object) -> int | NDArray[Any]:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if 0 <= value <= 65535:
            return int(value)
        raise ValueError(f"{name}: found {value}, expected {_PORT}")
    return _column(name, value, np.uint16, _PORT)


def _interface(table: _core.Table, name: str, value: object) -> int | NDArray[Any]:
    if isinstance(value, str) and not is_text(value):
        raise ValueError(f"{name}: found {value!r}, expected {_INTERFACE}")
    if value is None or isinstance(value, str):
        return table.interface_ids([value])[0]
    return _column(name, value, np.uint32, _INTERFACE)


def _ct(value: object) -> int | NDArray[Any]:
    if isinstance(value, str):
        if value in CT_STATES:
            return CT_STATES.index(value)
        raise ValueError(f"ct: found {value!r}, expected {_CT}")
    return _column("ct", value, np.uint8, _CT)


def _flag(name: str, value: object) -> int | NDArray[Any]:
    if isinstance(value, bool | np.bool_):
        return int(value)
    return _column(name, value, np.bool_, _FLAG).view(np.uint8)


def _is_ipv4(addresses: int | bytes | NDArray[Any]) -> bool:
    return isinstance(addresses, int) or (isinstance(addresses, np.ndarray) and addresses.dtype == np.uint32)


def _family(addresses: int | bytes | NDArray[Any]) -> str:
    return "IPv4" if _is_ipv4(addresses) else "IPv6"
