"""The shortest selectors that find some of the things that have labels, and none of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from labelgate.conversion import NAMESPACE_LABEL, ORCHESTRATOR_LABEL, quoted

VOLATILE = (
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
)
"""Labels that tell one replica or revision from the next: no selector of a policy should ask for them."""
_INHERITED = ("pcns.", "pcsa.")
_EVERYBODYS = (NAMESPACE_LABEL, ORCHESTRATOR_LABEL)
"""Alone they would find whoever comes later, too; beside a label of its own they may stand."""
_MOST_ATOMS, _MOST_TOGETHER = 24, 3

Labels = Mapping[str, str]
Group = frozenset[tuple[str, str]]
"""Things with the same labels, volatile and inherited ones left out: no selector of ours tells them apart."""


def group_of(labels: Labels) -> Group:
    """The group of what has these labels.

    >>> sorted(group_of({"app": "web", "pod-template-hash": "6c9f", "pcns.team": "a"}))
    [('app', 'web')]
    """
    items = labels.items()
    return frozenset((k, v) for k, v in items if k not in VOLATILE and not k.startswith(_INHERITED))


def has_own_label(group: Group) -> bool:
    """Whether a selector can ask for something that not everybody has.

    >>> has_own_label(group_of({"projectcalico.org/namespace": "shop"}))
    False
    """
    return any(key not in _EVERYBODYS for key, _ in group)


@dataclass(frozen=True, slots=True)
class _Atom:
    """`key == 'value'`, or `!has(key)`."""

    key: str
    value: str | None

    @property
    def is_own(self) -> bool:
        """Whether it asks for something that not everybody has."""
        return self.value is not None and self.key not in _EVERYBODYS

    def holds(self, labels: Labels) -> bool:
        return labels.get(self.key) == self.value

    def __str__(self) -> str:
        return f"!has({self.key})" if self.value is None else f"{self.key} == {quoted(self.value)}"


def selectors(wanted: Sequence[Group], among: Sequence[Group]) -> list[str]:
    """Selectors that together find all of the wanted groups, and of `among` no other; few and short ones.

    Each asks for a label of the endpoints' own, where they have one.

    >>> web, api, db = (group_of({"app": app, "tier": tier})
    ...                 for app, tier in (("web", "front"), ("api", "front"), ("db", "back")))
    >>> selectors([web, api], [web, api, db])
    ["tier == 'front'"]
    >>> selectors([web], [web, api, db])
    ["app == 'web'"]
    """
    all_labels = {group: dict(group) for group in dict.fromkeys([*among, *wanted])}
    allowed, left, found = set(wanted), list(dict.fromkeys(wanted)), []
    while left:
        atoms = _best(left, allowed, all_labels)
        found.append(" && ".join(map(str, atoms)))
        left = [group for group in left if not all(atom.holds(all_labels[group]) for atom in atoms)]
    return sorted(found)


def _best(left: Sequence[Group], allowed: set[Group], labels: Mapping[Group, Labels]) -> tuple[_Atom, ...]:
    """The conjunction that fits the first group: of few atoms, then for many groups, then short."""
    atoms = list(_atoms(left[0], labels))
    own = [atom for atom in atoms if atom.is_own]
    matching = {atom: {group for group, own in labels.items() if atom.holds(own)} for atom in atoms}
    for size in range(1, _MOST_TOGETHER + 1):
        fitting = []
        for chosen in combinations(atoms, size):
            if own and not any(atom in own for atom in chosen):
                continue
            matched = set.intersection(*(matching[atom] for atom in chosen))
            if matched <= allowed:
                text = " && ".join(map(str, chosen))
                fitting.append((-len(matched & set(left)), len(text), text, chosen))
        if fitting:
            return min(fitting, key=lambda fit: fit[:3])[3]
    return _needed(list(_all_atoms(left[0], labels)), allowed, labels)


def _needed(atoms: Sequence[_Atom], allowed: set[Group], labels: Mapping[Group, Labels]) -> tuple[_Atom, ...]:
    """Those without which somebody else would be found; the longest are given up first."""
    chosen = list(atoms)
    for atom in sorted(atoms, key=lambda atom: (-len(str(atom)), str(atom))):
        rest = [one for one in chosen if one != atom]
        found = {group for group, own in labels.items() if all(one.holds(own) for one in rest)}
        if found <= allowed and (any(one.is_own for one in rest) or not atom.is_own):
            chosen = rest
    return tuple(chosen)


def _atoms(group: Group, labels: Mapping[Group, Labels]) -> Iterator[_Atom]:
    """What its labels say first, and only then what it has not."""
    for count, atom in enumerate(_all_atoms(group, labels)):
        if count >= _MOST_ATOMS:
            return
        yield atom


def _all_atoms(group: Group, labels: Mapping[Group, Labels]) -> Iterator[_Atom]:
    own = labels[group]
    for key in sorted(own):
        yield _Atom(key, own[key])
    others = {key for other in labels.values() for key in other}
    for key in sorted(others - set(own)):
        yield _Atom(key, None)
