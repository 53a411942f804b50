"""Remarks on selectors and nets of rules: unknown labels, namespaces that reach hosts, excluded families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.policies import CALICO
from labelgate.analysis.lint.selection import Selection, some
from labelgate.reference.labels import (
    NAMESPACE,
    NAMESPACE_PREFIX,
    ORCHESTRATOR,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_PREFIX,
    Host,
    Member,
    profile_labels,
)
from labelgate.reference.matching import exists_for
from labelgate.reference.rules import Rule, rules_of
from labelgate.reference.selectors import And, Compare, Expression, Has, Not, Or, matches, parse
from labelgate.resources import LabelSelector
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource
from labelgate.resources.part import Part, field_names
from labelgate.resources.values import did_you_mean, nearest

if TYPE_CHECKING:
    from labelgate.resources.grouped import CalicoPolicy

_BUILT_IN = (NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT)
_ONE_OF_THREE = 0.66
"""The likeness of labels that differ in one of three letters."""
_GIVEN_BY_SERVER = "kubernetes.io/metadata.name"
_SPACES = {"namespace_selector": "namespace", "service_account_selector": "service account"}
_SELECTORS = ("selector", "not_selector", "namespace_selector", "service_account_selector")


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG105, LG106, LG207."""
    known = _known(selection)
    for resource in selection.resources.values():
        if resource.key.split("/")[0].endswith(("Policy", "Profile")):
            for path, space, expression in _uses(resource.spec, ("spec",), "endpoint"):  # type: ignore[attr-defined]
                if known[space]:
                    yield from _unknown(resource, path, space, expression, known[space])
    hosts: list[Member] = [one for one in selection.members if NAMESPACE not in one.labels]
    for policy in selection.snapshot.calico_policies():
        rules = list(_rules(policy))
        yield from _reached(selection, policy, rules, hosts)
        for direction, index, rule in rules:
            yield from _excluded(policy, ("spec", direction, index), rule)


# --- labels that nothing has (LG207) ---------------------------------------------------------------------


def _known(selection: Selection) -> dict[str, dict[str, set[str]]]:
    """Keys and values of labels, by what selectors look at."""
    spaces: dict[str, dict[str, set[str]]] = {"endpoint": {}, "namespace": {}, "service account": {}}

    def add(space: str, labels: Mapping[str, str]) -> None:
        for key, value in labels.items():
            spaces[space].setdefault(key, set()).add(value)

    if selection.endpoints:
        for member in selection.members:
            add("endpoint", member.labels)
    for labels in (
        *profile_labels(selection.snapshot).values(),
        *(one.labels for one in selection.endpoints),
    ):
        for space, prefix in (("namespace", NAMESPACE_PREFIX), ("service account", SERVICE_ACCOUNT_PREFIX)):
            add(
                space,
                {key.removeprefix(prefix): value for key, value in labels.items() if key.startswith(prefix)},
            )
    return spaces


def _uses(part: Part, path: Path, space: str) -> Iterator[tuple[Path, str, Expression]]:
    """Every selector inside of a part, with what its labels are labels of."""
    for alias, attribute in field_names(type(part)).items():
        value: Any = getattr(part, attribute)
        here = (*path, alias)
        # Kubernetes' selectors of namespaces stand in fields that say so.
        within = _SPACES.get(attribute, "namespace" if "namespace" in attribute else space)
        if attribute == "service_accounts":
            within = "service account"
        if isinstance(value, str) and value and attribute in _SELECTORS:
            yield here, within, parse(value)
        elif isinstance(value, LabelSelector):
            yield from ((inner, within, expression) for inner, expression in _requirements(value, here))
        elif isinstance(value, Part):
            yield from _uses(value, here, within if attribute == "service_accounts" else space)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Part):
                    yield from _uses(item, (*here, index), space)


def _requirements(selector: LabelSelector, path: Path) -> Iterator[tuple[Path, Expression]]:
    for key, value in selector.match_labels.items():
        yield (*path, "matchLabels", key), Compare(key, "==", frozenset([value]))
    for index, one in enumerate(selector.match_expressions):
        here = (*path, "matchExpressions", index)
        if one.operator in ("In", "NotIn"):
            yield here, Compare(one.key, "in" if one.operator == "In" else "not in", frozenset(one.values))
        else:
            yield here, Has(one.key)


def _leaves(expression: Expression) -> Iterator[Has | Compare]:
    match expression:
        case Not(operand):
            yield from _leaves(operand)
        case And(operands) | Or(operands):
            for one in operands:
                yield from _leaves(one)
        case Has() | Compare():
            yield expression


