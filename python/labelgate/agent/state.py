"""What outlives the daemon: the policy that was last in force, and one that is on trial.

One file, replaced as a whole (written beside, synced, renamed, the folder synced), with a version and a
checksum: after a crash at any point it is the old one or the new one. Who holds the folder's lock writes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from labelgate.regular import open_regular

VERSION = 1
FILE = "policy.json"
_HEADER_BYTES = 1024
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
T = TypeVar("T")


class StateError(Exception):
    """The state cannot be read or written; says where and why."""


def decoded(content: bytes) -> str:
    """Any bytes as text for JSON."""
    return content.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """The bytes again; ValueError where no bytes have this text."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Source:
    """Where a policy is from, and its texts."""

    paths: tuple[str, ...]
    """As they were given to `labelgate run`, or to `labelgate apply`."""
    is_applied: bool
    texts: tuple[tuple[str, bytes], ...] = field(repr=False)
    """File names and what the files held."""
    files: str
    """Digest of the files that the daemon follows, as they were then: if they change, they have the word."""
    config: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The configuration that it was in force with: `kept_texts`. Says nothing of where the policy is from."""
    is_lasting: bool = field(default=False, compare=False)
    """Kept by a daemon that starts with what was good, not by one that somebody has tried by hand."""

    def to_json(self) -> dict[str, Any]:
        """Any bytes come back as they were."""
        texts = [[name, decoded(content)] for name, content in self.texts]
        return {
            "paths": self.paths,
            "applied": self.is_applied,
            "texts": texts,
            "files": self.files,
            "config": dict(self.config),
            "lasting": self.is_lasting,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """KeyError, TypeError, ValueError or AttributeError if it is none."""
        texts = ((str(name), encoded(text)) for name, text in value["texts"])
        paths = tuple(map(str, value["paths"]))
        # What wrote it may have kept no configuration.
        config = {str(key): str(text) for key, text in value.get("config", {}).items()}
        is_applied, is_lasting = bool(value["applied"]), bool(value.get("lasting", False))
        return cls(paths, is_applied, tuple(texts), str(value["files"]), config, is_lasting)


@dataclass(frozen=True)
class Record:
    """What the file holds."""

    confirmed: Source
    """In force, or to be in force again after the trial."""
    trial: Source | None = None
    """In force until it is confirmed, or rolled back."""
    refused: str = ""
    """Digest of files that the lock-out check refused; a restart must not put them in force."""


class State:
    """The folder of one daemon."""

    def __init__(self, folder: str) -> None:
        """Makes the folder if need be and locks it.

        Raises:
            StateError: it cannot be made, written or locked, or others may write there.
        """
        self._folder = Path(folder)
        self._file = self._folder / FILE
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_others(self._folder)
            self._lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDONLY | _FLAGS, 0o600)
        except OSError as error:
            raise StateError(f"{folder}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateError(f"{folder}: another daemon keeps its state there") from None

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> Record | None:
        """What was written last; None if nothing was.

        Raises:
            StateError: it is damaged, or of a later version. It has been set aside under another name.
        """
        return read_whole(self._file, _decoded)

    def write(self, record: Record) -> None:
        """All or nothing.

        Raises:
            StateError: what was there is there still.
        """
        write_whole(self._file, _encoded(record))


def peek(folder: str) -> Record | None:
    """What another daemon keeps there, without its lock and without a change; None if that is nothing.

    Raises:
        StateError: it is damaged, or of a later version, or others may write there.
    """
    file = Path(folder) / FILE
    if not os.path.lexists(folder):
        return None
    refuse_others(file.parent)  # Whatever they have put there is not even opened.
    content = _content(file)
    try:
        return None if content is None else _decoded(content)
    except StateError as error:
        raise StateError(f"{file}: {error}") from None


def read_whole(file: Path, decode: Callable[[bytes], T]) -> T | None:
    """What a file holds that nobody else writes now; None if there is none.

    Raises:
        StateError: it cannot be read; or `decode` says so, and it has been set aside under another name.
    """
    content = _content(file)
    try:
        return None if content is None else decode(content)
    except StateError as error:
        aside = file.with_suffix(".damaged")
        with suppress(OSError):
            file.replace(aside)
        raise StateError(f"{file}: {error}; set aside as {aside.name}") from None


def write_whole(file: Path, content: bytes) -> None:
    """Replaces a file that nobody else writes now: all or nothing.

    Raises:
        StateError: what was there is there still.
    """
    fresh = file.with_suffix(".new")
    try:
        with _synced(fresh) as descriptor:
            _write_all(descriptor, content)
        fresh.replace(file)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise StateError(f"{file} cannot be written: {error.strerror}") from None
    # The new one is there for everybody; that it is there after a power cut, too, is a matter of effort.
    with suppress(OSError), _synced(file.parent.resolve(), os.O_RDONLY | os.O_DIRECTORY):
        pass


def framed(value: Any, version: int) -> bytes:
    """A value with its version and a checksum."""
    body = json.dumps(value).encode()
    header = {"version": version, "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(header).encode() + b"\n" + body


def unframed(content: bytes, version: int) -> Any:
    """The value again; StateError where it is damaged, or of another version."""
    header, _, body = content.partition(b"\n")
    try:
        words = json.loads(header[:_HEADER_BYTES])
        found, digest = words["version"], words["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StateError("is damaged (no header)") from None
    if found != version:
        raise StateError(f"has version {found!r}, expected {version}")
    if hashlib.sha256(body).hexdigest() != digest:
        raise StateError("is damaged (the checksum differs)")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise damaged() from None


def damaged() -> StateError:
    """Of a value that has the right checksum."""
    return StateError("is damaged (its content is not what this version writes)")


def refuse_others(folder: Path) -> None:
    """Who may write there says what is in force: StateError unless only we may."""
    try:
        found = folder.stat()
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}") from None
    if found.st_uid != os.geteuid():
        raise StateError(f"{folder}: belongs to user {found.st_uid}, not to the one that labelgate runs as")
    if found.st_mode & 0o022:
        raise StateError(f"{folder}: others may write there (mode {found.st_mode & 0o777:o}, expected 700)")


def _content(file: Path) -> bytes | None:
    try:
        with open_regular(str(file)) as opened:
            return opened.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{file}: {error.strerror}") from None


@contextmanager
def _synced(path: Path, flags: int = os.O_CREAT | os.O_TRUNC | os.O_WRONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | _FLAGS, 0o600)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _encoded(record: Record) -> bytes:
    trial = record.trial and record.trial.to_json()
    fields = {"confirmed": record.confirmed.to_json(), "trial": trial, "refused": record.refused}
    return framed(fields, VERSION)


def _decoded(content: bytes) -> Record:
    value = unframed(content, VERSION)
    try:
        trial = value["trial"]
        confirmed, refused = Source.from_json(value["confirmed"]), str(value.get("refused", ""))
        return Record(confirmed, trial and Source.from_json(trial), refused)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged() from None
