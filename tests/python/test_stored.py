"""The form `crd.projectcalico.org/v1`: R-2..R-5, and E-13 for it alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from labelgate.model import core_model
from labelgate.resources import LoadError, load_text
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot

V3, V1 = "projectcalico.org/v3", "crd.projectcalico.org/v1"
STASH = "projectcalico.org/metadata"


def document(kind: str, metadata: dict[str, Any], spec: Any, version: str = V1) -> str:
    return json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})


def one(text: str) -> Any:
    [resource] = load_text(text)
    return resource


def stashed(kind: str, name: str, stash: Any, spec: dict[str, Any]) -> Any:
    metadata = {"name": name, "annotations": {STASH: json.dumps(stash)}}
    if "Global" not in kind:
        metadata["namespace"] = "shop"
    return one(document(kind, metadata, spec))


def test_metadata_is_merged() -> None:
    """R-3: what is stashed wins, and the annotation goes."""
    found = one(
        document(
            "GlobalNetworkSet",
            {
                "name": "office",
                "labels": {"a": "own", "b": "own"},
                "annotations": {
                    "note": "own",
                    STASH: json.dumps(
                        {
                            "name": "other",
                            "labels": {"b": "stashed", "c": "stashed"},
                            "annotations": {"note": "stashed", STASH: "{}"},
                        }
                    ),
                },
            },
            {"nets": ["10.0.0.0/8"]},
        )
    )
    assert found.metadata.model_dump() == {
        "name": "office",
        "namespace": None,
        "labels": {"a": "own", "b": "stashed", "c": "stashed"},
        "annotations": {"note": "stashed"},
    }
    assert (found.api_version, found.key) == (V1, "GlobalNetworkSet/office")


POLICIES = ["GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy", "StagedNetworkPolicy"]


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize(
    ("name", "stash", "spec", "expected"),
    [
        ("default.web", {"name": "front"}, {}, "front"),
        ("default.web", {"labels": {}}, {}, "web"),
        ("default.web", None, {}, "web"),
        ("default.web", {}, {"tier": ""}, "web"),
        ("default.web", {"name": ""}, {"tier": "default"}, "web"),
        ("default.default.web", {}, {}, "default.web"),
        ("web", {}, {}, "web"),
        ("default.web", {}, {"tier": "security"}, "default.web"),
    ],
)
def test_name_of_a_policy(kind: str, name: str, stash: Any, spec: dict[str, Any], expected: str) -> None:
    """R-4."""
    assert stashed(kind, name, stash, spec).metadata.name == expected


def test_a_name_is_refused_as_it_is_written() -> None:
    with pytest.raises(LoadError, match=r"illegal name \(V-2\)\n  found: `default\.`"):
        stashed("GlobalNetworkPolicy", "default.", {}, {})


@pytest.mark.parametrize("kind", POLICIES)
def test_name_without_the_annotation(kind: str) -> None:
    """R-4: unchanged."""
    assert one(document(kind, {"name": "default.web"}, {})).metadata.name == "default.web"


def test_names_of_other_kinds_stay() -> None:
    """R-4 is about policies."""
    found = stashed("StagedKubernetesNetworkPolicy", "default.web", {"name": "web"}, {})
    assert found.metadata.name == "default.web"


def test_spec_may_be_absent() -> None:
    """R-2: only the v3 form demands it."""
    text = f"apiVersion: {V1}\nkind: GlobalNetworkPolicy\nmetadata: {{name: p}}\n"
    assert one(text).spec.selector == ""
    with pytest.raises(LoadError):
        one(text.replace(V1, V3))


def test_both_forms_of_one_policy_are_one_policy() -> None:
    """The recovered name counts."""
    old = document("GlobalNetworkPolicy", {"name": "default.p", "annotations": {STASH: "{}"}}, {})
    new = document("GlobalNetworkPolicy", {"name": "p"}, {}, V3)
    with pytest.raises(LoadError) as caught:
        load_text(f"{old}\n---\n{new}\n")
    assert [problem.code for problem in caught.value.problems] == ["resource-duplicate"]


@pytest.mark.parametrize(
    "stash", ["[" * 100_000, "1", '"text"', "[]", '{"annotations": 1}', "{", 5, {"a": {}}]
)
def test_annotation_that_holds_no_metadata(stash: Any) -> None:
    """R-3."""
    with pytest.raises(LoadError) as caught:
        load_text(document("GlobalNetworkPolicy", {"name": "p", "annotations": {STASH: stash}}, {}))
    assert {problem.code for problem in caught.value.problems} == {"stashed-metadata"}


@pytest.mark.parametrize("kind", ["WorkloadEndpoint", "Profile"])
def test_kinds_without_a_stored_form(kind: str) -> None:
    """R-6."""
    with pytest.raises(LoadError) as caught:
        load_text(document(kind, {"name": "p"}, {}))
    assert [problem.code for problem in caught.value.problems] == ["kind"]


ALLOW = [{"action": "Allow"}]


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize(
    ("spec", "stored", "written"),
    [
        ({}, (True, True), (True, False)),
        ({"ingress": ALLOW}, (True, True), (True, False)),
        ({"egress": ALLOW}, (True, True), (False, True)),
        ({"types": ["Egress"], "ingress": ALLOW}, (False, True), (False, True)),
    ],
)
def test_types(
    kind: str, spec: dict[str, Any], stored: tuple[bool, bool], written: tuple[bool, bool]
) -> None:
    """E-13, R-5: without types both directions, in the stored form only; E-12 for the other."""

    def applies(version: str) -> tuple[bool, bool]:
        snapshot = Snapshot.of(load_text(document(kind, {"name": "p"}, spec, version)))
        [policy] = json.loads(core_model(snapshot, Settings()))["policies"]
        return policy["applies_ingress"], policy["applies_egress"]

    assert (applies(V1), applies(V3)) == (stored, written)


def test_lists() -> None:
    """The items of a list leave kind and version out."""
    items = [{"metadata": {"name": "default.p", "annotations": {STASH: "{}"}}, "spec": {}}]
    text = json.dumps({"apiVersion": V1, "kind": "GlobalNetworkPolicyList", "items": items})
    assert one(text).key == "GlobalNetworkPolicy/p"
