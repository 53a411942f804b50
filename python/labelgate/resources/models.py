"""Which kinds are read, and where their models are: each is imported when a document is of its kind."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from labelgate.resources.metadata import Resource
from labelgate.resources.versions import CALICO, CLUSTER_POLICY, CORE, DISCOVERY, NETWORKING, OURS, STORED

_CALICO_MODELS = {
    "GlobalNetworkPolicy": "policy",
    "NetworkPolicy": "policy",
    "HostEndpoint": "endpoint",
    "WorkloadEndpoint": "endpoint",
    "GlobalNetworkSet": "sets",
    "NetworkSet": "sets",
    "Profile": "policy",
    "Tier": "policy",
    "FelixConfiguration": "felix",
}
_STAGED_MODELS = dict.fromkeys(
    ("StagedGlobalNetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy"), "staged"
)
_NOT_STORED = ("WorkloadEndpoint", "Profile")
"""Of Calico's kinds: they have no stored form (R-6)."""

_Kind = tuple[str, str]
"""`apiVersion` and `kind`."""
_MODELS: dict[_Kind, tuple[str, str]] = {
    **{(CALICO, kind): (module, kind) for kind, module in _CALICO_MODELS.items()},
    (NETWORKING, "NetworkPolicy"): ("kubernetes", "KubernetesNetworkPolicy"),
    **{(CORE, kind): ("kubernetes", kind) for kind in ("Namespace", "Pod", "ServiceAccount")},
    (CORE, "Service"): ("service", "Service"),
    (DISCOVERY, "EndpointSlice"): ("service", "EndpointSlice"),
    **{(CALICO, kind): (module, kind) for kind, module in _STAGED_MODELS.items()},
    (CLUSTER_POLICY, "ClusterNetworkPolicy"): ("cluster_policy", "KubernetesClusterNetworkPolicy"),
}
"""Module and name of each."""
_STORED = {
    (STORED, kind): (module, kind)
    for kind, module in {**_CALICO_MODELS, **_STAGED_MODELS}.items()
    if kind not in _NOT_STORED
}
"""The kinds that have a stored form too (R-2)."""
_TEST: dict[_Kind, tuple[str, str]] = {(OURS, "PolicyTest"): ("expectations", "PolicyTest")}
_ALL = _MODELS | _STORED | _TEST
KINDS: tuple[_Kind, ...] = tuple(_ALL)
"""All that documents can be of."""


def model_of(version: str, kind: str) -> type[Resource] | None:
    """The model of such documents; None where the kind is not one that is read."""
    found = _ALL.get((version, kind))
    return None if found is None else _imported(*found)


@cache
def _imported(module: str, name: str) -> type[Resource]:
    model: type[Resource] = getattr(import_module(f"labelgate.resources.{module}"), name)
    return model


def resource_types() -> tuple[type[Resource], ...]:
    """The models of all resources, each once: a PolicyTest is none."""
    found = (model_of(*one) for one in _MODELS)
    return tuple(model for model in found if model is not None)
