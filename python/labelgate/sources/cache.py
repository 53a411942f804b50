"""Files that are read again and again: those that did not change are not parsed again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labelgate.regular import read_and_tell
from labelgate.resources import LoadError, Loading
from labelgate.resources.errors import Wrong
from labelgate.sources.emptied import emptied
from labelgate.sources.files import (
    STDIN,
    Progress,
    all_files,
    in_turn,
    not_read,
    read_documents,
    unreadable,
)

_TICK_NS = 50_000_000
"""Written twice within a tick of the kernel's clock, a file may look as before: 10 ms, and a margin."""

_Stamp = tuple[int, ...]
IsOpen = Callable[[str, bool | None], bool]
"""Whether a file counts as open for writing: its name, and what the kernel tells, or None."""


def as_told(_file: str, is_open: bool | None) -> bool:
    """A file of which the kernel does not tell counts as closed."""
    return is_open is True


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
        """By file; some may be newer than what the last whole reading gave."""
        self._read: dict[str, _Parsed] = {}
        self._whole: Loading | None = None
        self.open_files: tuple[str, ...] = ()
        """Those that the last reading found open for writing, with something new in them."""
        self._unread: list[str] = []
        """Files that are not read for their names."""
        self.warnings: tuple[str, ...] = ()
        """Of what is new in the last reading: files that hold nothing any more, or are not read."""

    def read(
        self,
        paths: Iterable[str],
        progress: Progress = lambda done, whole: None,
        is_open: IsOpen = as_told,
    ) -> Loading:
        """All that the paths hold now; the object of the last reading if nothing has changed.

        `progress` is told of the first reading only. LoadError where a file that has changed is open for
        writing: then it is as if nothing had been read.
        """
        paths, self.open_files = tuple(paths), ()
        unread: list[str] = []
        files = list(all_files(paths, unread.append))
        self.warnings = tuple(not_read(file) for file in dict.fromkeys(unread) if file not in self._unread)
        self._unread = unread
        if STDIN in files:
            return read_documents(paths, progress)
        if self._parsed:
            found = {file: self._parse(file, lambda _: self._step(), is_open) for file in files}
        else:
            found = {file: self._parse(file, done, is_open) for file, done in in_turn(files, progress)}
        parsed = {file: one for file, one in found.items() if one is not None}
        if len(parsed) < len(found):
            self._parsed = self._parsed | parsed
            self.open_files = tuple(file for file, one in found.items() if one is None)
            raise _open_for_writing(self.open_files)
        same = self._whole is not None and _loadings(parsed) == _loadings(self._read)
        if not same:
            self.warnings += tuple(emptied(_counts(self._read), _counts(parsed)))
        self._parsed = self._read = parsed
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
        return tuple((file, one.content) for file, one in self._read.items())

    @property
    def digest(self) -> str:
        """Of all names and contents."""
        whole = hashlib.sha256()
        for file, one in self._read.items():
            whole.update(os.fsencode(file) + b"\0" + one.digest)
        return whole.hexdigest()

    def _parse(self, file: str, done: Callable[[int], None], is_open: IsOpen) -> _Parsed | None:
        """None: it has changed, and somebody has it open for writing."""
        before = self._parsed.get(file)
        stamp = _stamp(file)
        if before is not None and stamp is not None and stamp == before.stamp:
            return before
        content, told = _read_and_tell(file)
        digest = hashlib.sha256(content if isinstance(content, bytes) else content.code.encode()).digest()
        if before is not None and digest == before.digest:
            before.stamp = stamp
            return before
        if isinstance(content, bytes) and is_open(file, told):
            return None
        loading = Loading()
        if isinstance(content, bytes):
            loading.add(content, file, done)
        else:
            loading.add_unreadable(content, file)
        return _Parsed(stamp, content if isinstance(content, bytes) else b"", digest, loading)


def _read_and_tell(file: str) -> tuple[bytes | Wrong, bool | None]:
    try:
        return read_and_tell(file)
    except OSError as error:
        return unreadable(error), None


def _open_for_writing(files: Iterable[str]) -> LoadError:
    loading = Loading()
    for file in files:
        loading.add_unreadable(Wrong("file-open", "somebody has it open for writing"), file)
    return LoadError(loading.problems)


def _counts(parsed: dict[str, _Parsed]) -> dict[str, int]:
    """Of resources; what is wrong counts, too."""
    return {file: len(one.loading.first) + len(one.loading.problems) for file, one in parsed.items()}


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
