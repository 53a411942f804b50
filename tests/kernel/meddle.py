"""`labelgate`, broken from within on SIGUSR2: `meddle.py HOW labelgate-arguments`."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator

from labelgate.cli import cli
from labelgate.netfilter.watch import RuleWatch

_NETLINK_NETFILTER = 12
_SO_PROTOCOL = 38
NEVER = 1e9
KEPT: list[socket.socket] = []


def queue_sockets() -> Iterator[int]:
    """Sockets to nfnetlink that hear no group: those of the queues."""
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            is_one = _is_queue_socket(number)
        except OSError:
            continue  # Closed meanwhile, as the list of the folder itself is.
        if is_one:
            yield number


def _is_queue_socket(number: int) -> bool:
    # A copy of a pipe that stays open would keep a program that is being started waiting for its end.
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return False
    with socket.socket(fileno=os.dup(number)) as one:
        protocol = one.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
        is_netfilter = one.family == socket.AF_NETLINK and protocol == _NETLINK_NETFILTER
        is_unheard: bool = is_netfilter and one.getsockname()[1] == 0
        return is_unheard


def shrink() -> None:
    """Room for a few packets in each socket: the kernel says ENOBUFS when it has more."""
    for number in queue_sockets():
        with socket.socket(fileno=os.dup(number)) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def replace() -> None:
    """In the place of each socket something that packets cannot be read from."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    for number in queue_sockets():
        os.dup2(nothing, number)


def lose() -> None:
    """In the place of the first socket one that never has anything: its queue is not bound any more."""
    silent, _other = socket.socketpair()
    os.dup2(silent.fileno(), next(queue_sockets()))
    KEPT.extend((silent, _other))


def blind() -> None:
    """Only events, or what stands for them, lead to a look at the rules."""
    RuleWatch.EVERY = NEVER


HOW = {"shrink": shrink, "replace": replace, "lose": lose}

if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "blind":
        blind()
    else:
        signal.signal(signal.SIGUSR2, lambda *_: HOW[how]())
    cli()
