"""One daemon per network namespace, and how it is replaced by another one without losing a packet.

```
 successor                                          daemon in force
 loads, compiles
 connects              ---------------------------> stops putting its rules back; READY, its mark bits
 binds other queues, swaps the rules to them
 DONE                  ---------------------------> answers what its queues still hold, ends
 is the daemon now     <--- end of connection ----- (its rules stay: they are the successor's)
```

If the connection ends before DONE, or DONE does not come in time, the successor has failed: the daemon looks
after its rules again, at once. Behind DONE the successor only waits, as nobody else is left. A daemon with a
policy on trial says BUSY: what comes into force next is for the trial to say. A successor with other mark
bits goes away: packets that come from a table of the one to one of the other would lose what they carry.

Who holds the lock of a file named by the network namespace is its daemon. The kernel lets go of it when the
process ends, however it ends; file, socket and folder are root's alone: nobody else can be in the way. A
daemon that does not see that file, in a container with another /run, is kept away by a name (`claim`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from labelgate.agent.claim import Claim, holder
from labelgate.agent.generation import AgentError
from labelgate.agent.process import wait_readable

FOLDER = Path("/run/labelgate")
"""The same whatever `socket` says: two daemons of one network namespace must meet here."""
READY, DONE, BUSY = b"r", b"d", b"b"
_MASK_BYTES = 4
SECONDS = 30.0
"""For the other side to answer; behind DONE, between warnings."""
PENDING_SECONDS = 90.0
"""For a successor to come into force."""
OUTCOME_SECONDS = 10.0
"""For a successor to come into force, or to fail, where the daemon is told to stop meanwhile."""
LOCK_SECONDS = 5.0
"""For the lock to be free when the daemon before has ended."""
CLAIM_SECONDS = 0.5
"""For the claim to be free, where the lock is."""
DEAF_SECONDS = 1.0
"""How long nobody is let in where that has failed: with no descriptor left it would fail again and again."""


class Presence:
    """Being the daemon of a network namespace: two would overwrite each other's chains."""

    def __init__(self, say: Callable[[str], None], *, replace: bool = False) -> None:
        """AgentError where another one is, unless it is to be replaced.

        Where that cannot be told it is said, and policy is enforced all the same: two daemons are then kept
        apart by their queue numbers.
        """
        self._say = say
        self._place: _Place | None = None
        self._claim: Claim | None = None
        self._predecessor: socket.socket | None = None
        self._successor: socket.socket | None = None
        self._mask = 0
        """Of our mark bits."""
        self._since = 0.0
        """When the successor came."""
        self._deaf_until = 0.0
        self.replaces = False
        """Another daemon is still in force."""
        try:
            self._place = _take()
        except BlockingIOError:
            if not replace:
                raise AgentError(
                    "labelgate is running already in this network namespace; --replace takes its place"
                ) from None
            self.replaces = True
        except OSError as error:
            say(
                f"warning: whether another labelgate runs here cannot be told: {FOLDER}: {error.strerror}; "
                "this one cannot be replaced"
            )
        if not self.replaces:
            try:
                self._claim_namespace(CLAIM_SECONDS)
            except BaseException:
                self.close()
                raise

    def _claim_namespace(self, patience: float) -> None:
        """AgentError where another daemon has, whose lock is not seen.

        One that ends is waited for so many seconds: its lock may be free a moment before its claim.
        """
        until = time.monotonic() + patience
        while self._claim is None:
            try:
                self._claim = Claim(os.fsencode(FOLDER))
            except BlockingIOError:
                if time.monotonic() > until:
                    raise AgentError(
                        "another labelgate runs in this network namespace, and its lock is not seen from "
                        f"here (a container with another {FOLDER}?): stop it first, or share that folder"
                    ) from None
                time.sleep(0.05)
            except OSError as error:
                self._say(
                    f"warning: whether a labelgate with another {FOLDER} runs here cannot be told: "
                    f"{error.strerror}"
                )
                return

    def announce(self, mask: int) -> None:
        """Before the first change, all else being ready: the daemon in force stops to look after its rules.

        `mask` is that of our mark bits.

        Raises:
            AgentError: it does not answer, or not now; or it has other mark bits.
        """
        self._mask = mask
        if not self.replaces:
            return
        self._predecessor = _connect()
        answer = self._predecessor_says(1 + _MASK_BYTES)
        said, theirs = answer[:1], int.from_bytes(answer[1:]) or mask  # One of before tells no bits.
        if said == BUSY:
            raise AgentError(
                "the daemon in force has a policy on trial: `labelgate confirm` or `rollback` first"
            )
        if said != READY:
            raise AgentError("the daemon in force does not want to be replaced")
        if theirs != mask:
            raise AgentError(
                f"marks.mask: found {mask:#x}, expected {theirs:#x} as the daemon in force has it; with "
                "others packets would be lost: stop that one first (systemctl restart labelgate)"
            )

    def take_over(self) -> None:
        """Behind the last change: waits until the daemon before this one has ended, and takes its place.

        Raises:
            AgentError: a third one has.
        """
        if self._predecessor is None:
            return
        with suppress(OSError):  # It has ended by itself.
            self._predecessor.sendall(DONE)
        while self._predecessor_says() != b"":
            self._say("warning: the daemon that is replaced has not ended yet; waiting")
        self._predecessor.close()
        self._predecessor = None
        self._place = _take_soon()
        self._claim_namespace(LOCK_SECONDS)
        self.replaces = False

    def _predecessor_says(self, most: int = 1) -> bytes:
        """READY, with its mark bits, or BUSY; nothing when it has ended, `?` where it says nothing."""
        assert self._predecessor is not None
        try:
            return self._predecessor.recv(most)
        except TimeoutError:
            return b"?"
        except OSError:
            return b""

    @property
    def descriptors(self) -> list[int]:
        """Readable when `is_replaced` is to be asked."""
        if self._successor is not None:
            return [self._successor.fileno()]
        if self._place is None or time.monotonic() < self._deaf_until:
            return []
        return [self._place.listener.fileno()]

    @property
    def is_pending(self) -> bool:
        """A successor is at work: the rules are not ours to put back."""
        return self._successor is not None

    def is_succeeded(self) -> bool:
        """Waits for what becomes of a successor; whether it is in force, or may be."""
        until = time.monotonic() + OUTCOME_SECONDS
        while self.is_pending and time.monotonic() < until:
            if self.is_replaced():
                return True
            time.sleep(0.05)
        return self.is_pending

    def is_replaced(self, *, is_busy: bool = False) -> bool:
        """Whether a successor is in force; does not block. While `is_busy` none is let in."""
        if self._claim is not None:
            self._claim.let_go_of_askers()
        if self._successor is None:
            self._accept(is_busy=is_busy)
        if self._successor is None:
            return False
        is_late = time.monotonic() - self._since > PENDING_SECONDS
        if not wait_readable([self._successor.fileno()], 0) and not is_late:
            return False
        try:
            said = self._successor.recv(1)
        except OSError:
            said = b""
        if said != DONE:
            self._successor.close()
            self._successor = None
            late = " in time" if is_late else ""
            self._say(f"warning: the labelgate that was to replace this one did not come into force{late}")
        return said == DONE

    def _accept(self, *, is_busy: bool) -> None:
        if self._place is None:
            return
        try:
            connection, _ = self._place.listener.accept()
        except BlockingIOError:
            return
        except OSError:
            self._deaf_until = time.monotonic() + DEAF_SECONDS
            return
        connection.setblocking(False)
        try:
            connection.send(BUSY if is_busy else READY + self._mask.to_bytes(_MASK_BYTES))
            if not is_busy:
                self._successor, self._since = connection, time.monotonic()
                return
        except OSError:  # It has given up.
            pass
        connection.close()

    def close(self) -> None:
        """Tells a successor that this one has ended, and frees its place."""
        # The place first: who is told finds it free.
        for opened in (self._claim, self._place, self._successor, self._predecessor):
            if opened is not None:
                opened.close()
        self._claim = self._place = self._successor = self._predecessor = (
            None  # The next one's is not ours to free.
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Place:
    """The lock of this network namespace, and where a successor knocks."""

    def __init__(self, lock: int, socket_path: Path) -> None:
        """Of a lock that is held; OSError if nobody can be listened to."""
        self._lock, self._socket_path = lock, socket_path
        with suppress(FileNotFoundError):
            socket_path.unlink()  # Of a daemon that was killed: its lock is ours.
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(self.listener.fileno(), 0o600)  # The file has it from its first moment on.
            self.listener.bind(str(socket_path))
            self.listener.listen(1)
            self.listener.setblocking(False)
        except BaseException:
            self.listener.close()
            raise

    def close(self) -> None:
        """Lets the next one in."""
        with suppress(OSError):
            self._socket_path.unlink()
        with suppress(OSError):
            self._socket_path.with_suffix(".lock").unlink()
        self.listener.close()
        os.close(self._lock)


def running() -> int | None:
    """The process id of the daemon of the calling thread's network namespace, 0 if it cannot be told."""
    process = holder(os.fsencode(FOLDER))
    return 0 if process is None and _is_locked() else process


def _is_locked() -> bool:
    """Whether a daemon has the lock, as far as that can be seen: anybody may have taken its name."""
    try:
        _refuse_others()
        lock = os.open(socket_path().with_suffix(".lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def socket_path() -> Path:
    """Where the daemon of the calling thread's network namespace listens; its lock lies beside it."""
    return FOLDER / f"netns-{os.stat('/proc/thread-self/ns/net').st_ino}.sock"


def _take() -> _Place:
    """BlockingIOError if another daemon is there; another OSError if that cannot be told."""
    path = socket_path()
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    _refuse_others()
    lock = _locked(path.with_suffix(".lock"))
    try:
        return _Place(lock, path)
    except BaseException:
        os.close(lock)
        raise


def _refuse_others() -> None:
    """Who may write to the folder has every lock in it: PermissionError unless only we may."""
    found = FOLDER.stat()
    if found.st_uid != os.geteuid():
        owner = f"belongs to user {found.st_uid}, not to the one that labelgate runs as"
        raise PermissionError(errno.EPERM, owner)
    if found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others may write there")


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of the file of this name; BlockingIOError if somebody else does."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before may have taken the name away meanwhile: then another file has it by now.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path, follow_symlinks=False)):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _take_soon() -> _Place:
    """The daemon before may be seen to end a moment before its lock is free."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return _take()
        except BlockingIOError:
            if time.monotonic() > until:
                raise AgentError("another daemon was started at the same time") from None
            time.sleep(0.05)
        except OSError as error:
            raise AgentError(f"the lock of the daemon before cannot be had: {error.strerror}") from None


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    try:
        connection.connect(str(socket_path()))
    except OSError as error:
        connection.close()
        raise AgentError(f"the daemon in force cannot be asked to be replaced: {error.strerror}") from None
    return connection