def _unknown(
    resource: Resource, path: Path, space: str, expression: Expression, known: Mapping[str, set[str]]
) -> Iterator[Remark]:
    for leaf in _leaves(expression):
        if leaf.key in _BUILT_IN:
            continue
        if leaf.key not in known:
            always = (
                "always true"
                if isinstance(leaf, Compare) and leaf.operator in ("!=", "not in")
                else "never true"
            )
            if isinstance(leaf, Has):
                always = "the same for all"
            text = f"no {space} in these files has a label `{leaf.key}`: the test is {always} (S-9)"
            mend = did_you_mean(leaf.key, known, _ONE_OF_THREE) or "correct the label"
            if (space, leaf.key) == ("namespace", _GIVEN_BY_SERVER):
                mend = "write it among the labels of each Namespace, as API servers do: files may lack it"
            yield Remark("LG207", resource, path, text, mend)
        elif isinstance(leaf, Compare):
            yield from _unknown_value(resource, path, space, leaf, known[leaf.key])


def _unknown_value(
    resource: Resource, path: Path, space: str, leaf: Compare, known: set[str]
) -> Iterator[Remark]:
    """A value that nothing has; beside others, or negated, only if one is near that was meant."""
    if leaf.operator not in ("==", "!=", "in", "not in"):
        return
    unknown = sorted(leaf.values - known)
    is_never = leaf.operator in ("==", "in") and len(unknown) == len(leaf.values)
    for value in unknown:
        near = nearest(value, known)
        if is_never or near is not None:
            text = f"no {space} in these files has `{leaf.key}` with the value `{value}`"
            mend = f"did you mean `{near}`?" if near else f"correct the value: {some(sorted(known), 5)} exist"
            yield Remark("LG207", resource, path, text, mend)


# --- namespaces that reach hosts (LG106), families (LG105) -----------------------------------------------


def _rules(policy: CalicoPolicy) -> Iterator[tuple[str, int, Rule]]:
    for direction, written in (("ingress", policy.spec.ingress), ("egress", policy.spec.egress)):
        made = rules_of(written, policy.metadata.namespace)
        yield from ((direction, index, rule) for index, rule in enumerate(made))


def _reached(
    selection: Selection,
    policy: CalicoPolicy,
    rules: Sequence[tuple[str, int, Rule]],
    outside: Sequence[Member],
) -> Iterator[Remark]:
    if isinstance(policy, CALICO) and getattr(policy.spec, "namespace_selector", None):
        found = selection.policies_by_key.get(policy.key)
        hosts = [one.name for one in selection.selected(found) if isinstance(one, Host)] if found else []
        if hosts and found and not _is_outside(found.subject):
            text = f"it is true without a namespace: the policy is one for {some(hosts)}, too (M-23)"
            yield Remark("LG106", policy, ("spec", "namespaceSelector"), text, _GUARD)
    for direction, index, rule in rules:
        written: Any = (policy.spec.ingress if direction == "ingress" else policy.spec.egress)[index]
        for side in ("source", "destination"):
            selector = getattr(written, side).namespace_selector
            expression = getattr(rule, side).positive
            if not selector or "global(" in selector or expression is None:
                continue
            reached = [one.name for one in outside if matches(expression, one.labels)]
            if reached:
                text = f"it is true without a namespace, so that {some(reached)} is meant, too (M-23)"
                path = ("spec", direction, index, side, "namespaceSelector")
                yield Remark("LG106", policy, path, text, _GUARD)


def _is_outside(subject: Expression) -> bool:
    """Whether it demands that there be no namespace (`!all()`): then hosts are what is meant."""
    match subject:
        case And(operands):
            return any(map(_is_outside, operands))
        case Not(Has(key)):
            return key == NAMESPACE
    return False


_GUARD = "add `&& all()`, which only things in namespaces satisfy (M-22)"


def _excluded(policy: CalicoPolicy, path: Path, rule: Rule) -> Iterator[Remark]:
    if not (rule.source.not_nets or rule.destination.not_nets):
        return
    bare = replace(
        rule, source=replace(rule.source, not_nets=()), destination=replace(rule.destination, not_nets=())
    )
    lost = [version for version in (4, 6) if exists_for(bare, version) and not exists_for(rule, version)]
    if len(lost) == 1:
        other = 10 - lost[0]
        side = "source" if rule.source.not_nets else "destination"
        text = f"its `notNets` are of IPv{other}: the rule never matches IPv{lost[0]} (M-12)"
        mend = f"write a second rule for IPv{lost[0]}, or `ipVersion: {other}` to say that it is meant so"
        yield Remark("LG105", policy, (*path, side, "notNets"), text, mend)
