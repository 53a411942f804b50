"""Faults of ours: where a change is judged they refuse the change, and what is in force stays.

A panic of the core comes to Python as an exception that nobody catches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labelgate.errors import fault_place


class CoreFault(ValueError):
    """The core has a fault: what it was asked for is refused, what is in force stays."""


class Fault(ValueError):
    """Labelgate has one: what it was asked for is refused, what is in force stays."""


def is_panic(error: BaseException) -> bool:
    """Whether the core has panicked; pyo3 makes that class only then, under no name that can be imported."""
    found = type(error)
    return (found.__module__, found.__name__) == ("pyo3_runtime", "PanicException")


@contextmanager
def panics_refused() -> Iterator[None]:
    """Around, or as a decorator of, what asks the core; CoreFault for a panic."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise CoreFault(f"a fault of labelgate's core (please report it): {error}") from None


@contextmanager
def faults_refused(*refusals: type[Exception]) -> Iterator[None]:
    """The same, and Fault for all exceptions but ValueError and these: those say what is wrong."""
    try:
        with panics_refused():
            yield
    except Exception as error:
        if isinstance(error, (ValueError, *refusals)):
            raise
        raise Fault(f"a fault of labelgate (please report it): {fault_place(error)}: {error}") from error
