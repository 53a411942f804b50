"""Tells when changed files are worth reading: after a burst of edits, and not while one is written."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Self

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from labelgate.resources import LoadError
from labelgate.sources.files import SUFFIXES
from labelgate.sources.folders import Kind, walk

QUIET_SECONDS = 0.02
"""Edits that follow each other so closely are one."""
MOST_SECONDS = 1.0
"""Edits without a pause are read after so long all the same."""
OPEN_SECONDS = 5.0
"""Whether a file is still open for writing is looked at when nothing has come for so long, and again then."""
MOST_OPEN_SECONDS = 30.0
"""And after so long if something comes all the time."""
MOST_LINKS = 40
"""As the kernel follows (path_resolution(7))."""

_EVENTS = (
    flags.CREATE | flags.DELETE | flags.MODIFY | flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO
    | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
)  # fmt: skip
_CLOSING = flags.CLOSE_WRITE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO


class FileWatch:
    """Follows the folders that decide what some paths hold, through links and as folders come and go.

    Editors write beside and rename, ConfigMaps swap a link, others write in place: after each of these
    `is_due` is true once, when nothing more comes. `fileno` is readable when `poll` has something to do.
    Who reads then asks `is_open` of each file that has changed.
    """

    def __init__(self, paths: Iterable[str], say: Callable[[str], None]) -> None:
        """Begins as after an edit; OSError where the kernel allows no more of them (fs.inotify).

        `say` is told of a folder that cannot be followed.
        """
        self._say = say
        self._unfollowed: set[str] = set()
        self._paths = tuple(os.path.abspath(path) for path in paths)
        self._inotify = INotify(nonblocking=True)
        self._folders: dict[int, str] = {}
        self._writers: dict[tuple[int, str], tuple[float, float]] = {}
        """Files that were written to and not closed, by watch and name: when something first came, and last.

        Not all: some were opened before we looked, or are open under another name. truncate(2) closes none.
        """
        self._open: dict[str, float] = {}
        """Files that were open for writing when they were to be read: since when."""
        self._looked = self._open
        """The same, one reading before."""
        self._again = 0.0
        """When it is looked again whether they still are."""
        self._began: float | None = None
        """When the first event came that nobody has read the files after."""
        self._latest = 0.0
        self._look_around()
        # What was written just before is looked for once.
        self._note(time.monotonic())

    def fileno(self) -> int:
        """For select and poll."""
        return int(self._inotify.fileno())

    def poll(self) -> bool:
        """Takes what has been told; whether there was anything. Does not block."""
        events = self._inotify.read(timeout=0)
        now = time.monotonic()
        for event in events:
            key = (event.wd, event.name)
            if event.mask & flags.Q_OVERFLOW:
                self._writers.clear()  # Who has closed what since is not told.
            if event.mask & flags.IGNORED:
                self._folders.pop(event.wd, None)
                self._writers = {of: when for of, when in self._writers.items() if of[0] != event.wd}
            if event.mask & _CLOSING:
                self._writers.pop(key, None)
            elif event.mask & flags.MODIFY and self._is_read(*key):
                self._writers[key] = self._writers.get(key, (now, now))[0], now
        if events:
            self._note(now)
        return bool(events)

    def seconds_left(self) -> float | None:
        """Until the files should be read, if nothing more comes; None while nothing has changed."""
        if self._began is None:
            return max(0.0, self._again - time.monotonic()) if self._open else None
        until = min(self._latest + QUIET_SECONDS, self._began + MOST_SECONDS)
        closed = max((written + OPEN_SECONDS for _, written in self._writers.values()), default=until)
        until = max(until, min(closed, self._began + MOST_OPEN_SECONDS))
        return max(0.0, until - time.monotonic())

    def is_due(self) -> bool:
        """Whether the files should be read now; true once. What changes meanwhile makes it true again."""
        if self.seconds_left() != 0.0:
            return False
        if self._look_around():
            # What is in a new folder may be half written still.
            self._note(time.monotonic())
            return False
        self._began = None
        self._looked, self._open = self._open, {}
        self._again = time.monotonic() + OPEN_SECONDS
        return True

    @property
    def has_news(self) -> bool:
        """Whether something has changed that nobody has read yet."""
        return self._began is not None

    def is_open(self, file: str, told: bool | None) -> bool:
        """Whether somebody has it open for writing: as the kernel told, or as far as writers were seen."""
        since = self._written_since(file)
        is_open = since is not None if told is None else told
        if is_open:
            self._open[file] = self._looked.get(file, time.monotonic() if since is None else since)
        return is_open

    @property
    def is_waiting(self) -> bool:
        """Whether what was to be read is open for writing, and nothing has been so for `OPEN_SECONDS`."""
        return bool(self._open) and time.monotonic() - min(self._open.values()) < OPEN_SECONDS

    def open_files(self) -> list[dict[str, Any]]:
        """Those that are not read as they are open for writing: for how long. Any thread may ask."""
        now = time.monotonic()
        return [{"file": file, "seconds": round(now - since, 3)} for file, since in tuple(self._open.items())]

    def close(self) -> None:
        """Follows no more."""
        self._inotify.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, now: float) -> None:
        self._latest = now
        if self._began is None:
            self._began = now

    def _is_read(self, watch: int, name: str) -> bool:
        path = os.path.join(self._folders.get(watch, ""), name)
        return path in self._paths or (name.endswith(SUFFIXES) and not name.startswith("."))

    def _written_since(self, file: str) -> float | None:
        real = os.path.realpath(file)
        for (watch, name), (since, _) in self._writers.items():
            if os.path.join(self._folders.get(watch, ""), name) == real:
                return since
        return None

    def _look_around(self) -> bool:
        """Follows the folders as they are now; whether there is one that was not followed before."""
        now: dict[int, str] = {}
        for folder in _folders(self._paths):
            try:
                now[self._inotify.add_watch(folder, _EVENTS)] = folder
            except (FileNotFoundError, NotADirectoryError):
                continue  # It is gone again.
            except OSError as error:
                if folder not in self._unfollowed:
                    self._unfollowed.add(folder)
                    self._say(f"warning: {folder} is not followed: {error.strerror} (fs.inotify?)")
        for watch in self._folders.keys() - now.keys():
            try:
                self._inotify.rm_watch(watch)
            except OSError:  # The kernel did so when the folder went.
                continue
        is_new = not now.keys() <= self._folders.keys()
        self._folders = now
        return is_new


def _folders(paths: Iterable[str]) -> set[str]:
    """Every folder in which something decides what the paths hold."""
    found: set[str] = set()
    for path in paths:
        found |= _on_the_way(path)
        for inner in _inside(path):
            found.add(inner)
            found |= _linked_from(inner)
    return found


def _inside(path: str) -> Iterator[str]:
    """The folder, and those in it that are read."""
    if not os.path.isdir(path):
        return
    # Who reads them says what is too much; what comes before is followed, so that it is heard of the mend.
    with suppress(LoadError):
        yield from (met.real for met in walk(path) if met.kind is Kind.FOLDER)


def _linked_from(folder: str) -> set[str]:
    """The folders on the way of the links in one, such as `..data` of a ConfigMap leads to."""
    try:
        with os.scandir(folder) as entries:
            links = [entry.path for entry in entries if entry.is_symlink()]
    except OSError:
        return set()
    return set().union(*map(_on_the_way, links))


def _on_the_way(path: str) -> set[str]:
    """The folders that hold the path's last name, each link on its way, or the first name that is missing."""
    found: set[str] = set()
    here, names, links = "/", deque(path.split("/")), 0
    while names:
        name = names.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        try:
            target = os.readlink(there)
        except OSError:  # No link; perhaps not there at all.
            if not os.path.exists(there):
                return found | {here}
            here = there
            continue
        found.add(here)
        links += 1
        if links > MOST_LINKS:
            return found
        here = "/" if target.startswith("/") else here
        names.extendleft(reversed(target.split("/")))
    return found | {os.path.dirname(here)}
