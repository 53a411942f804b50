"""Runs a command under the system call filter of a systemd unit: `seccomp.py SET[,SET...] COMMAND...`.

As SystemCallFilter= does it, but stricter: what the unit answers with EPERM ends the process here, so that
no call outside of the sets goes unnoticed, not even one that nobody would miss.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import subprocess
import sys
from collections.abc import Iterable

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000  # linux/seccomp.h
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_NUMBER, _ARCH = 0, 4  # struct seccomp_data
_SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _MODE_FILTER = 22, 38, 2


def members(sets: Iterable[str]) -> set[str]:
    """Names of the calls in sets such as @system-service, as systemd resolves them."""
    wanted, found = list(sets), set[str]()
    while wanted:
        name = wanted.pop()
        if not name.startswith("@"):
            found.add(name)
            continue
        listed = subprocess.run(
            ["systemd-analyze", "--no-pager", "syscall-filter", name],
            capture_output=True,
            text=True,
            check=True,
        )
        wanted += re.findall(r"^    (@?[a-z0-9_-]+)$", listed.stdout, re.MULTILINE)
    return found


def numbers() -> dict[str, int]:
    """All calls of this machine, as the kernel's headers number them."""
    dumped = subprocess.run(
        ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", dumped.stdout, re.M)
    }


def program(allowed: Iterable[int]) -> bytes:
    """Allows these calls of this machine's own kind; anything else ends the process."""
    steps = [
        (_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, _AUDIT_ARCH[platform.machine()]), (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]  # fmt: skip
    for number in allowed:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in [*steps, (_RETURN, 0, 0, _KILL_PROCESS)])


def confine(sets: Iterable[str]) -> None:
    """From here on, for this process and all that it starts."""
    known = numbers()
    code = program(sorted(known[name] for name in members(sets) if name in known))
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, arguments in (
        (_SET_NO_NEW_PRIVILEGES, (1, None)),
        (_SET_SECCOMP, (_MODE_FILTER, filter_program)),
    ):
        if libc.prctl(option, *arguments, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    confine(sys.argv[1].split(","))
    os.execv(sys.argv[2], sys.argv[2:])
