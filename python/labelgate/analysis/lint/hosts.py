"""Remarks on endpoints, and on policies that treat host endpoints apart."""

from __future__ import annotations

from collections.abc import Iterator

from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.policies import DIRECTIONS
from labelgate.analysis.lint.selection import Selection, some
from labelgate.model import BUILT_IN_PROFILE
from labelgate.reference.labels import Host
from labelgate.reference.policies import Direction, Policy
from labelgate.resources.metadata import Resource


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG301, LG303, LG304, LG402, LG403, LG405."""
    yield from _default_deny(selection)
    yield from _missing_profiles(selection)
    for policy in selection.policies:
        yield from _lists(selection, policy, selection.resource(policy))


def default_denied(selection: Selection, host: Host) -> list[Direction]:
    """The directions in which no policy in force and no rule of a profile says anything (E-25)."""
    return [
        way
        for way in DIRECTIONS
        if not (_is_governed(selection, host, way) or _has_rules(selection, host, way))
    ]


def _is_governed(selection: Selection, host: Host, direction: Direction) -> bool:
    return (host.name, direction) in selection.governed


def _has_rules(selection: Selection, host: Host, direction: Direction) -> bool:
    """Whether a profile decides; one that does not exist denies all the same, which LG303 tells (R-29)."""
    rules = selection.profile_rules
    return any(name not in rules or rules[name][direction] for name in host.profiles)


def _default_deny(selection: Selection) -> Iterator[Remark]:
    for host in selection.hosts:
        denied = default_denied(selection, host)
        if not denied:
            continue
        profiles = f", and {some(host.profiles)} has no rules," if host.profiles else " and no profile"
        discovery = "; IPv6 neighbour discovery, too, without which nobody reaches it (E-53)"
        if host.name in selection.judged_apart:  # Policy there may let it through: LG302 tells if not.
            discovery = ""
        text = (
            f"no policy{profiles} for its {' and '.join(denied)}: everything is denied there but"
            f" {selection.spared(host.name)} (E-25){discovery}"
        )
        mend = f"write policy for it, or list the profile `{BUILT_IN_PROFILE}`"
        yield Remark("LG301", selection.resources[host.name], (), text, mend)


def _missing_profiles(selection: Selection) -> Iterator[Remark]:
    profiles = {one.name: one.profiles for one in selection.endpoints}
    listed: dict[tuple[str, bool], list[str]] = {}
    for key, name, denies in selection.snapshot.absent_profiles():
        listed.setdefault((name, denies), []).append(key)
    for (name, denies), (first, *others) in listed.items():
        lack = "it gives no labels, and denies what none before it allows (R-29)"
        if not denies:
            lack = "it gives no labels, but denies nothing: one before it allows everything (R-24, R-29)"
        more = f" ({some(others)} list it, too)" if others else ""
        path = () if first.startswith("Pod/") else ("spec", "profiles", profiles[first].index(name))
        rule, text = "LG303" if denies else "LG304", f"there is no profile `{name}`: {lack}{more}"
        yield Remark(rule, selection.resources[first], path, text, _profile_mend(name))


def _profile_mend(name: str) -> str:
    match name.split(".", 2):
        case ["kns", namespace]:
            return f"load Namespace `{namespace}`"
        case ["ksa", namespace, account]:
            return f"load ServiceAccount `{namespace}/{account}`"
    return "load it, or correct the name"


def _lists(selection: Selection, policy: Policy, resource: Resource) -> Iterator[Remark]:
    """What a list of E-10 makes of the endpoints that the policy selects."""
    selected = selection.selected(policy)
    hosts = [one for one in selected if isinstance(one, Host)]
    workloads = [one.name for one in selected if not isinstance(one, Host)]
    field = {"untracked": "doNotTrack", "prednat": "preDNAT"}.get(next(iter(policy.lists)))
    anywhere = [host.name for host in hosts if host.interface == "*"]
    if "untracked" in policy.lists and anywhere:
        text = f'{some(anywhere)} has `interfaceName: "*"`: untracked policy is ignored there (E-47)'
        mend = "write a host endpoint for each interface that it is for"
        yield Remark("LG402", resource, ("spec", "doNotTrack"), text, mend)
    if field and workloads:
        text = f"it selects {some(workloads)}: `{field}` does nothing to workloads (E-11)"
        mend = "let its selector choose host endpoints only, and write policy without it for workloads"
        yield Remark("LG403", resource, ("spec", "selector"), text, mend)
    if "forward" in policy.lists and workloads and not hosts:
        text = "it selects workloads only, for which `applyOnForward` makes no difference (E-11)"
        yield Remark("LG405", resource, ("spec", "applyOnForward"), text, "remove `applyOnForward`")
