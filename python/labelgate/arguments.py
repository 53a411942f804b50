"""What functions of the package say to arguments of wrong types."""

from __future__ import annotations

from collections.abc import Iterable
from types import UnionType
from typing import Any


def shown(value: object) -> str:
    """A wrong value in an error: short, or only its type."""
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def check_type(name: str, value: object, kind: type | UnionType, expected: str) -> None:
    """TypeError where the argument of this name is of another type."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: found {shown(value)}, expected {expected}")


def several(name: str, value: Any, kind: type | UnionType, expected: str) -> list[Any]:
    """The items of an argument that may be one alone; TypeError where one is of another type."""
    check_type(name, value, kind | Iterable, expected)
    items = [value] if isinstance(value, kind) else list(value)
    for item in items:
        check_type(name, item, kind, expected)
    return items
