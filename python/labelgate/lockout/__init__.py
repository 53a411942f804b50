"""Who would be locked out: live sessions and what a host needs, judged before a change is made."""

from labelgate.lockout.check import Finding, LockOutError, findings
from labelgate.lockout.flows import Flow, Host, delete_flow, open_sessions, read_flows
from labelgate.lockout.judge import denial

__all__ = [
    "Finding",
    "Flow",
    "Host",
    "LockOutError",
    "delete_flow",
    "denial",
    "findings",
    "open_sessions",
    "read_flows",
]
