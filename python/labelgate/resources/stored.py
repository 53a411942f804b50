"""The form in which older clusters store Calico's resources (`crd.projectcalico.org/v1`, R-2..R-5)."""

from __future__ import annotations

import json
from typing import Any

from labelgate.resources.errors import Wrong, describe
from labelgate.resources.versions import STORED

STASH = "projectcalico.org/metadata"
"""The annotation that may hold the metadata of the user's resource as JSON (R-3)."""

_POLICY_KINDS = ("GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy", "StagedNetworkPolicy")


def restored(data: dict[str, Any]) -> dict[str, Any]:
    """A document of the stored form as the user's resource; any other unchanged.

    Raises `Wrong` where the annotation does not hold metadata.
    """
    metadata = data.get("metadata")
    if data.get("apiVersion") != STORED or not isinstance(metadata, dict):
        return data
    if data.get("spec") is None:
        data = data | {"spec": {}}  # only the v3 form demands it
    annotations = metadata.get("annotations")
    if not isinstance(annotations, dict) or STASH not in annotations:
        return data
    stash = _stash(annotations[STASH])
    merged = dict(metadata)
    for field in ("labels", "annotations"):
        own = metadata.get(field)
        # What is no mapping is left for the checks that all resources pass.
        if stash.get(field) and (own is None or isinstance(own, dict)):
            merged[field] = {**(own or {}), **stash[field]}
    merged["annotations"] = {key: text for key, text in merged["annotations"].items() if key != STASH}
    if data.get("kind") in _POLICY_KINDS:
        merged["name"] = stash.get("name") or _without_tier(metadata.get("name"), data["spec"])
    return data | {"metadata": merged}


def _stash(text: Any) -> dict[str, Any]:
    try:
        stash = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        stash = text
    if stash is None:
        return {}
    is_metadata = isinstance(stash, dict) and (
        isinstance(stash.get("name"), str | None)
        and all(isinstance(stash.get(field, {}), dict | None) for field in ("labels", "annotations"))
    )
    if isinstance(text, str) and is_metadata:
        return dict(stash)
    raise Wrong("stashed-metadata", describe(text))


def _without_tier(name: Any, spec: Any) -> Any:
    """R-4: in the default tier the stored name may begin with `default.`."""
    tier = spec.get("tier") if isinstance(spec, dict) else None
    if isinstance(name, str) and tier in (None, "", "default"):
        return name.removeprefix("default.") or name
    return name
