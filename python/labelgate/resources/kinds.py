"""One document's data to a typed resource or to findings."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from labelgate.resources.errors import Finding, Location, Path, Wrong, describe
from labelgate.resources.metadata import Resource
from labelgate.resources.models import KINDS, model_of
from labelgate.resources.part import Part, all_findings, field_names, part_of
from labelgate.resources.stored import STASH, restored
from labelgate.resources.values import did_you_mean, is_integer, nearest
from labelgate.resources.versions import CLUSTER_POLICY

DEFAULT_NAMESPACE = "default"
"""Where a namespaced resource without `namespace` belongs, as with kubectl and calicoctl."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a document says that it is; None where it does not say so in text."""

    model: type[Resource] | None
    """None where the kind is not one that is read."""
    kind: str | None
    namespace: str | None
    name: str | None

    @property
    def key(self) -> str | None:
        """What names the resource among all others; None where something is missing."""
        if self.model is None or self.name is None:
            return None
        namespace = self.namespace if self.model.namespaced else None
        return "/".join(part for part in (self.model.__name__, namespace, self.name) if part)


def header(data: Any) -> Header:
    """Kind, namespace and name of a document, however wrong the rest may be."""
    if not isinstance(data, dict):
        return Header(None, None, None, None)
    with suppress(Wrong):
        data = restored(data)
    metadata = data.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind = _text(data.get("kind"))
    model = model_of(_text(data.get("apiVersion")) or "", kind or "")
    namespace = _text(metadata.get("namespace"))
    if model is not None and model.namespaced and not namespace:
        namespace = DEFAULT_NAMESPACE
    return Header(model, kind, namespace, _text(metadata.get("name")))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def items_of(data: Any) -> list[tuple[Path, Any]] | None:
    """The items of a list, each with its path; None if it is none.

    That is `kind: List`, or `NetworkPolicyList` and the like, or a list of resources and nothing around it,
    which calicoctl reads, too.
    """
    if isinstance(data, list):
        return [((number,), item) for number, item in enumerate(data)] or None
    given = _given_by_list(data)
    if given is None or "items" not in data:
        return None
    items = [] if data["items"] is None else data["items"]  # Go writes an empty list like that.
    if not isinstance(items, list):
        return None
    return [
        (("items", number), given | item if isinstance(item, dict) else item)
        for number, item in enumerate(items)
    ]


def list_findings(data: Any) -> list[Finding]:
    """Whether a list is the first of several, as the API gives them to who asks with a limit."""
    metadata = data.get("metadata") if _given_by_list(data) is not None else None
    if not isinstance(metadata, dict):
        return []
    if metadata.get("continue"):
        return [Finding(("metadata", "continue"), Wrong("list-part", "a token that leads to the rest"))]
    left: Any = metadata.get("remainingItemCount")
    if is_integer(left) and left > 0:
        return [Finding(("metadata", "remainingItemCount"), Wrong("list-part", f"{left} more items"))]
    return []


def _given_by_list(data: Any) -> dict[str, Any] | None:
    """What a list says for its items: the API leaves it out of them. None where it is no list."""
    version, kind = (data.get("apiVersion"), data.get("kind")) if isinstance(data, dict) else (None, None)
    if not isinstance(version, str) or not isinstance(kind, str) or not kind.endswith("List"):
        return None
    if (version, kind) == ("v1", "List"):
        return {}
    inner = kind.removesuffix("List")
    return {"apiVersion": version, "kind": inner} if (version, inner) in KINDS else None


def read(data: Any, location: Location) -> Resource | list[Finding]:
    """A typed resource, or everything that is wrong with it; paths count from the top of the document."""
    model = _model(data)
    if isinstance(model, list):
        return model
    try:
        data = restored(data)
    except Wrong as wrong:
        return [Finding(("metadata", "annotations", STASH), wrong)]
    data = _with_namespace(model, data)
    try:
        resource = model.model_validate(data)
    except ValidationError as error:
        return _all_wrong(model, data, error)
    resource.put_location(location)
    return all_findings(resource) or resource


