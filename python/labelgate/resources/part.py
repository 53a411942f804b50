"""The base of all resource models: one mapping of a document is one `Part`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from labelgate.resources.errors import Finding, Findings


class Part(BaseModel):
    """One mapping: snake_case here, camelCase in documents; frozen; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, defer_build=True
    )

    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that are accepted and not read: they never change a verdict."""
    field_hints: ClassVar[dict[str, str]] = {}
    """What to say to fields that people look for here in vain."""
    other_hint: ClassVar[str | None] = None
    """What to say to all other fields that are not known here."""
    missing: ClassVar[str] = "field-missing"
    """The message about a field that is not there."""

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_read(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if cls.ignored and not cls.ignored.isdisjoint(data):
            data = {name: value for name, value in data.items() if name not in cls.ignored}
        if None in data.values():
            # As in Kubernetes, where `selector: null` is no selector; an unknown field stays unknown.
            known = field_names(cls)
            data = {name: value for name, value in data.items() if value is not None or name not in known}
        return data

    def findings(self) -> Findings:
        """What is wrong between fields of this part; paths count from here."""
        yield from ()


LOOSE = ConfigDict(extra="ignore")


class LoosePart(Part):
    """A part of which only some fields are read; the others are left alone (core `v1`)."""

    model_config = LOOSE


@cache
def field_names(model: type[Part]) -> dict[str, str]:
    """Names as in documents, to attribute names."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


@cache
def _asked(model: type[Part]) -> tuple[bool, tuple[tuple[str, str], ...]]:
    """Whether a part may have findings of its own; attributes with parts that may, and their names."""
    inner = [
        (attribute, alias)
        for alias, attribute in field_names(model).items()
        if any(any(_asked(part)) for part in _parts_in(model.model_fields[attribute].annotation))
    ]
    return model.findings is not Part.findings, tuple(inner)


@cache
def part_of(model: type[Part], alias: str) -> type[Part] | None:
    """The model of a field, or of the items of its list."""
    attribute = field_names(model).get(alias)
    return None if attribute is None else next(_parts_in(model.model_fields[attribute].annotation), None)


def _parts_in(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, Part):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts_in(inner)


def all_findings(part: Part) -> list[Finding]:
    """The findings of a part and of all parts inside it; paths count from the part."""
    judges, inner = _asked(type(part))
    found = list(part.findings()) if judges else []
    if not inner:
        return found
    given, values = part.__pydantic_fields_set__, part.__dict__
    for attribute, alias in inner:
        if attribute not in given:  # Defaults are in order.
            continue
        value = values[attribute]
        if type(value) is list:
            for index, item in enumerate(value):
                if inside := all_findings(item):
                    found += [one.under((alias, index)) for one in inside]
        elif isinstance(value, Part) and (inside := all_findings(value)):
            found += [one.under((alias,)) for one in inside]
    return found
