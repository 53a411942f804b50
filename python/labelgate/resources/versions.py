"""What documents may say in `apiVersion`."""

from __future__ import annotations

CALICO = "projectcalico.org/v3"
STORED = "crd.projectcalico.org/v1"
"""The form in which older clusters store Calico's resources (R-2)."""
CORE = "v1"
NETWORKING = "networking.k8s.io/v1"
DISCOVERY = "discovery.k8s.io/v1"
CLUSTER_POLICY = "policy.networking.k8s.io/v1alpha2"
OURS = "labelgate/v1"
