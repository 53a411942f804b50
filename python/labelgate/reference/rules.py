"""Rules as the law sees them: selectors are expressions already combined by M-21 to M-24."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from labelgate import resources
from labelgate.flow import Action
from labelgate.reference.labels import (
    NAMESPACE,
    NAMESPACE_PREFIX,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_PREFIX,
    IPNetwork,
)
from labelgate.reference.selectors import (
    All,
    And,
    Compare,
    Expression,
    Global,
    Has,
    Not,
    equals,
    parse,
    prefixed,
    replaced,
)
from labelgate.reference.services import Service

Port = tuple[int, int] | str
"""An inclusive range, or the name of a named port."""


@dataclass(frozen=True, slots=True)
class Icmp:
    """A type, or a type and a code (M-33)."""

    type: int
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """The criteria on one side of a packet; absent ones impose nothing (M-2)."""

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    positive: Expression | None = None
    """The address belongs to a member that satisfies this (M-20, M-21), notSelector included (M-24)."""
    negative: Expression | None = None
    """notSelector on its own: the address belongs to no member that satisfies this (M-24)."""
    ports: tuple[Port, ...] = ()
    not_ports: tuple[Port, ...] = ()
    service: Service | None = None
    """On a destination backends with their ports (M-31), on a source their addresses (M-32)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold for a packet, and what is done then."""

    action: Action
    ip_version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: Entity = Entity()
    destination: Entity = Entity()


ALLOW_ALL = Rule("Allow")


def rules_of(rules: Iterable[resources.Rule], namespace: str | None) -> tuple[Rule, ...]:
    """The rules of a policy of this namespace, or of a global policy or a profile (None)."""
    return tuple(
        Rule(
            action=cast("Action", rule.action),
            ip_version=rule.ip_version,
            protocol=rule.protocol,
            not_protocol=rule.not_protocol,
            icmp=_icmp(rule.icmp),
            not_icmp=_icmp(rule.not_icmp),
            source=_entity(rule.source, namespace),
            destination=_entity(rule.destination, namespace),
        )
        for rule in rules
    )


def _icmp(icmp: resources.Icmp | None) -> Icmp | None:
    """Without a type it imposes nothing (M-33)."""
    return None if icmp is None or icmp.type is None else Icmp(icmp.type, icmp.code)


def _entity(entity: resources.EntityRule, namespace: str | None) -> Entity:
    positive, negative = combined(
        selector=criterion(entity.selector),
        accounts=_service_accounts(entity.service_accounts),
        namespaces=criterion(entity.namespace_selector),
        not_selector=criterion(entity.not_selector),
        namespace=namespace,
    )
    return Entity(
        nets=tuple(entity.nets),
        not_nets=tuple(entity.not_nets),
        positive=positive,
        negative=negative,
        ports=tuple(_port(port) for port in entity.ports),
        not_ports=tuple(_port(port) for port in entity.not_ports),
        service=_service(entity.services, namespace),
    )


def _service(services: resources.Services | None, namespace: str | None) -> Service | None:
    """Without a namespace, of the policy's own (V-55)."""
    return None if services is None else Service(services.namespace or namespace or "", services.name)


def _port(port: resources.PortRange | str) -> Port:
    return port if isinstance(port, str) else (port.first, port.last)


def criterion(selector: str) -> Expression | None:
    """An empty selector of a rule is no criterion (S-20)."""
    return parse(selector) if selector else None


def all_of(*parts: Expression | None) -> Expression | None:
    """All of the parts that exist, ANDed."""
    present = tuple(part for part in parts if part is not None)
    return present[0] if len(present) == 1 else And(present) if present else None


def _service_accounts(accounts: resources.ServiceAccounts | None) -> Expression | None:
    """M-21.1; `all()` is not rewritten here (M-30)."""
    if accounts is None:
        return None
    selector = criterion(accounts.selector)
    return all_of(
        None if selector is None else prefixed(selector, SERVICE_ACCOUNT_PREFIX),
        Compare(SERVICE_ACCOUNT, "in", frozenset(accounts.names)) if accounts.names else None,
    )


def combined(
    *,
    selector: Expression | None,
    accounts: Expression | None = None,
    namespaces: Expression | None = None,
    not_selector: Expression | None = None,
    namespace: str | None,
) -> tuple[Expression | None, Expression | None]:
    """The positive expression of one side, and notSelector where it stands alone (M-21, M-24)."""
    own = all_of(accounts, selector)  # M-21.1, M-21.2
    part = _namespace_part(namespaces, namespace)  # M-21.3
    is_limited = own is not None or not_selector is not None or namespaces is not None
    positive = all_of(part, own) if part is not None and is_limited else own  # M-21.4
    if not_selector is None:
        return positive, None
    if positive is None:
        return None, not_selector
    return And((positive, Not(not_selector))), None


def _namespace_part(namespaces: Expression | None, namespace: str | None) -> Expression | None:
    """M-21.3, M-22."""
    if namespaces is not None:
        part = replaced(prefixed(namespaces, NAMESPACE_PREFIX), All(), Has(NAMESPACE))
        return replaced(part, Global(), Not(Has(NAMESPACE)))
    return None if namespace is None else equals(NAMESPACE, namespace)
