"""What folders hold: one walk for who reads policies and for who follows them, within bounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple

from labelgate.resources import LoadError, Loading
from labelgate.resources.errors import Wrong

MOST_DEPTH = 100
"""Folders one in another: whoever may write there could else have a walk take as long as they like."""
MOST_NAMES = 1_000_000
"""In a folder, and those in it."""


class Kind(Enum):
    """What a name leads to, through links."""

    FOLDER = auto()
    FILE = auto()
    OTHER = auto()
    """A pipe or a device."""
    NOWHERE = auto()
    """A link to nothing."""
    UNREADABLE = auto()
    """A folder that cannot be looked into, or a link that cannot be followed."""


class Met(NamedTuple):
    """One name."""

    path: str
    kind: Kind
    real: str = ""
    """Of a folder: its name without links."""
    depth: int = 1
    """Of a folder: how many it is in, itself among them."""


def walk(path: str) -> Iterator[Met]:
    """A folder, and all that it and its folders hold, sorted by name; each folder once, through links too.

    Names that begin with a dot are left out: Kubernetes mounts a ConfigMap as links into such a folder.

    Raises:
        LoadError: there are too many, or too deep ones; what was met before is met.
    """
    seen: set[str] = set()
    waiting, names = [Met(path, Kind.FOLDER, os.path.realpath(path))], 0
    while waiting:
        met = waiting.pop()
        if met.kind is not Kind.FOLDER:
            yield met
            continue
        if met.real in seen:
            continue
        seen.add(met.real)
        if met.depth > MOST_DEPTH:
            raise refusal(Wrong("folder-deep", f"{met.depth} folders one in another", most=MOST_DEPTH), path)
        yield met
        held = _held(met)
        names += len(held)
        if names > MOST_NAMES:
            raise refusal(Wrong("folder-full", f"more than {MOST_NAMES} names", most=MOST_NAMES), path)
        waiting += reversed(held)


def _held(folder: Met) -> list[Met]:
    try:
        with os.scandir(folder.path) as found:
            entries = sorted(islice(found, MOST_NAMES + 1), key=lambda entry: entry.name)
    except OSError:  # Gone again, or not for us.
        return [Met(folder.path, Kind.UNREADABLE)]
    return [_met(folder, entry) for entry in entries if not entry.name.startswith(".")]


def _met(folder: Met, entry: os.DirEntry[str]) -> Met:
    try:
        if entry.is_file():
            return Met(entry.path, Kind.FILE)
        if not entry.is_dir():
            return Met(entry.path, Kind.OTHER if os.path.exists(entry.path) else Kind.NOWHERE)
        # Only a link leads elsewhere: asked of each name, the whole way would be walked again for each.
        is_link = entry.is_symlink()
    except OSError:  # A link that loops, or leads where nobody may look.
        return Met(entry.path, Kind.UNREADABLE)
    real = os.path.realpath(entry.path) if is_link else os.path.join(folder.real, entry.name)
    return Met(entry.path, Kind.FOLDER, real, folder.depth + 1)


def refusal(wrong: Wrong, path: str) -> LoadError:
    """Of all that a path holds."""
    loading = Loading()
    loading.add_unreadable(wrong, path)
    return LoadError(loading.problems)
