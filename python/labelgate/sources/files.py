"""Resources from files, folders and standard input."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from labelgate.printable import printable
from labelgate.regular import MOST_BYTES, read_bounded, read_regular
from labelgate.resources import Loading, Resource
from labelgate.resources.errors import Wrong
from labelgate.sources.folders import Kind, refusal, walk

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"
MOST_BYTES_IN_ALL = 4 * MOST_BYTES
"""Of all files that are read together."""


Progress = Callable[[int, int], None]
"""Told how much is read and how much there is, in bytes as far as sizes are known; equal at the end."""


def load_documents(
    paths: Iterable[str | os.PathLike[str]], progress: Progress = lambda done, whole: None
) -> list[Resource]:
    """The resources of all files, in the order of the paths; folders sorted by name.

    Raises `LoadError` with the problems of all files.
    """
    return read_documents(paths, progress).result()


def read_documents(
    paths: Iterable[str | os.PathLike[str]],
    progress: Progress = lambda done, whole: None,
    *,
    is_followed: bool = False,
) -> Loading:
    """As `load_documents`, but with all that was met: resources, problems, notices, refused documents too."""
    loading = Loading()
    for file, done in in_turn(all_files(paths), progress):
        _read(loading, file, done, is_followed)
    return loading


def in_turn(files: Iterable[str], progress: Progress) -> Iterator[tuple[str, Callable[[int], None]]]:
    """Each file, with whom to tell how many of its characters are read."""
    # A file counts one byte more than it has, so that all is read only after the last, be it empty or a pipe.
    sizes = {file: _size(file) + 1 for file in files}
    whole, before = sum(sizes.values()), 0
    with without_collection():
        for file, size in sizes.items():
            progress(before, whole)
            yield file, partial(_within, progress, before, size - 1, whole)
            before += size
    progress(whole, whole)


def _within(progress: Progress, before: int, size: int, whole: int, done: int) -> None:
    progress(before + min(done, size), whole)


Unread = Callable[[str], None]
"""Told of a file in a folder that is not read, and would be by a name in lower case."""


def misnamed(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Warnings of files in folders that are not read, as their names end in another case."""
    found: list[str] = []
    for _ in all_files(paths, found.append):
        pass
    return [not_read(file) for file in dict.fromkeys(found)]


def not_read(file: str) -> str:
    """The warning of such a file.

    >>> not_read("policies/WEB.YAML")
    'not read: policies/WEB.YAML; names end in .yaml, .yml or .json'
    """
    return f"not read: {printable(file)}; names end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def all_files(paths: Iterable[str | os.PathLike[str]], unread: Unread = lambda file: None) -> Iterator[str]:
    """Every file, once, by the name that it is first met by.

    Raises:
        LoadError: they are too large for all to be read, or a folder holds too much.
    """
    seen: set[str] = set()
    folders: dict[str, str] = {}
    whole = 0
    for given in paths:
        path = os.fspath(given)
        for file in [path] if path == STDIN else policy_files(path, unread):
            if (real := _real(file, folders)) in seen:
                continue
            seen.add(real)
            # One alone that is too large is refused by its own name.
            whole += min(_size(file), MOST_BYTES)
            if whole > (most := MOST_BYTES_IN_ALL):
                raise refusal(Wrong("files-large", f"more than {most} bytes", most=most), path)
            yield file


def _real(file: str, folders: dict[str, str]) -> str:
    """`os.path.realpath`, with each folder looked at once."""
    if os.path.islink(file):
        return os.path.realpath(file)
    folder, name = os.path.split(file)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def _size(file: str) -> int:
    try:
        return 0 if file == STDIN else os.path.getsize(file)
    except OSError:
        return 0


@contextmanager
def without_collection() -> Iterator[None]:
    """What is read lives on: looking for garbage meanwhile finds none, and takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def policy_files(path: str, unread: Unread = lambda file: None) -> Iterator[str]:
    """The file itself, or the files of a folder and its folders, sorted; links are followed.

    A pipe would never end. A link to nowhere is told of, and one that cannot be followed whatever its name:
    policies may be behind it.

    Raises:
        LoadError: the folder holds too much, see `walk`.
    """
    if not os.path.isdir(path):
        yield path
        return
    for file, kind, *_ in walk(path):
        is_named = kind in (Kind.FILE, Kind.NOWHERE) and file.endswith(SUFFIXES)
        if is_named or kind is Kind.UNREADABLE:  # Reading it as a file tells why.
            yield file
        elif kind is Kind.FILE and file.lower().endswith(SUFFIXES):
            unread(file)


def _read(loading: Loading, file: str, progress: Callable[[int], None], is_followed: bool) -> None:
    content = read_file(file, is_followed=is_followed)
    file = file_name(file)
    if isinstance(content, bytes):
        loading.add(content, file, progress)
    else:
        loading.add_unreadable(content, file)


def read_file(file: str, *, is_followed: bool = False) -> bytes | Wrong:
    """What a file or standard input holds, or why that cannot be read; one followed must be regular."""
    try:
        if file == STDIN:
            return read_bounded(sys.stdin.buffer, file)
        if is_followed:
            return read_regular(file)
        with open(file, "rb") as opened:
            return read_bounded(opened, file)
    except OSError as error:
        return unreadable(error)


def file_name(file: str) -> str:
    """Its name in places and messages."""
    return "<stdin>" if file == STDIN else file


def unreadable(error: OSError) -> Wrong:
    """Why a file cannot be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Wrong("file-missing", "nothing there")
    why = error.strerror or "an error of the system"
    if error.errno == errno.EFBIG:
        return Wrong("file-large", why, most=MOST_BYTES)
    return Wrong("file-unreadable", why)
