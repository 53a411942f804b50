"""The file that events are appended to, a JSON line each."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class EventFile:
    """For one thread alone: a disk that does not answer holds it up."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._is_torn = False
        """The last line has no end."""

    def write(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Appends them; where the file was moved away or removed (logrotate), to a new one.

        Raises:
            OSError: it cannot be opened or written.
        """
        self._follow()
        text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode()
        if text and self._is_torn:
            text = b"\n" + text
        while text:
            written = os.write(self._descriptor, text)
            self._is_torn = text[written - 1 : written] != b"\n"
            text = text[written:]

    def _follow(self) -> None:
        if self._descriptor >= 0:
            try:
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path, follow_symlinks=False)):
                    return
            except FileNotFoundError:
                pass
            self.close()
        try:
            self._descriptor = os.open(self._path, _FLAGS, 0o640)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "is a link; name the file itself") from None
            raise
        self._is_torn = self._found_torn()

    def _found_torn(self) -> bool:
        """Whether the last line of the file lacks its end: somebody before could not write all of it."""
        end = os.fstat(self._descriptor).st_size
        if not end:
            return False
        with suppress(OSError), open(f"/proc/self/fd/{self._descriptor}", "rb", buffering=0) as file:
            return os.pread(file.fileno(), 1, end - 1) != b"\n"
        return False

    def close(self) -> None:
        """Until the next event."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
