"""Rules of Calico policies and profiles, and what is wrong in them (V-10..V-36, V-48)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator

from labelgate.resources.errors import Finding, Findings, Path, Wrong, describe, quote
from labelgate.resources.metadata import annotation_findings
from labelgate.resources.part import Part
from labelgate.resources.values import (
    ICMP,
    ICMPV6,
    PROTOCOLS,
    TCP,
    WITH_PORTS,
    IPNetwork,
    NamespaceSelector,
    Net,
    NotNet,
    Port,
    PortRange,
    Protocol,
    Reference,
    Selector,
    SelectorWithoutGlobal,
    is_integer,
    one_of,
)

MAX_RULES, MAX_NETS, MAX_PORTS, MAX_HTTP = 1024, 256, 50, 20


def _ip_version(value: Any) -> int:
    if is_integer(value) and value in (4, 6):
        return int(value)
    hint = "write it without quotes" if value in ("4", "6") else None
    raise Wrong("ip-version", describe(value), hint=hint)


def _icmp_number(code: str, last: int) -> PlainValidator:
    def parse(value: Any) -> int:
        if is_integer(value) and 0 <= value <= last:
            return int(value)
        raise Wrong(code, describe(value))

    return PlainValidator(parse, json_schema_input_type=int)


def protocol_text(number: int) -> str:
    """A protocol by its name where it has one."""
    return next((f"`{name}`" for name, known in PROTOCOLS.items() if known == number), f"`{number}`")


class Icmp(Part):
    """ICMP type and code (M-33)."""

    type: Annotated[int | None, _icmp_number("icmp-type-range", 254)] = None
    code: Annotated[int | None, _icmp_number("icmp-code-range", 255)] = None

    def findings(self) -> Findings:
        """V-22."""
        if self.code is not None and self.type is None:
            yield Finding(("code",), Wrong("icmp-code", f"`code: {self.code}`"), (("type",),))


class ServiceAccounts(Part):
    """Service accounts of a peer, by name, by selector, or both (M-30)."""

    names: list[str] = Field(default_factory=list)
    selector: Selector = ""


class Services(Part):
    """A service whose backends are meant (M-31, M-32)."""

    name: Reference = ""
    namespace: Reference = ""
    """Empty in a namespaced policy is its own namespace (V-55)."""

    def findings(self) -> Findings:
        """V-51."""
        if not self.name:
            yield Finding((), Wrong("services-name", "no `name`"), (("name",),))


class EntityRule(Part):
    """What a rule demands of one side of a packet."""

    field_hints: ClassVar[dict[str, str]] = {
        "protocol": "`protocol` stands beside `source` and `destination`",
        "action": "`action` stands beside `source` and `destination`",
        "podSelector": "Calico rules use `selector`",
        "ipBlock": "Calico rules use `nets` and `notNets`",
        "port": "use the list `ports`",
        "net": "use the list `nets`",
        "domains": "packets show no names, and a rule without it would match more; list addresses as `nets`",
    }

    nets: list[Net] = Field(default_factory=list, max_length=MAX_NETS)
    not_nets: list[NotNet] = Field(default_factory=list, max_length=MAX_NETS)
    selector: SelectorWithoutGlobal = ""
    not_selector: Selector = ""
    namespace_selector: NamespaceSelector = ""
    services: Services | None = None
    ports: list[Port] = Field(default_factory=list, max_length=MAX_PORTS)
    not_ports: list[Port] = Field(default_factory=list, max_length=MAX_PORTS)
    service_accounts: ServiceAccounts | None = None

    def findings(self) -> Findings:
        """V-50."""
        if self.services is None:
            return
        given = {
            "namespaceSelector": self.namespace_selector,
            "serviceAccounts": self.service_accounts is not None,
            "selector": self.selector,
            "notSelector": self.not_selector,
            "nets": self.nets,
            "notNets": self.not_nets,
        }
        beside = [f"`{field}`" for field, value in given.items() if value]
        if beside:
            yield Finding(("services",), Wrong("services-combined", ", ".join(beside)))

    def port_lists(self) -> Iterator[tuple[str, list[PortRange | str]]]:
        """Both port lists with their names in documents."""
        yield "ports", self.ports
        yield "notPorts", self.not_ports


_ANYWHERE = EntityRule()
"""One for all sides without criteria: pydantic copies, deep down, what is given as a default value."""


class HttpPath(Part):
    """A path of an HTTP rule."""

    exact: str | None = None
    prefix: str | None = None

    def findings(self) -> Findings:
        """V-34."""
        given = {
            name: text for name, text in (("exact", self.exact), ("prefix", self.prefix)) if text is not None
        }
        if len(given) != 1:
            found = "both" if given else "neither"
            yield Finding((), Wrong("http-path-form", found), (("exact",), ("prefix",)))
        for name, text in given.items():
            if not text.startswith("/") or any(letter in text for letter in "?# "):
                yield Finding((name,), Wrong("http-path", quote(text)))


class Http(Part):
    """HTTP criteria; they are checked, and refused all the same (M-40)."""

    methods: list[str] = Field(default_factory=list, max_length=MAX_HTTP)
    paths: list[HttpPath] = Field(default_factory=list, max_length=MAX_HTTP)

    def findings(self) -> Findings:
        """V-34, M-40."""
        yield Finding((), Wrong("http", "`http`"))
        for index, method in enumerate(self.methods):
            if method in self.methods[:index]:
                yield Finding(("methods", index), Wrong("http-method", quote(method)))


class RuleMetadata(Part):
    """Comments on a rule."""

    annotations: dict[str, str] = Field(default_factory=dict)

    def findings(self) -> Findings:
        """V-7."""
        yield from annotation_findings(self.annotations)


_PROTOCOL: Path = ("protocol",)
_PORTS_HINTS = {PROTOCOLS["UDPLite"]: "rules cannot name ports of UDPLite"}
_SIDES = ("source", "destination")


class Rule(Part):
    """One rule of a Calico policy or profile."""

    field_hints: ClassVar[dict[str, str]] = {
        "ports": "`ports` stands under `source` or `destination`",
        "nets": "`nets` stands under `source` or `destination`",
        "selector": "`selector` stands under `source` or `destination`",
        "from": "Calico rules use `source`",
        "to": "Calico rules use `destination`",
    }

    action: Annotated[
        str, PlainValidator(one_of("action", "Allow", "Deny", "Log", "Pass"), json_schema_input_type=str)
    ]
    ip_version: Annotated[int | None, PlainValidator(_ip_version, json_schema_input_type=int)] = None
    protocol: Protocol | None = None
    not_protocol: Protocol | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = Field(default=None, alias="notICMP")
    source: EntityRule = Field(default_factory=lambda: _ANYWHERE)
    destination: EntityRule = Field(default_factory=lambda: _ANYWHERE)
    http: Http | None = None
    metadata: RuleMetadata | None = None

    def findings(self) -> Findings:
        """V-14, V-15, V-21, V-24, V-25, V-28, V-29, V-31, V-32, V-53."""
        if self.protocol not in WITH_PORTS:
            yield from self._port_findings()
        if self.icmp is not None or self.not_icmp is not None or self.ip_version is not None:
            yield from self._icmp_findings()
        source, destination = self.source, self.destination
        if source.nets or source.not_nets or destination.nets or destination.not_nets:
            yield from self._net_findings()
        if self.http is not None:
            yield from self._http_findings()
        if self.destination.services is None:
            return
        if ports := [f"`{field}`" for field, ports in self.destination.port_lists() if ports]:
            path: Path = ("destination", "services")
            yield Finding(path, Wrong("services-ports", ", ".join(ports)))

    def sides(self) -> Iterator[tuple[str, EntityRule]]:
        """Source and destination with their names in documents."""
        yield "source", self.source
        yield "destination", self.destination

    def _port_findings(self) -> Findings:
        for side, entity in self.sides():
            for field, ports in entity.port_lists():
                if self.protocol is not None and ports:
                    found = f"protocol {protocol_text(self.protocol)}"
                    hint = _PORTS_HINTS.get(self.protocol)
                    yield Finding((side, field), Wrong("ports-protocol", found, hint=hint), (_PROTOCOL,))
                    continue
                for index, port in enumerate(ports):
                    if isinstance(port, PortRange):
                        path: Path = (side, field, index)
                        found = "a rule without `protocol`"
                        yield Finding(path, Wrong("ports-no-protocol", found), (_PROTOCOL,))
                        break

    def _icmp_findings(self) -> Findings:
        given = "no protocol" if self.protocol is None else f"protocol {protocol_text(self.protocol)}"
        if self.protocol not in (ICMP, ICMPV6):
            verb = "add" if self.protocol is None else "make it"
            hint = f"{verb} `protocol: {'ICMPv6' if self.ip_version == 6 else 'ICMP'}`"
            if self.icmp is not None:
                yield Finding(("icmp",), Wrong("icmp-protocol", given, hint=hint), (_PROTOCOL,))
            if self.not_icmp is not None:
                yield Finding(("notICMP",), Wrong("not-icmp-protocol", given, hint=hint), (_PROTOCOL,))
        other = {4: ICMPV6, 6: ICMP}.get(self.ip_version or 0)
        for field, number in (("protocol", self.protocol), ("notProtocol", self.not_protocol)):
            if number is not None and number == other:
                found = f"{protocol_text(number)} with `ipVersion: {self.ip_version}`"
                yield Finding((field,), Wrong("icmp-version", found))

    def _nets(self) -> Iterator[tuple[Path, IPNetwork]]:
        for side, entity in self.sides():
            for field, nets in (("nets", entity.nets), ("notNets", entity.not_nets)):
                for index, net in enumerate(nets):
                    yield (side, field, index), net

    def _net_findings(self) -> Findings:
        nets = list(self._nets())
        mixed = next(((path, net) for path, net in nets if net.version != nets[0][1].version), None)
        if mixed is not None:
            wrong = Wrong("net-families", f"`{mixed[1]}`", first=nets[0][1])
            yield Finding(mixed[0], wrong)
        for path, net in nets:
            if self.ip_version is not None and net.version != self.ip_version:
                yield Finding(path, Wrong("net-version", f"`{net}`", version=self.ip_version))

    def _http_findings(self) -> Findings:
        if self.action != "Allow":
            yield Finding(("http",), Wrong("http-action", f"action `{self.action}`"), (("action",),))
        if self.protocol not in (None, TCP):
            found = f"protocol {protocol_text(self.protocol or 0)}"
            yield Finding(("http",), Wrong("http-protocol", found), (_PROTOCOL,))


Rules = Annotated[list[Rule], Field(max_length=MAX_RULES)]


def direction_findings(ingress: list[Rule], egress: list[Rule]) -> Findings:
    """V-33, V-52: what rules of one direction cannot have; paths count from the mapping of both lists."""
    for index, rule in enumerate(ingress):
        if rule.destination.services is not None:
            wrong = Wrong("services-side", "`destination` of an ingress rule", side="source")
            yield Finding(("ingress", index, "destination", "services"), wrong)
    for index, rule in enumerate(egress):
        if rule.http is not None:
            yield Finding(("egress", index, "http"), Wrong("http-egress", "an egress rule"))
        if rule.source.services is not None:
            wrong = Wrong("services-side", "`source` of an egress rule", side="destination")
            yield Finding(("egress", index, "source", "services"), wrong)


def services_findings(ingress: list[Rule], egress: list[Rule]) -> Findings:
    """V-54: outside of a namespace services need theirs."""
    for direction, rules in (("ingress", ingress), ("egress", egress)):
        for index, rule in enumerate(rules):
            for side, entity in rule.sides():
                if entity.services is not None and not entity.services.namespace:
                    path: Path = (direction, index, side, "services")
                    yield Finding(
                        path, Wrong("services-namespace", "no `namespace`"), ((*path, "namespace"),)
                    )
