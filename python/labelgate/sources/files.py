"""Resources from files, folders and standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from labelgate.resources import Loading, Resource
from labelgate.resources.errors import Wrong

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


def load_documents(paths: Iterable[str | os.PathLike[str]]) -> list[Resource]:
    """The resources of all files, in the order of the paths; folders sorted by name.

    Raises `LoadError` with the problems of all files.
    """
    return read_documents(paths).result()


def read_documents(paths: Iterable[str | os.PathLike[str]]) -> Loading:
    """As `load_documents`, but with all that was met: resources, problems, notices, refused documents too."""
    loading = Loading()
    seen: set[str] = set()
    for given in paths:
        path = os.fspath(given)
        if path == STDIN:
            loading.add(sys.stdin.buffer.read(), "<stdin>")
        elif not os.path.exists(path):
            loading.add_unreadable(Wrong("file-missing", "nothing there"), path)
        else:
            for file in policy_files(path):
                if (real := os.path.realpath(file)) not in seen:
                    seen.add(real)
                    _read(loading, file)
    return loading


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


def _read(loading: Loading, file: str) -> None:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        loading.add_unreadable(Wrong("file-unreadable", error.strerror or "an error of the system"), file)
    else:
        loading.add(content, file)
