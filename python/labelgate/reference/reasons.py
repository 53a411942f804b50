"""Why a step ended as it did: a short phrase with the rule id, and the action where the reason tells it."""

from __future__ import annotations

from enum import Enum

from labelgate.flow import Action


class Reason(Enum):
    """The reasons of a trace; the value is (action, text)."""

    RULE_ALLOW = ("Allow", "rule (M-50)")
    RULE_DENY = ("Deny", "rule (M-51)")
    RULE_PASS = ("Pass", "rule (M-52)")
    RULE_LOG = ("Log", "rule (M-53)")
    PROFILE_RULE = (None, "profile rule (M-54)")
    MISSING_PROFILE = ("Deny", "missing profile (R-29)")
    NO_PROFILE_ALLOWS = ("Deny", "no profile allows (E-25)")
    END_OF_TIER = ("Deny", "end of tier (E-21)")
    END_OF_TIER_PASS = ("Pass", "end of tier, action Pass (E-21)")
    END_OF_TIER_STAGED = ("Pass", "end of tier, all staged (E-23)")
    NO_RULE_MATCHED = (None, "no rule decided (E-22)")
    NO_FORWARD_POLICY = ("Allow", "no applyOnForward policy (E-52)")
    FORWARD_OTHER_DIRECTION = (None, "no applyOnForward policy in this direction (E-27)")
    FORWARD_UNMARKED = (None, "all tiers passed (E-28)")
    FORWARD_END = (None, "unmarked end of FORWARD (E-27)")
    ESTABLISHED = ("Allow", "established or related (E-20.2)")
    INVALID = ("Deny", "invalid (E-20.2)")
    MANGLE_ESTABLISHED = (None, "established or related (E-33)")
    MANGLE_INVALID = ("Deny", "invalid (E-34)")
    FAILSAFE = ("Allow", "failsafe (E-40)")
    FAILSAFE_RETURN = ("Allow", "failsafe, return half (E-43)")
    ACCEPT_MARK = ("Allow", "accept mark (E-48)")
    UNKNOWN_WORKLOAD = ("Deny", "unknown workload interface (E-38)")
    SPOOFED_SOURCE = ("Deny", "source is not the workload's (E-30)")
    WORKLOAD_IN_RAW = (None, "workload interface, no untracked policy (E-30)")
    NEIGHBOUR_DISCOVERY = ("Allow", "neighbour discovery (E-50)")
    ENCAPSULATION = ("Deny", "encapsulation from a workload (E-20.5)")
    ENDPOINT_TO_HOST = (None, "endpoint to host action (E-50)")
    HOST_TO_WORKLOAD = (None, "host to local workload (E-36)")
    DNAT_LATER = (None, "DNATed, judged in mangle POSTROUTING (E-37)")
    NOT_DNATTED = (None, "not DNATed, judged in filter OUTPUT (E-37)")
    FORWARDED = (None, "forwarded, judged in filter FORWARD (E-37)")
    NO_UNTRACKED_POLICY = (None, "no untracked policy here (E-31)")
    NO_PREDNAT_POLICY = (None, "no preDNAT policy here (E-33)")
    NO_ENDPOINT = (None, "no endpoint here (E-39)")

    @property
    def action(self) -> Action | None:
        """What was done for this reason, where the reason alone tells."""
        action: Action | None = self.value[0]
        return action

    @property
    def text(self) -> str:
        """As shown in a trace."""
        text: str = self.value[1]
        return text
