"""Resources from files, folders and standard input."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from labelgate.resources import Loading, Resource
from labelgate.resources.errors import Wrong

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


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
    paths: Iterable[str | os.PathLike[str]], progress: Progress = lambda done, whole: None
) -> Loading:
    """As `load_documents`, but with all that was met: resources, problems, notices, refused documents too."""
    loading = Loading()
    # A file counts one byte more than it has, so that all is read only after the last, be it empty or a pipe.
    sizes = {file: _size(file) + 1 for file in _files(paths)}
    whole, before = sum(sizes.values()), 0
    with _without_collection():
        for file, size in sizes.items():
            progress(before, whole)
            _read(loading, file, partial(_within, progress, before, size - 1, whole))
            before += size
    progress(whole, whole)
    return loading


def _within(progress: Progress, before: int, size: int, whole: int, done: int) -> None:
    progress(before + min(done, size), whole)


def _files(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Every file, once, by the name that it is first met by."""
    seen: set[str] = set()
    for given in paths:
        path = os.fspath(given)
        for file in [path] if path == STDIN else policy_files(path):
            if (real := os.path.realpath(file)) not in seen:
                seen.add(real)
                yield file


def _size(file: str) -> int:
    try:
        return 0 if file == STDIN else os.path.getsize(file)
    except OSError:
        return 0


@contextmanager
def _without_collection() -> Iterator[None]:
    """What is read lives on: looking for garbage in between finds none, and takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def policy_files(path: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """The file itself, or the files of a folder and its folders, sorted; links are followed.

    Names that begin with a dot are left out: Kubernetes mounts a ConfigMap as links into such a folder. A
    link to one of the folders `above` would never end.
    """
    if not os.path.isdir(path):
        yield path
        return
    here = above | {os.path.realpath(path)}
    for entry in sorted(os.listdir(path)):
        inner = os.path.join(path, entry)
        if entry.startswith("."):
            continue
        if os.path.isdir(inner):
            if os.path.realpath(inner) not in here:
                yield from policy_files(inner, here)
        elif entry.endswith(SUFFIXES):
            yield inner


def _read(loading: Loading, file: str, progress: Callable[[int], None]) -> None:
    if file == STDIN:
        loading.add(sys.stdin.buffer.read(), "<stdin>", progress)
        return
    if not os.path.exists(file):
        loading.add_unreadable(Wrong("file-missing", "nothing there"), file)
        return
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        loading.add_unreadable(Wrong("file-unreadable", error.strerror or "an error of the system"), file)
    else:
        loading.add(content, file, progress)
