"""The policies of the five worked examples of semantics section 8; pods have IPv6 addresses, too."""

from __future__ import annotations

PODS = """\
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
  labelsToApply: {pcns.projectcalico.org/name: shop}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {app: web, projectcalico.org/namespace: shop}}
spec:
  {node: edge1, interfaceName: cali111, ipNetworks: [10.65.0.2/32, "fd00:65::2/128"], profiles: [kns.shop]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db, namespace: shop, labels: {app: db, projectcalico.org/namespace: shop}}
spec:
  {node: edge1, interfaceName: cali222, ipNetworks: [10.65.0.3/32, "fd00:65::3/128"], profiles: [kns.shop]}
---
"""
EDGE = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge1-out, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10]}
---
"""
WORKLOAD = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web-front, namespace: shop}
spec:
  order: 100
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress:
  - action: Allow
    protocol: TCP
    source: {nets: [203.0.113.0/24], notNets: [203.0.113.99/32]}
    destination: {ports: [443]}
  egress:
  - action: Allow
    protocol: TCP
    destination: {selector: app == 'db', ports: [5432]}
"""
MANAGEMENT = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge-mgmt}
spec:
  order: 100
  selector: role == 'edge'
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: [9100]}}
"""
TRANSIT = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge-transit}
spec:
  order: 50
  selector: role == 'edge'
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [445]}}
  - {action: Allow, source: {nets: [203.0.113.0/24]}}
"""
NODE_PORTS = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nodeport-guard}
spec:
  order: 10
  selector: role == 'edge'
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: [30443]}}
  - {action: Deny, protocol: TCP, destination: {ports: ["30000:32767", 22]}}
"""
RESOLVER = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge1-in, labels: {role: resolver}}
spec: {node: edge1, interfaceName: eth1, expectedIPs: [10.9.0.10]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: dns-fast}
spec:
  order: 5
  selector: role == 'resolver'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Deny, source: {nets: [10.9.66.0/24]}}
  - {action: Allow, protocol: UDP, source: {nets: [10.9.0.0/16]}, destination: {ports: [53]}}
  egress:
  - {action: Allow, protocol: UDP, source: {ports: [53]}, destination: {nets: [10.9.0.0/16]}}
"""
ANY = EDGE.replace("interfaceName: eth0", 'interfaceName: "*"')
POLICIES = {
    "workload-policy": PODS + WORKLOAD,
    "host-endpoint": PODS + EDGE + MANAGEMENT,
    "apply-on-forward": PODS + EDGE + TRANSIT,
    "apply-on-forward-any": PODS + ANY + TRANSIT,
    "prednat": PODS + EDGE + NODE_PORTS,
    "do-not-track": PODS + RESOLVER,
}
