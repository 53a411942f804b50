"""Files that held resources and hold none now: legitimate, and what a command that failed leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def emptied(before: Mapping[str, int], now: Mapping[str, int]) -> Iterator[str]:
    """A warning for each, of how many resources files held and hold now.

    >>> list(emptied({"a.yaml": 2, "b.yaml": 1}, {"a.yaml": 0, "c.yaml": 0}))
    ['a.yaml held 2 resources and holds none now']
    """
    for file, count in now.items():
        if not count and (held := before.get(file)):
            yield f"{file} held {held} resource{'s' * (held != 1)} and holds none now"
