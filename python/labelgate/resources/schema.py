"""JSON Schemas of the kinds that are read, from the models that read them."""

from __future__ import annotations

from typing import Any

from labelgate.resources.expectations import PolicyTest
from labelgate.resources.metadata import Resource
from labelgate.resources.models import resource_types
from labelgate.resources.part import Part, field_names, part_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


# By the `kind` of documents, and by our own name where that differs: of two, `NetworkPolicy` is Calico's.
_TYPES: tuple[type[Resource], ...] = (*resource_types(), PolicyTest)
_MODELS = {model.kind_name: model for model in _TYPES} | {model.__name__: model for model in _TYPES}


def kinds() -> list[str]:
    """The names that `json_schema` knows, sorted; Kubernetes' NetworkPolicy is `KubernetesNetworkPolicy`."""
    return sorted(_MODELS)


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind.

    >>> json_schema("Tier")["properties"]["apiVersion"]["const"]
    'projectcalico.org/v3'

    Raises:
        KeyError: the kind is none of `kinds`.
    """
    model = _MODELS[kind]
    schema = model.model_json_schema(by_alias=True)
    for part in _parts(model):
        found = schema if part is model else schema["$defs"][part.__name__]
        found["properties"] |= dict.fromkeys(sorted(part.ignored), True)
    schema["properties"]["apiVersion"] = {"const": model.version}
    schema["properties"]["kind"] = {"const": model.kind_name}
    schema["required"] = sorted({"apiVersion", "kind", *schema.get("required", [])})
    return {"$schema": _DIALECT, **schema}


def _parts(model: type[Part]) -> list[type[Part]]:
    """A model and every model inside it."""
    found = [model]
    for part in found:
        inner = (part_of(part, alias) for alias in field_names(part))
        found += [other for other in dict.fromkeys(inner) if other is not None and other not in found]
    return found