def _model(data: Any) -> type[Resource] | list[Finding]:
    if not isinstance(data, dict):
        return [Finding((), Wrong("not-a-resource", describe(data)))]
    missing = [
        Finding((), Wrong("field-missing", "nothing", field=field, what=f"one of {_listed(known())}"))
        for field, known in (("apiVersion", _versions), ("kind", _kinds))
        if data.get(field) in (None, "")
    ]
    if missing:
        return missing
    if _given_by_list(data) is not None:
        return [_not_items(data)]
    version, kind = data["apiVersion"], data["kind"]
    model = model_of(version, kind) if isinstance(version, str) and isinstance(kind, str) else None
    return model or [_unknown_kind(version, kind)]


def _versions() -> list[str]:
    return list(dict.fromkeys(version for version, _ in KINDS))


def _kinds() -> list[str]:
    return sorted({kind for _, kind in KINDS})


def _listed(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _not_items(data: dict[str, Any]) -> Finding:
    """Why a list is not read as one."""
    if items_of(data) is not None:
        return Finding(("kind",), Wrong("list-nested", describe(data["kind"])))
    if "items" not in data:
        return Finding((), Wrong("field-missing", "nothing", field="items", what="a list of resources"))
    what, advice = _TYPES["list_type"]
    return Finding(("items",), Wrong("wrong-type", describe(data["items"]), what=what, advice=advice))


_SUCCESSORS = dict.fromkeys(
    ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy"),
    f"its successor is read: `ClusterNetworkPolicy` of `{CLUSTER_POLICY}`",
)


def _unknown_kind(version: Any, kind: Any) -> Finding:
    versions = _versions()
    successor = _SUCCESSORS.get(kind) if isinstance(kind, str) else None
    if version not in versions:
        with_kind = [known for known, name in KINDS if name == kind]
        hint = f"`{kind}` is read from {_listed(with_kind)}" if with_kind else successor
        return Finding(
            ("apiVersion",), Wrong("api-version", describe(version), hint=hint, supported=_listed(versions))
        )
    kinds = [name for known, name in KINDS if known == version]
    elsewhere = [known for known, name in KINDS if name == kind]
    hint = successor or (did_you_mean(kind, kinds) if isinstance(kind, str) else None)
    if elsewhere:
        hint = f"`{kind}` belongs to {_listed(elsewhere)}"
    wrong = Wrong("kind", describe(kind), hint=hint, version=version, supported=_listed(kinds))
    return Finding(("kind",), wrong)


def _with_namespace(model: type[Resource], data: dict[str, Any]) -> dict[str, Any]:
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("namespace") not in (None, ""):
        return data
    metadata = {name: value for name, value in metadata.items() if name != "namespace"}
    if model.namespaced:
        metadata["namespace"] = DEFAULT_NAMESPACE
    return data | {"metadata": metadata}


# --- pydantic's errors in our words ----------------------------------------------------------------------


def _all_wrong(model: type[Resource], data: dict[str, Any], error: ValidationError) -> list[Finding]:
    """The refused fields, and what is wrong between the fields that are left."""
    refused = [
        Finding(tuple(details["loc"]), _wrong(model, details)) for details in error.errors(include_url=False)
    ]
    broken = _broken(model, error)
    rest = _without(model, data, error)
    if rest is None:
        return refused
    return refused + [finding for finding in all_findings(rest) if not _rests_on(finding, broken)]


def _broken(model: type[Resource], error: ValidationError) -> list[Path]:
    """The refused fields; of an unknown one also the field that was probably meant."""
    paths: list[Path] = []
    for details in error.errors(include_url=False):
        path = tuple(details["loc"])
        paths.append(path)
        if details["type"] == "extra_forbidden":
            near = nearest(str(path[-1]), field_names(_part_at(model, path[:-1])))
            paths += [(*path[:-1], near)] if near else []
    return paths


def _rests_on(finding: Finding, broken: list[Path]) -> bool:
    for bad in broken:
        if finding.path[: len(bad)] == bad:
            return True
        if any(need[: len(bad)] == bad or bad[: len(need)] == need for need in finding.needs):
            return True
    return False


_STAND_INS = {"action": "Deny", "name": "stand-in", "node": "stand-in", "metadata": {"name": "stand-in"}}
"""For required fields that are refused, so that the rest can be judged; each kind of rule has this action."""


def _without(model: type[Resource], data: dict[str, Any], error: ValidationError) -> Resource | None:
    """The resource without its refused fields; None if too little is left.

    Items of lists are not taken out one by one (indexes would shift) but with their list, and a mapping
    that lacks a required field goes as a whole.
    """
    for _ in range(8):  # each round goes up one level; no resource is nested deeper
        for details in error.errors(include_url=False):
            path = tuple(details["loc"])
            if details["type"] == "missing" and path[-1] not in _STAND_INS:
                path = path[:-1]
            while path and (not isinstance(path[-1], str) or path[-1] == "[key]"):
                path = path[:-1]
            if not path:
                return None
            data = _replaced(data, path, keep=details["type"] != "extra_forbidden")
        try:
            return model.model_validate(data)
        except ValidationError as again:
            error = again
    return None


def _replaced(data: Any, path: Path, *, keep: bool) -> Any:
    """A copy with the field at the path left out, or, with `keep`, with its stand-in if it has one."""
    step, rest = path[0], path[1:]
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        return [
            _replaced(item, rest, keep=keep) if index == step else item for index, item in enumerate(data)
        ]
    if not isinstance(data, dict):
        return data
    if rest:
        return {
            name: _replaced(value, rest, keep=keep) if name == step else value for name, value in data.items()
        }
    data = {name: value for name, value in data.items() if name != step}
    return data | {str(step): _STAND_INS[str(step)]} if keep and step in _STAND_INS else data


_TYPES = {
    "string_type": ("text", "write one text"),
    "string_unicode": ("text", "half of a surrogate pair is no text"),
    "int_from_float": ("a whole number", "write digits without quotes"),
    "int_type": ("a whole number", "write digits without quotes"),
    "float_type": ("a number", "write digits without quotes"),
    "finite_number": ("a finite number", "leave `order` out to be last"),
    "bool_type": ("`true` or `false`", "write it without quotes"),
    "list_type": ("a list", "begin each entry with `- `"),
    "dict_type": ("a mapping", "write fields as `name: value`"),
    "model_type": ("a mapping", "write fields as `name: value`"),
}
_MISSING = {"action": "action-missing", "node": "endpoint-node"}
_TOO_FEW: dict[str | int, str] = {"networks": "cluster-no-networks"}
"""By the name of the field."""


def _wrong(model: type[Resource], details: ErrorDetails) -> Wrong:
    kind, path, value = details["type"], tuple(details["loc"]), details["input"]
    context = details.get("ctx", {})
    if isinstance(context.get("error"), Wrong):
        wrong: Wrong = context["error"]
        return wrong
    if kind == "missing":
        field = str(path[-1])
        if field in _MISSING:
            return Wrong(_MISSING[field], "nothing")
        return Wrong(_part_at(model, path[:-1]).missing, "nothing", field=field, what=f"`{field}`")
    if kind == "extra_forbidden":
        is_in_rule = not {"ingress", "egress"}.isdisjoint(path[:-1])
        return _unknown_field(_part_at(model, path[:-1]), str(path[-1]), _IN_RULE if is_in_rule else None)
    if kind == "too_long":
        return Wrong("too-many", f"{len(value)}", limit=context["max_length"])
    if kind == "string_too_long":
        return Wrong("text-length", f"{len(value)} characters", limit=context["max_length"])
    if kind == "too_short":
        return Wrong(_TOO_FEW.get(path[-1], "too-few"), describe(value), limit=context["min_length"])
    what, advice = _TYPES.get(kind, ("another value", "write a plain value"))
    if kind == "string_type" and isinstance(value, bool | int | float):
        advice = 'put it in quotes: `"{source}"`'
    elif value is None:
        # Where it is the only one, a list without it may mean everything.
        advice = "fill it in"
    return Wrong("wrong-type", describe(value), hint=advice, what=what)


def _part_at(model: type[Part], path: Path) -> type[Part]:
    for step in path:
        if isinstance(step, str):
            model = part_of(model, step) or model
    return model


_IN_RULE = "a rule without it may match more; say what it means with the fields above"


def _unknown_field(model: type[Part], field: str, otherwise: str | None) -> Wrong:
    known = sorted(field_names(model))
    hint = model.field_hints.get(field) or did_you_mean(field, known) or model.other_hint or otherwise
    return Wrong("field-unknown", f"`{field}`", hint=hint, known=_listed(known))
