"""The control socket: a local stream socket, one JSON object per line in, one per line out.

A request is `{"version": 1, "verb": "status"}` with the arguments of the verb beside; its answer is
`{"version": 1, "result": {...}}` or `{"version": 1, "error": {"code": "...", "message": "..."}}`. Several
requests may follow on one connection; they are answered in order. The permissions of the socket's file say
who may ask (the owner); nothing listens on the network.
"""

from labelgate.control.client import ANSWER_SECONDS, NoDaemon, ask
from labelgate.control.protocol import (
    MOST_TRIAL_SECONDS,
    VERSION,
    ControlError,
    is_elsewhere,
    network_namespace,
)
from labelgate.control.server import ControlServer, Verb

__all__ = [
    "ANSWER_SECONDS",
    "MOST_TRIAL_SECONDS",
    "VERSION",
    "ControlError",
    "ControlServer",
    "NoDaemon",
    "Verb",
    "ask",
    "is_elsewhere",
    "network_namespace",
]
