"""The rules of the linter, by id; `docs/lint.md` has the same table with an example of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from labelgate.errors import Portable
from labelgate.resources.values import did_you_mean

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The gravest first."""


@dataclass(frozen=True, slots=True)
class LintRule:
    """One thing that is looked for."""

    id: str
    """Stable: a rule that goes away takes its id along."""
    name: str
    """A word for people; stable, too."""
    severity: Severity
    laws: str
    """Ids of `docs/semantics.md` that are the reason."""
    summary: str


_RULES = (
    LintRule("LG101", "shadowed-rule", "warning", "M-5, M-50, M-51, M-52",
             "a rule that no packet reaches: others before it decide them all, some otherwise"),
    LintRule("LG102", "redundant-rule", "info", "M-5, K-15",
             "a rule without which every packet would be decided the same"),
    LintRule("LG103", "never-matching-rule", "warning", "M-1, M-3, M-12, M-17",
             "a rule whose criteria contradict each other"),
    LintRule("LG104", "rule-meets-nobody", "warning", "M-20, M-26, M-31",
             "a rule that no packet can match with the endpoints, sets and services in these files"),
    LintRule("LG105", "family-excluded", "warning", "M-12",
             "a rule whose `notNets` of one IP version silently exclude the other version"),
    LintRule("LG106", "namespaces-reach-hosts", "warning", "M-23, E-1",
             "a `namespaceSelector` of negative tests that chooses host endpoints or global sets, too"),
    LintRule("LG107", "inert-rules", "warning", "E-14, V-45, K-13",
             "rules of a direction that the policy's types leave out"),
    LintRule("LG109", "not-decided", "info", "M-5, E-61",
             "rules that were not judged: the work would have exceeded its budget"),
    LintRule("LG201", "selects-nothing", "warning", "E-1",
             "a policy that selects no endpoint in these files"),
    LintRule("LG202", "direction-without-rules", "warning", "E-12, E-14",
             "a policy that governs a direction for which it has no rules, and so denies it"),
    LintRule("LG203", "log-only", "warning", "M-53, E-21",
             "a policy that only logs: what it logs is denied at the end of the tier"),
    LintRule("LG204", "order-tie", "warning", "E-5",
             "two policies of the same order that decide the same packets differently: their names decide"),
    LintRule("LG205", "unknown-tier", "error", "E-4",
             "a policy in a tier that does not exist: it comes last and ends in deny"),
    LintRule("LG206", "staged-left-behind", "info", "E-15, E-23",
             "a staged policy: it decides nothing"),
    LintRule("LG207", "unknown-label", "warning", "S-9, R-20",
             "a selector with a label that nothing in these files has"),
    LintRule("LG301", "host-default-deny", "warning", "E-25, E-53",
             "a host endpoint without policy or profile rules in a direction: everything is denied there"),
    LintRule("LG302", "neighbour-discovery-cut", "warning", "E-53",
             "a host endpoint whose policy lets no IPv6 neighbour discovery through"),
    LintRule("LG303", "missing-profile", "error", "R-29",
             "an endpoint that lists a profile which does not exist: it denies"),
    LintRule("LG304", "missing-profile-labels", "info", "R-24, R-25, R-29",
             "an endpoint that lists a profile which does not exist, after one that allows all"),
    LintRule("LG401", "asymmetric-untracked", "warning", "E-60, E-61",
             "an untracked policy that allows packets, but not the replies to them"),
    LintRule("LG402", "untracked-on-any", "error", "E-47",
             "an untracked policy on a host endpoint of `interfaceName: \"*\"`: it is ignored there"),
    LintRule("LG403", "host-policy-on-workloads", "warning", "E-11",
             "an untracked or preDNAT policy that selects workloads: it does nothing to them"),
    LintRule("LG404", "port-after-dnat", "warning", "E-70",
             "a preDNAT rule that names a port which packets have only after DNAT"),
    LintRule("LG405", "forward-without-effect", "info", "E-11, E-51",
             "`applyOnForward` on a policy that selects no host endpoint"),
    LintRule("LG406", "failsafe-not-denied", "warning", "E-42, E-43, E-44",
             "a rule that denies failsafe ports of a host endpoint: failsafes go before all policy"),
    LintRule("LG407", "path-mtu-cut", "info", "E-61",
             "an untracked policy that lets packets leave, but no ICMP errors about them in"),
    LintRule("LG408", "service-address", "warning", "M-31, M-34",
             "an egress rule that names the address of a Service, which packets have only before DNAT"),
    LintRule("LG901", "suppression-without-reason", "error", "V-7",
             "an annotation that suppresses a finding, but does not say why"),
    LintRule("LG902", "suppression-unused", "warning", "V-7",
             "an annotation that suppresses nothing"),
    LintRule("LG903", "suppression-unknown", "error", "V-7",
             "an annotation that suppresses a rule which does not exist"),
)  # fmt: skip

RULES = {rule.id: rule for rule in _RULES}
"""By id, in order."""
BY_NAME = {rule.name: rule for rule in _RULES}


class UnknownRules(Portable, ValueError):
    """A word that is no id, no beginning of ids, and no name."""

    def __init__(self, word: str) -> None:
        hint = did_you_mean(word, [*RULES, *BY_NAME]) or "`labelgate lint --rules` lists them"
        super().__init__(f"no rule is called `{word}`: {hint}")


def chosen(words: str | Iterable[str]) -> frozenset[str]:
    """The ids that one or more words mean: an id (`LG101`), the beginning of some (`LG1`), a name, or `ALL`.

    Raises:
        UnknownRules: a word means none.
    """
    found: set[str] = set()
    for word in [words] if isinstance(words, str) else words:
        ids = {rule.id for rule in _RULES if word in (rule.name, "ALL") or rule.id.startswith(word.upper())}
        if not ids or not word:
            raise UnknownRules(word)
        found |= ids
    return frozenset(found)


def at_least(severity: Severity, least: Severity) -> bool:
    """Whether a severity is at least so grave."""
    return SEVERITIES.index(severity) <= SEVERITIES.index(least)
