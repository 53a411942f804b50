"""A panic of the core comes to Python as an exception that nobody catches; here it refuses a change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CoreFault(ValueError):
    """The core has a fault: what it was asked for is refused, what is in force stays."""


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
