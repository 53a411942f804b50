"""What every resource has: its metadata, its name, and where it stands."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from pydantic import Field

from labelgate.resources.errors import Finding, Findings, Location, Path, Wrong, quote
from labelgate.resources.part import LOOSE, Part
from labelgate.resources.values import is_label_key, is_label_value, is_subdomain

MAX_ANNOTATIONS = 256 * 1024


class Metadata(Part):
    """`metadata` of a resource; what the API server writes there besides is not read."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        (
            "creationTimestamp",
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "generation",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        )
    )

    name: str
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)

    def findings(self) -> Findings:
        """V-6, V-7."""
        yield from label_findings(self.labels, ("labels",), "label-key", "label-value")
        if self.annotations:
            yield from annotation_findings(self.annotations)


class LooseMetadata(Metadata):
    """Metadata of which only these fields are checked (core `v1`)."""

    model_config = LOOSE


def label_findings(labels: dict[str, str], path: Path, key_code: str, value_code: str) -> Findings:
    """V-6, V-9: keys and values that labels cannot have."""
    for key, value in labels.items():
        if not is_label_key(key):
            yield Finding((*path, key), Wrong(key_code, quote(key)))
        if not is_label_value(value):
            yield Finding((*path, key), Wrong(value_code, quote(value)))


def annotation_findings(annotations: dict[str, str]) -> Findings:
    """V-7; paths count from the mapping that has `annotations`."""
    for key in annotations:
        if not is_label_key(key.lower()):
            yield Finding(("annotations", key), Wrong("annotation-key", quote(key)))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        yield Finding(("annotations",), Wrong("annotation-size", f"{size} bytes"))


_NOWHERE = Location("<data>", 1, 1, 0)


class Resource(Part):
    """A resource of any kind.

    Two resources are equal if they say the same, wherever they stand.
    """

    ignored: ClassVar[frozenset[str]] = frozenset(("status",))
    version: ClassVar[str]
    """`apiVersion` in documents."""
    kind_name: ClassVar[str]
    """`kind` in documents."""
    namespaced: ClassVar[bool] = False

    api_version: str
    kind: str
    metadata: Metadata

    # No private attribute of pydantic: to make and to read one takes longer than a small document does.
    __slots__ = ("_location",)

    @property
    def location(self) -> Location:
        """Where it begins."""
        found: Location = getattr(self, "_location", _NOWHERE)
        return found

    def put_location(self, location: Location) -> None:
        """Notes where it begins: the loader knows."""
        object.__setattr__(self, "_location", location)

    # pydantic copies and pickles no slots but its own.

    def __copy__(self) -> Self:
        return self._standing(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self._standing(super().__deepcopy__(memo))

    def _standing(self, copied: Self) -> Self:
        copied.put_location(self.location)
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "location": self.location}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.put_location(state["location"])

    @property
    def key(self) -> str:
        """`Kind/namespace/name` or `Kind/name`; a Kubernetes policy is a `KubernetesNetworkPolicy`."""
        kind, namespace, name = type(self).__name__, self.metadata.namespace, self.metadata.name
        return f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}"

    @property
    def notices(self) -> tuple[str, ...]:
        """What is accepted but has no effect here."""
        return ()

    def findings(self) -> Findings:
        """V-1..V-5, R-7."""
        yield from self.name_findings()
        if self.metadata.namespace is None:
            return
        path: Path = ("metadata", "namespace")
        if not self.namespaced:
            hint = f"use a `{twin}`, or leave `namespace` out" if (twin := _TWINS.get(self.kind)) else None
            wrong = Wrong("namespace-refused", quote(self.metadata.namespace), kind=self.kind, hint=hint)
            yield Finding(path, wrong)
        else:
            yield from _subdomain_findings(self.metadata.namespace, path, 63)

    def name_findings(self) -> Findings:
        """V-1, V-2."""
        yield from _subdomain_findings(self.metadata.name, NAME)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.key)


NAME: Path = ("metadata", "name")
_TWINS = {
    "GlobalNetworkPolicy": "NetworkPolicy",
    "GlobalNetworkSet": "NetworkSet",
    "StagedGlobalNetworkPolicy": "StagedNetworkPolicy",
}


def _subdomain_findings(name: str, path: Path, limit: int = 253) -> Findings:
    if len(name) > limit:
        yield Finding(path, Wrong("name-length", quote(name), excess=len(name) - limit, limit=limit))
    # Where one is cut off, what it ends in is no fault of its own.
    beginning = name if len(name) <= limit else name[:limit].rstrip("-.")
    if not is_subdomain(beginning):
        hint = f"did you mean `{name.lower()}`?" if is_subdomain(name.lower()) else None
        yield Finding(path, Wrong("name", quote(name), hint=hint))


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_POLICY_NAME = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})?|(?:knp|ossg)\.default\.{_LABEL}(?:\.{_LABEL})*)\Z")
_GLOBAL_POLICY_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})?\Z")


def policy_name_findings(kind: str, name: str, *, is_global: bool) -> Findings:
    """V-3, V-4, for names that V-2 accepts."""
    pattern = _GLOBAL_POLICY_NAME if is_global else _POLICY_NAME
    if is_subdomain(name) and not pattern.match(name):
        code = "name-global-network-policy" if is_global else "name-network-policy"
        yield Finding(NAME, Wrong(code, quote(name), kind=kind))


def tier_name_findings(name: str) -> Findings:
    """V-5."""
    if len(name) > 63:
        yield Finding(NAME, Wrong("name-tier-length", quote(name), excess=len(name) - 63))
    if "." in name:
        yield Finding(NAME, Wrong("name-tier", quote(name)))
