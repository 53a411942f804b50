"""Whether the daemon of the unit can read what it is told to: it is root without the right to read all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from labelgate.doctor.diagnosis import Diagnosis, some

HOMES = ("/home", "/root", "/run/user")
"""ProtectHome= hides them."""
TEMPORARY = ("/tmp", "/var/tmp")
"""PrivateTmp= puts others in their place."""
MOST_FILES = 100_000


def installation() -> tuple[str, ...]:
    """What the unit runs: Python, what it is behind links, and where its modules and ours are."""
    package = str(Path(__file__).parents[1])
    return (sys.executable, os.path.realpath(sys.executable), sys.base_prefix, package)


def is_at_home(places: Iterable[str]) -> bool:
    """Whether somebody's home holds one of them: the unit then has to see it."""
    return any(
        Path(seen).is_relative_to(home)
        for place in places
        for seen in (place, os.path.realpath(place))
        for home in HOMES
    )


def unreadable(places: Iterable[str]) -> list[str]:
    """What of an installation the daemon of the unit cannot read, and why."""
    return list(dict.fromkeys(why for place in places for why in _why_not(place, TEMPORARY)))


def program() -> Diagnosis:
    """Whether the unit could be started."""
    if not (found := unreadable(installation())):
        return Diagnosis("program", "ok", f"the unit can run {sys.executable}")
    return Diagnosis(
        "program", "warning", some(found),
        "the daemon of the systemd unit cannot be started: it has no CAP_DAC_OVERRIDE, and a /tmp of its own",
        "install labelgate, with a Python that everybody may read, under /opt or /usr/local",
    )  # fmt: skip


def files(paths: Iterable[str]) -> Iterator[Diagnosis]:
    """The configuration file and the policies of the configuration, with all that is in folders."""
    paths = list(paths)
    found = list(dict.fromkeys(_in_the_way(paths)))
    if not paths:
        yield Diagnosis(
            "files", "note", "none was looked at: no --config is given, and no `policies` are set",
            "what the daemon is to read is not known", "labelgate doctor --config /etc/labelgate/config.yaml",
        )  # fmt: skip
        return
    if not found:
        yield Diagnosis("files", "ok", "the unit can read configuration and policies")
        return
    yield Diagnosis(
        "files", "warning", some(found),
        "the daemon of the systemd unit cannot read it: it has no CAP_DAC_OVERRIDE, and a view of its own",
        "have root own it or let others read it, and keep it in /etc/labelgate",
    )  # fmt: skip


def event_file(path: str | None) -> Iterator[Diagnosis]:
    """What stands in the way of `events.file`, if there is to be one."""
    if path is None:
        return
    if (why := _why_unwritten(Path(path))) is None:
        yield Diagnosis("events.file", "ok", f"root can write {path}, where no unit hides it")
        return
    yield Diagnosis(
        "events.file", "warning", f"{path} {why}", "what is denied is told to who asks, but not kept",
        "make its folder and room for it, or name another file: it is tried again with each event",
    )  # fmt: skip


def _why_unwritten(file: Path) -> str | None:
    if file.is_symlink():
        return "is a link"
    if file.is_dir():
        return "is a folder"
    place = file if file.exists() else file.parent
    if not place.is_dir() and place != file:
        return f"has no folder {place}"
    if not os.access(place, os.W_OK):
        return "cannot be written"
    room = os.statvfs(place)
    return "is on a disk that is full" if room.f_blocks and not room.f_bfree else None


def _in_the_way(paths: Iterable[str]) -> Iterator[str]:
    hidden = TEMPORARY if is_at_home(installation()) else (*HOMES, *TEMPORARY)
    for path in paths:
        for number, file in enumerate(_all(path)):
            if number >= MOST_FILES:
                break
            yield from _why_not(file, hidden)


def _all(path: str) -> Iterator[str]:
    yield path
    for folder, folders, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *names))


def _why_not(file: str, hidden: Iterable[str]) -> Iterator[str]:
    """Behind links, as the kernel goes."""
    real = Path(os.path.realpath(file))
    for folder in hidden:
        if real.is_relative_to(folder):
            yield f"{file} is in {folder}, which the unit does not see"
            return
    for place in [*reversed(real.parents), real]:
        try:
            mode = place.stat()
        except OSError as error:
            yield f"{place}: {error.strerror}"
            return
        is_last = place == real
        if not _may(mode, 0o5 if is_last and stat.S_ISDIR(mode.st_mode) else 0o4 if is_last else 0o1):
            yield f"{place} (owner {mode.st_uid}, mode {stat.S_IMODE(mode.st_mode):o})"
            return


def _may(found: os.stat_result, bits: int) -> bool:
    """Whether root may without CAP_DAC_OVERRIDE: as owner, as group, or as everybody."""
    shift = 6 if found.st_uid == 0 else 3 if found.st_gid == 0 else 0
    return found.st_mode >> shift & bits == bits
