"""Random small worlds: resources that load, and packets that are likely to meet them.

Everything is drawn from small pools, so that labels, addresses, ports and names coincide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

from labelgate.flow import HOOKS, CtState, IPAddress, Packet
from labelgate.resources import load_text
from labelgate.settings import Failsafe, HostFacts, Settings
from labelgate.snapshot import Snapshot

CALICO, NETWORKING, CORE = "projectcalico.org/v3", "networking.k8s.io/v1", "v1"
DISCOVERY, CLUSTERWIDE = "discovery.k8s.io/v1", "policy.networking.k8s.io/v1alpha2"
STORED = "crd.projectcalico.org/v1"
Document = dict[str, Any]

NODES = ("edge1", "edge1", "edge1", "edge1", "edge2")
NAMESPACES = ("shop", "lab")
KEYS, VALUES = ("a", "b", "role"), ("x", "y", "xy")
INHERITED = ("projectcalico.org/namespace", "projectcalico.org/serviceaccount", "pcns.a", "pcsa.a")
ACCOUNTS = ("front", "back")
SERVICES = ("pay", "mail")
V4 = ("10.65.0.2", "10.65.0.3", "10.65.0.4", "10.9.0.10", "198.51.100.10", "203.0.113.7", "192.0.2.5")
V6 = ("fd00:65::2", "fd00:65::3", "fd00:9::10", "2001:db8::7", "fe80::1", "::")
NETS4 = ("10.65.0.0/30", "10.65.0.2/32", "10.0.0.0/8", "203.0.113.0/24", "0.0.0.0/0", "192.0.2.4/31")
NETS6 = ("fd00:65::/64", "fd00::/8", "2001:db8::7/128", "::/0")
PORTS = (22, 53, 53, 80, 80, 80, 443, 179, 4789, 40000)
RANGES = ("50:90", "50:80", "81:442", "1:65535")
PORT_NAMES = ("http", "dns", "none")
TIERS = ("default", "default", "first", "second", "kube-admin", "missing")
INTERFACES = ("eth0", "eth1", "eth2", "lo", "cali1", "cali2", "cali9")
CT_STATES: tuple[CtState, ...] = ("established", "related", "invalid", "untracked")
PROFILES = ("kns.shop", "kns.lab", "ksa.shop.front", "open", "strict", "gone", "projectcalico-default-allow")
HOST = HostFacts(
    {
        "eth0": ("198.51.100.10",),
        "eth1": ("10.9.0.10", "fd00:9::10"),
        "lo": ("127.0.0.1", "::1"),
        "cali1": (),
        "cali2": (),
    }
)


NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, 1: 1, 4: 4, 58: 58}
RULE_FIELDS = {"source", "destination", "from", "to", "ports"}


@dataclass(frozen=True)
class World:
    """What one random test is about."""

    documents: list[Document]
    settings: Settings

    def snapshot(self) -> Snapshot:
        return Snapshot.of(load_text("\n---\n".join(map(json.dumps, self.documents))))


@dataclass(frozen=True)
class Edges:
    """Where the nets and ports of one side of a rule begin and end, and one beyond."""

    addresses: tuple[IPAddress, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Aim:
    """The edges of one rule."""

    protocol: int | None
    source: Edges
    destination: Edges


def aims(node: Any) -> Iterator[Aim]:
    """Those of every rule in the documents, Calico's or Kubernetes'."""
    if isinstance(node, list):
        for inner in node:
            yield from aims(inner)
    elif isinstance(node, dict):
        if not RULE_FIELDS.isdisjoint(node):
            source = [node.get("source"), node.get("from")]
            destination = [node.get("destination"), node.get("to"), node.get("ports")]
            yield Aim(NUMBERS.get(node.get("protocol")), edges(source), edges(destination))
        for inner in node.values():
            yield from aims(inner)


def edges(node: Any) -> Edges:
    """All edges of everything in there that looks like a net or a port."""
    addresses, ports = set[IPAddress](), set[int]()
    for value in leaves(node):
        first, _, last = str(value).partition(":")
        if first.isdigit() and (last.isdigit() or not last):
            ports |= {int(first) - 1, int(first), int(last or first), int(last or first) + 1}
            continue
        try:
            net = ip_network(value, strict=False)
        except ValueError:
            continue
        for number in (int(net[0]) - 1, int(net[0]), int(net[-1]), int(net[-1]) + 1):
            if 0 <= number < 2**net.max_prefixlen:
                addresses.add(type(net[0])(number))
    return Edges(
        tuple(sorted(addresses, key=lambda address: (address.version, address))),
        tuple(sorted(port for port in ports if 0 <= port <= 65535)),
    )


def leaves(node: Any) -> Iterator[Any]:
    """Every number and text in the documents."""
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from leaves(inner)
    elif isinstance(node, int | str) and not isinstance(node, bool):
        yield node


NOWHERE = Aim(None, Edges(), Edges())


class Dice:
    """Draws worlds and packets."""

    def __init__(self, seed: int | Random) -> None:
        self.random = Random(seed) if isinstance(seed, int) else seed
        self.pick = self.random.choice

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def some(self, pool: tuple[Any, ...], most: int = 3) -> list[Any]:
        return self.random.sample(pool, self.random.randint(0, min(most, len(pool))))

    def maybe(self, percent: int, **fields: Any) -> Document:
        return {name: value for name, value in fields.items() if self.chance(percent)}

    # selectors and labels

    def labels(self) -> dict[str, str]:
        return {key: self.pick(VALUES) for key in KEYS if self.chance(50)}

    def selector(self, depth: int = 2, extra: tuple[str, ...] = ()) -> str:
        kind = self.random.randrange(10)
        if depth and kind < 3:
            operator = self.pick((" && ", " || "))
            return f"({operator.join(self.selector(depth - 1, extra) for _ in range(2))})"
        if depth and kind == 3:
            return f"!{self.selector(depth - 1, extra)}"
        key = self.pick(KEYS + extra)
        values = ", ".join(f"'{value}'" for value in self.some(VALUES + NAMESPACES))
        return self.pick(
            (
                "all()",
                f"has({key})",
                f"{key} == '{self.pick(VALUES + NAMESPACES)}'",
                f"{key} != '{self.pick(VALUES)}'",
                f"{key} in {{{values}}}",
                f"{key} not in {{{values}}}",
                f"{key} contains 'x'",
                f"{key} starts with 'x'",
                f"{key} endswith 'y'",
            )
        )

    # rules

    def entity(self, nets: tuple[str, ...], ports: str) -> Document:
        entity: Document = {}
        if self.chance(25):
            entity["nets"] = self.some(nets)
        if self.chance(15):
            entity["notNets"] = [net for net in self.some(nets) if not net.endswith("/0")]
        entity |= self.maybe(25, selector=self.selector(extra=INHERITED))
        entity |= self.maybe(10, notSelector=self.selector())
        if self.chance(12):
            entity["namespaceSelector"] = self.pick(("global()", "all()", self.selector(), "!all()"))
        if self.chance(6):
            accounts = self.maybe(50, names=self.some(ACCOUNTS), selector=self.selector(1))
            entity["serviceAccounts"] = accounts
        if ports != "none" and self.chance(45):
            entity[self.pick(("ports", "notPorts"))] = [self.port(ports) for _ in range(self.pick((1, 2)))]
        return entity

    def port(self, ports: str) -> int | str:
        if ports == "named" or self.chance(30):
            return self.pick(PORT_NAMES)
        return self.pick(RANGES) if self.chance(50) else self.pick(PORTS)

    def service(self) -> Document:
        return {"name": self.pick((*SERVICES, "gone")), "namespace": self.pick(NAMESPACES)}

    def service_rule(self, direction: str) -> Document:
        """M-31, M-32: the peer is a service."""
        if direction == "egress":
            return {"action": self.pick(("Allow", "Deny")), "destination": {"services": self.service()}}
        source: Document = {"services": self.service()} | self.maybe(30, ports=[self.pick(PORT_NAMES)])
        rule = {"action": self.pick(("Allow", "Deny")), "source": source}
        return rule | self.maybe(20, destination={"notPorts": [self.pick(PORT_NAMES)]})

    def rule(self) -> Document:
        protocol = self.pick((None, None, None, "TCP", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6", 1, 58, 4))
        nets = self.pick((NETS4, NETS4, NETS6))
        ports = {None: "named", "TCP": "any", "UDP": "any", "SCTP": "any"}.get(protocol, "none")
        rule: Document = {"action": self.pick(("Allow", "Allow", "Deny", "Pass", "Log"))}
        if protocol is not None:
            rule["protocol"] = protocol
        elif self.chance(15):
            rule["notProtocol"] = self.pick(("TCP", "UDP", 47))
        if protocol in ("ICMP", "ICMPv6", 1, 58) and self.chance(60):
            icmp = {"type": self.pick((8, 3, 135))} | self.maybe(50, code=self.pick((0, 1)))
            rule[self.pick(("icmp", "notICMP"))] = self.pick((icmp, icmp, {}))
        if self.chance(50):
            rule["source"] = self.entity(nets, ports)
        if self.chance(50):
            rule["destination"] = self.entity(nets, ports)
        version = 4 if nets is NETS4 else 6
        if self.chance(10) and protocol not in ("ICMP", "ICMPv6", 1, 58):
            rule["ipVersion"] = version
        return rule

    def rules(self, direction: str) -> list[Document]:
        """Rules of one direction; ones with only a named port would be rare among those of many criteria."""
        if self.chance(10):
            return [self.service_rule(direction), *(self.rule() for _ in range(self.pick((0, 1))))]
        if self.chance(10):
            side, field = self.pick(("source", "destination")), self.pick(("ports", "notPorts"))
            action = self.pick(("Allow", "Deny"))
            return [
                {"action": action, side: {field: [self.pick(PORT_NAMES)]} | self.maybe(30, selector="has(a)")}
            ]
        return [self.rule() for _ in range(self.random.randint(0, 4))]

    # resources

    def metadata(self, name: str, namespace: str | None = None, *, labelled: bool = True) -> Document:
        metadata: Document = {"name": name}
        if namespace is not None:
            metadata["namespace"] = namespace
        return metadata | ({"labels": self.labels()} if labelled else {})

    def resource(self, version: str, kind: str, metadata: Document, spec: Document) -> Document:
        return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}

    def policy_spec(self) -> Document:
        spec = self.maybe(
            60,
            order=self.pick((1, 1, 1000, 2.5, -3)),
            tier=self.pick(TIERS),
            selector=self.selector(1, INHERITED),
            ingress=self.rules("ingress"),
            egress=self.rules("egress"),
        )
        return spec | self.maybe(
            20,
            types=self.pick((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
            serviceAccountSelector=self.selector(1),
        )

    def global_policy(self, name: str) -> Document:
        spec = self.policy_spec() | self.maybe(25, namespaceSelector=self.selector(1))
        kind = self.pick(("normal", "normal", "forward", "forward", "doNotTrack", "preDNAT"))
        if kind != "normal":
            spec["applyOnForward"] = True
        if kind in ("doNotTrack", "preDNAT"):
            spec[kind] = True
        if kind == "preDNAT":
            spec.pop("egress", None)
            spec.pop("types", None)
        kind = "GlobalNetworkPolicy"
        return self.perhaps_staged(self.resource(CALICO, kind, self.metadata(name, labelled=False), spec))

    def perhaps_staged(self, policy: Document) -> Document:
        """One policy in four is staged, one in ten of Calico's stored; deletions are empty (V-46)."""
        if policy["apiVersion"] == CALICO and self.chance(10):
            policy = policy | {"apiVersion": STORED}
        if not self.chance(25):
            return policy
        is_kubernetes = policy["apiVersion"] == NETWORKING
        kind = f"Staged{'Kubernetes' if is_kubernetes else ''}{policy['kind']}"
        action = self.pick((None, "Set", "Learn", "Ignore", "Delete"))
        spec = {} if action == "Delete" else policy["spec"]
        spec |= {} if action is None else {"stagedAction": action}
        version = CALICO if is_kubernetes else policy["apiVersion"]
        return policy | {"apiVersion": version, "kind": kind, "spec": spec}

    def kubernetes_selector(self) -> Document:
        expressions = [
            {"key": self.pick(KEYS), "operator": operator}
            | ({"values": [self.pick(VALUES)]} if operator in ("In", "NotIn") else {})
            for operator in self.some(("In", "NotIn", "Exists", "DoesNotExist"), 1)
        ]
        return self.maybe(40, matchLabels={self.pick(KEYS): self.pick(VALUES)}, matchExpressions=expressions)

    def kubernetes_peer(self) -> Document:
        if self.chance(30):
            return {"ipBlock": {"cidr": "10.0.0.0/8"} | self.maybe(50, **{"except": ["10.65.0.2/32"]})}
        peer = self.maybe(50, podSelector=self.kubernetes_selector())
        peer |= self.maybe(50, namespaceSelector=self.kubernetes_selector())
        return peer or {"podSelector": {}}

    def kubernetes_rules(self, side: str) -> list[Document]:
        def port() -> Document:
            entry = self.maybe(60, protocol=self.pick(("TCP", "UDP", "SCTP")))
            entry |= self.maybe(80, port=self.pick((22, 53, 80, "http", "dns")))
            return entry | (
                {"endPort": 443} if isinstance(entry.get("port"), int) and self.chance(30) else {}
            )

        return [
            self.maybe(
                70,
                ports=[port() for _ in range(self.random.randint(0, 3))],
                **{side: [self.kubernetes_peer() for _ in range(self.random.randint(0, 2))]},
            )
            for _ in range(self.random.randint(0, 2))
        ]

    def kubernetes_policy(self, name: str) -> Document:
        spec: Document = {"podSelector": self.kubernetes_selector()}
        spec |= self.maybe(50, ingress=self.kubernetes_rules("from"), egress=self.kubernetes_rules("to"))
        spec |= self.maybe(30, policyTypes=self.pick((["Ingress"], ["Egress"], ["Ingress", "Egress"])))
        metadata = self.metadata(name, self.pick(NAMESPACES), labelled=False)
        return self.perhaps_staged(self.resource(NETWORKING, "NetworkPolicy", metadata, spec))

    def cluster_peer(self, direction: str) -> Document:
        kinds = (
            ("namespaces", "pods", "networks", "nodes") if direction == "egress" else ("namespaces", "pods")
        )
        values: Document = {
            "namespaces": self.kubernetes_selector(),
            "pods": {
                "namespaceSelector": self.kubernetes_selector(),
                "podSelector": self.kubernetes_selector(),
            },
            "networks": [self.pick(NETS4), self.pick(NETS4 + NETS6)],
            "nodes": {},
        }
        return {kind: values[kind] for kind in [self.pick(kinds)]}

    def cluster_protocol(self) -> Document:
        if self.chance(20):
            return {"destinationNamedPort": self.pick(PORT_NAMES)}
        port = self.pick(({"number": self.pick(PORTS)}, {"range": {"start": 50, "end": 90}}))
        return {self.pick(("tcp", "tcp", "udp", "sctp")): self.maybe(75, destinationPort=port)}

    def cluster_rules(self, direction: str) -> list[Document]:
        return [
            {
                "action": self.pick(("Accept", "Deny", "Pass")),
                "to" if direction == "egress" else "from": [
                    self.cluster_peer(direction) for _ in range(self.pick((1, 2)))
                ],
            }
            | self.maybe(60, protocols=[self.cluster_protocol() for _ in range(self.pick((1, 2)))])
            for _ in range(self.random.randint(0, 2))
        ]

    def cluster_policy(self, name: str) -> Document:
        """K-20 to K-27."""
        spec = {
            "tier": self.pick(("Admin", "Baseline")),
            "priority": self.pick((1, 1, 1000)),
            "subject": self.cluster_peer("ingress"),
        } | self.maybe(80, ingress=self.cluster_rules("ingress"), egress=self.cluster_rules("egress"))
        metadata = self.metadata(name, labelled=False)
        return self.resource(CLUSTERWIDE, "ClusterNetworkPolicy", metadata, spec)

    def endpoint_ports(self) -> list[Document]:
        return [
            {"name": "http", "protocol": self.pick(("TCP", "TCP", 132)), "port": self.pick((80, 80, 443))},
            {"name": "dns", "protocol": self.pick(("UDP", 17, "TCP")), "port": 53},
        ][: self.random.randint(0, 2)]

    def host_endpoint(self, name: str) -> Document:
        spec: Document = {"node": self.pick(NODES), "expectedIPs": self.some(V4 + V6, 2)}
        interface = self.pick(("eth0", "eth1", "eth2", "*", "*", "lo", "cali1", ""))
        if interface or not spec["expectedIPs"]:
            spec["interfaceName"] = interface or "eth0"
        spec |= self.maybe(50, profiles=self.some(PROFILES), ports=self.endpoint_ports())
        return self.resource(CALICO, "HostEndpoint", self.metadata(name), spec)

    def workload_endpoint(self, name: str) -> Document:
        spec = {
            "orchestrator": self.pick(("k8s", "vm")),
            "workload": "w",
            "endpoint": "eth0",
            "node": self.pick(NODES),
            "interfaceName": self.pick(("cali1", "cali2", "cali3", "eth2")),
            "ipNetworks": self.some(V4, 1) + self.some(V6[:4], 1),
            "profiles": self.some(PROFILES),
            "ports": self.endpoint_ports(),
        }
        spec |= self.maybe(30, serviceAccountName="front", allowSpoofedSourcePrefixes=["10.9.0.0/16"])
        return self.resource(CALICO, "WorkloadEndpoint", self.metadata(name, self.pick(NAMESPACES)), spec)

    def pod(self, name: str) -> Document:
        containers = [
            {
                "name": "c",
                "ports": [{"name": "http", "containerPort": self.pick((80, 80, 443))}, {"containerPort": 1}],
            },
            {"name": "d", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        ]
        spec = self.maybe(85, nodeName=self.pick(NODES), serviceAccountName=self.pick(ACCOUNTS))
        spec |= self.maybe(10, hostNetwork=True) | {"containers": containers}
        addresses = [{"ip": address} for address in self.some(V4, 1) + self.some(V6[:4], 1)]
        phase = self.pick(("Running", "Running", "Running", "Failed"))
        pod = self.resource(CORE, "Pod", self.metadata(name, self.pick(NAMESPACES)), spec)
        return pod | {"status": {"phase": phase, "podIPs": addresses}}

    def network_set(self, name: str) -> Document:
        nets = self.some((*NETS4[:4], *NETS6[:3], "192.0.2.5", "10.65.0.3/24"))
        if self.chance(50):
            return self.resource(CALICO, "GlobalNetworkSet", self.metadata(name), {"nets": nets})
        return self.resource(CALICO, "NetworkSet", self.metadata(name, self.pick(NAMESPACES)), {"nets": nets})

    def endpoint_slice(self, name: str) -> Document:
        """M-31: also names instead of addresses, ports without a number, backends that are not ready."""
        addresses = self.some((*V4, *V6[:4], "backend.example"))
        ports = [
            self.maybe(60, protocol=self.pick(("TCP", "UDP", "SCTP"))) | self.maybe(85, port=self.pick(PORTS))
            for _ in range(self.random.randint(0, 3))
        ]
        metadata = self.metadata(name, self.pick(NAMESPACES), labelled=False)
        metadata |= self.maybe(90, labels={"kubernetes.io/service-name": self.pick(SERVICES)})
        endpoints = [{"addresses": [address], "conditions": {"ready": False}} for address in addresses]
        identity = {"apiVersion": DISCOVERY, "kind": "EndpointSlice", "metadata": metadata}
        return identity | {"addressType": "IPv4", "endpoints": endpoints, "ports": ports}

    def profile(self, name: str) -> Document:
        spec = self.maybe(
            60, ingress=self.rules("ingress"), egress=self.rules("egress"), labelsToApply=self.labels()
        )
        return self.resource(CALICO, "Profile", self.metadata(name, labelled=False), spec)

    def frame(self) -> list[Document]:
        """What most worlds have: namespaces, accounts, profiles, tiers."""
        documents = [
            self.resource(CORE, "Namespace", self.metadata(name), {})
            for name in NAMESPACES
            if self.chance(80)
        ]
        documents += [
            self.resource(CORE, "ServiceAccount", self.metadata("front", name), {})
            for name in NAMESPACES
            if self.chance(70)
        ]
        documents += [self.profile(name) for name in ("open", "strict", "kns.lab") if self.chance(60)]
        for tier in ("first", "second"):
            spec = self.maybe(60, order=self.pick((10, 2000000)), defaultAction=self.pick(("Pass", "Deny")))
            if self.chance(80):
                documents.append(self.resource(CALICO, "Tier", {"name": tier}, spec))
        return documents

    def documents(self) -> list[Document]:
        documents = self.frame()
        for make, most in (
            (self.host_endpoint, 4),
            (self.workload_endpoint, 3),
            (self.pod, 3),
            (self.network_set, 2),
            (self.endpoint_slice, 4),
            (self.global_policy, 6),
            (self.kubernetes_policy, 2),
            (self.cluster_policy, 2),
        ):
            documents += [make(chr(97 + index)) for index in range(self.random.randint(0, most))]
        for index in range(self.random.randint(0, 2)):
            metadata = self.metadata(chr(97 + index), self.pick(NAMESPACES), labelled=False)
            policy = self.resource(CALICO, "NetworkPolicy", metadata, self.policy_spec())
            documents.append(self.perhaps_staged(policy))
        return documents

    def settings(self) -> Settings:
        net = ip_network(self.pick(("203.0.113.0/24", "fd00::/8", "10.0.0.0/8")))
        extra = (Failsafe(6, 80, net), Failsafe(17, 443, net)) if self.chance(40) else ()
        return Settings(
            endpoint_to_host=self.pick(("Drop", "Accept", "Return")),
            invalid_check=self.chance(80),
            failsafe_inbound=Settings().failsafe_inbound + extra,
            failsafe_outbound=Settings().failsafe_outbound + extra,
            workload_prefixes=self.pick((("cali",), ("cali",), ("cali", "eth2"))),
            workload_vxlan_port=self.pick((4789, None)),
            workload_ipip_denied=self.chance(70),
            forward_unmarked=self.pick(("return", "accept", "deny")),
            exempt_loopback=self.chance(30),
        )

    def world(self) -> World:
        return World(self.documents(), self.settings())

    # packets

    def packet(self, interfaces: tuple[str, ...], aimed: tuple[Aim, ...] = ()) -> Packet:
        """A packet at a hook, on interfaces of the endpoints, often at the edges of one of the rules."""
        aim = self.pick(aimed) if aimed and self.chance(60) else NOWHERE
        version = 4 if self.chance(75) else 6
        pool: tuple[Any, ...] = V4 if version == 4 else V6
        source, destination = (
            tuple(address for address in side.addresses if address.version == version) or pool
            for side in (aim.source, aim.destination)
        )
        sport, dport = aim.source.ports or PORTS, aim.destination.ports or PORTS
        protocol = aim.protocol or self.pick((6, 6, 6, 6, 17, 17, 132, 136, 1, 58, 4, 47))
        hook = self.pick((*HOOKS, "filter-input", "filter-forward", "filter-forward", "filter-output"))
        has_in = hook in ("raw-prerouting", "mangle-prerouting", "filter-input", "filter-forward")
        has_out = not has_in or hook == "filter-forward"
        has_ports, has_type = protocol in (6, 17, 132, 136), protocol in (1, 58)
        return Packet(
            hook=hook,
            src=ip_address(self.pick(source)),
            dst=ip_address(self.pick(destination)),
            protocol=protocol,
            sport=self.pick(sport) if has_ports else None,
            dport=self.pick(dport) if has_ports else None,
            icmp_type=self.pick((8, 3, 135, 128)) if has_type else None,
            icmp_code=self.pick((0, 1)) if has_type else None,
            in_=self.interface(interfaces) if has_in or self.chance(3) else None,
            out=self.interface(interfaces) if has_out or self.chance(3) else None,
            ct=self.pick(CT_STATES) if self.chance(25) else "new",
            accepted=self.chance(10),
            dnatted=self.chance(85 if hook == "mangle-postrouting" else 5),
            fragment=self.chance(8),
        )

    def interface(self, known: tuple[str, ...]) -> str:
        return self.pick(known) if known and self.chance(75) else self.pick(INTERFACES)
