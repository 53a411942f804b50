"""Who would be locked out: live sessions and what a host needs, judged before a change is made."""

from labelgate.lockout.check import Finding, LockOutError, findings, is_ssh_exempt
from labelgate.lockout.flows import Flow
from labelgate.lockout.host import Host
from labelgate.lockout.sessions import open_sessions
from labelgate.lockout.tracked import forget_connections, read_connections

__all__ = [
    "Finding",
    "Flow",
    "Host",
    "LockOutError",
    "findings",
    "forget_connections",
    "is_ssh_exempt",
    "open_sessions",
    "read_connections",
]
