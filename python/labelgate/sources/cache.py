"""Files that are read again and again: those that did not change are not parsed again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labelgate.resources import Loading
from labelgate.sources.files import (
    STDIN,
    Progress,
    all_files,
    in_turn,
    read_documents,
    read_file,
)

_TICK_NS = 50_000_000
"""Written twice within a tick of the kernel's clock, a file may look as before: 10 ms, and a margin."""

_Stamp = tuple[int, ...]


@dataclass(slots=True)
class _Parsed:
    stamp: _Stamp | None
    """None: the content has to be looked at."""
    content: bytes
    """Empty where it cannot be read."""
    digest: bytes
    loading: Loading


class FileCache:
    """What `read_documents` gives; a file is parsed only if it holds not what it held at the last reading.

    `index` of locations and problems counts the documents of one file.
    """

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        """`step` is called as often as `progress` is told, at later readings too."""
        self._step = step
        self._parsed: dict[str, _Parsed] = {}
        self._whole: Loading | None = None

    def read(self, paths: Iterable[str], progress: Progress = lambda done, whole: None) -> Loading:
        """All that the paths hold now; the object of the last reading if nothing has changed.

        `progress` is told of the first reading only.
        """
        paths = tuple(paths)
        files = list(all_files(paths))
        if STDIN in files:
            return read_documents(paths, progress)
        if self._parsed:
            parsed = {file: self._read(file, lambda _: self._step()) for file in files}
        else:
            parsed = {file: self._read(file, done) for file, done in in_turn(files, progress)}
        same = self._whole is not None and _loadings(parsed) == _loadings(self._parsed)
        self._parsed = parsed
        if self._whole is None or not same:
            # Who of two files has a resource first is told by reading them one after the other.
            self._whole = _joined(parsed) or read_documents(paths, is_followed=True)
        return self._whole

    @property
    def latest(self) -> Loading | None:
        """What the last reading gave; None before the first."""
        return self._whole

    @property
    def texts(self) -> tuple[tuple[str, bytes], ...]:
        """Every file that was read last, with what it held."""
        return tuple((file, one.content) for file, one in self._parsed.items())

    @property
    def digest(self) -> str:
        """Of all names and contents."""
        whole = hashlib.sha256()
        for file, one in self._parsed.items():
            whole.update(os.fsencode(file) + b"\0" + one.digest)
        return whole.hexdigest()

    def _read(self, file: str, done: Callable[[int], None]) -> _Parsed:
        before = self._parsed.get(file)
        stamp = _stamp(file)
        if before is not None and stamp is not None and stamp == before.stamp:
            return before
        content = read_file(file, is_followed=True)
        digest = hashlib.sha256(content if isinstance(content, bytes) else content.code.encode()).digest()
        if before is not None and digest == before.digest:
            before.stamp = stamp
            return before
        loading = Loading()
        if isinstance(content, bytes):
            loading.add(content, file, done)
        else:
            loading.add_unreadable(content, file)
        return _Parsed(stamp, content if isinstance(content, bytes) else b"", digest, loading)


def _loadings(parsed: dict[str, _Parsed]) -> list[tuple[str, int]]:
    return [(file, id(one.loading)) for file, one in parsed.items()]


def _stamp(file: str) -> _Stamp | None:
    """None where the same stamp could come again with another content."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    if max(found.st_mtime_ns, found.st_ctime_ns) > time.time_ns() - _TICK_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _joined(parsed: dict[str, _Parsed]) -> Loading | None:
    """One after the other; None where two have a resource of the same key."""
    whole, keys = Loading(), 0
    for one in parsed.values():
        whole.resources += one.loading.resources
        whole.problems += one.loading.problems
        whole.documents += one.loading.documents
        whole.first.update(one.loading.first)
        keys += len(one.loading.first)
    return whole if keys == len(whole.first) else None
