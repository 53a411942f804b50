"""Who would be locked out: live sessions and what a host needs, judged before a change is made."""

from labelgate.lockout.check import Finding, LockOutError, findings, is_ssh_exempt
from labelgate.lockout.flows import Flow, Host, delete_flows, open_sessions, read_flows
from labelgate.lockout.judge import denial

__all__ = [
    "Finding",
    "Flow",
    "Host",
    "LockOutError",
    "delete_flows",
    "denial",
    "findings",
    "is_ssh_exempt",
    "open_sessions",
    "read_flows",
]
