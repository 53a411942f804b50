"""All resources of one instant: references checked, nothing inherited."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path

from labelgate import _core
from labelgate import resources as typed
from labelgate.arguments import check_type
from labelgate.config import documented_settings
from labelgate.conversion import is_workload, namespace_profile, pod_profiles, service_account_profile
from labelgate.engines import Budgets
from labelgate.model import BUILT_IN_PROFILE, BUILT_IN_TIERS, core_model, node_name
from labelgate.printable import printable
from labelgate.resources.grouped import Grouped
from labelgate.settings import HostFacts, Settings
from labelgate.sources.files import Progress, load_documents
from labelgate.table import DecisionTable


@dataclass(frozen=True)
class Snapshot(Grouped):
    """The resources of one instant, one tuple per kind."""

    def __repr__(self) -> str:
        """How many resources of each kind there are, by the names of their fields."""
        groups = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        return f"Snapshot({', '.join(f'{name}: {count}' for name, count in groups.items() if count)})"

    def _endpoints(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Key, node and profiles of everything that is an endpoint (R-30)."""
        for host in self.host_endpoints:
            yield host.key, host.spec.node, host.spec.profiles
        for workload in self.workload_endpoints:
            if workload.spec.ip_networks:
                yield workload.key, workload.spec.node, workload.spec.profiles
        for pod in self.pods:
            if is_workload(pod):
                yield pod.key, pod.spec.node_name, pod_profiles(pod)

    def nodes(self) -> list[str]:
        """The nodes that endpoints name, sorted."""
        return sorted({node for _, node, _ in self._endpoints() if node})

    def idle_host_endpoints(self, node: str, host: HostFacts) -> Iterator[str]:
        """Those of the node that govern none of the host's interfaces as they are (E-45), and why."""
        present = {ip_address(text) for addresses in host.interfaces.values() for text in addresses}
        for endpoint in self.host_endpoints:
            name, expected = endpoint.spec.interface_name, endpoint.spec.expected_ips
            if endpoint.spec.node != node or name == "*":
                continue
            if name and name not in host.interfaces:
                yield f"{endpoint.key}: there is no interface `{name}`"
            elif not name and present.isdisjoint(expected):
                yield f"{endpoint.key}: no interface has {' or '.join(map(str, expected))}"

    def workload_nodes(self) -> dict[str, str]:
        """The node of every workload, by key; empty where it names none."""
        hosts = {host.key for host in self.host_endpoints}
        return {key: node for key, node, _ in self._endpoints() if key not in hosts}

    @property
    def warnings(self) -> list[str]:
        """What does not exist (R-29, E-4), has no effect, or takes the place of something else; sorted."""
        documents = (*self.felix_configurations, *self.kubernetes_cluster_network_policies)
        notices = [notice for document in documents for notice in document.notices]
        missing = (*self._missing_profiles(), *self._missing_tiers(), *self._missing_services())
        told = (
            *notices,
            *missing,
            *self._without_effect(),
            *self._replaced_profiles(),
            *self._shared_addresses(),
        )
        return sorted({printable(text) for text in told})

    def absent_profiles(self) -> Iterator[tuple[str, str, bool]]:
        """Endpoints with profiles that they list and that do not exist, and whether these deny (R-29).

        After a profile that allows everything, as that of a Namespace does (R-24), only labels are missing.
        """
        allowing = {
            f"ksa.{one.metadata.namespace}.{one.metadata.name}": False for one in self.service_accounts
        }
        allowing |= {f"kns.{namespace.metadata.name}": True for namespace in self.namespaces}
        # One of these names takes the place of that.
        allowing |= {profile.metadata.name: _allows_all(profile.spec) for profile in self.profiles}
        allowing[BUILT_IN_PROFILE] = True
        for key, _, profiles in self._endpoints():
            denies = True
            for name in profiles:
                if name not in allowing:
                    yield key, name, denies
                denies &= not allowing.get(name, False)

    def _missing_profiles(self) -> Iterator[str]:
        listed: dict[tuple[str, bool], list[str]] = {}
        for key, name, denies in self.absent_profiles():
            listed.setdefault((name, denies), []).append(key)
        for (name, denies), keys in sorted(listed.items()):
            lack = _ABSENT_PROFILE if denies else _ABSENT_LABELS
            yield f"{_some(keys)}: profile `{name}` does not exist: {lack}{_origin(name)}"

    def _missing_tiers(self) -> Iterator[str]:
        known = {*BUILT_IN_TIERS, *(tier.metadata.name for tier in self.tiers)}
        named: dict[str, list[str]] = {}
        for policy in self.calico_policies():
            named.setdefault(policy.spec.tier, []).append(policy.key)
        for tier in sorted(named.keys() - known):
            yield f"{_some(named[tier])}: tier `{tier}` does not exist: it comes last and denies (E-4)"

    def _missing_services(self) -> Iterator[str]:
        known = {(item.metadata.namespace, item.service) for item in self.endpoint_slices}
        named: dict[str, list[str]] = {}
        for resource in (*self.calico_policies(), *self.profiles):
            for rule in (*resource.spec.ingress, *resource.spec.egress):
                for service in filter(None, (entity.services for _, entity in rule.sides())):
                    namespace = service.namespace or resource.metadata.namespace
                    if (namespace, service.name) not in known:
                        named.setdefault(f"{namespace}/{service.name}", []).append(resource.key)
        for service_name in sorted(named):
            keys = list(dict.fromkeys(named[service_name]))
            yield f"{_some(keys)}: service `{service_name}` has no EndpointSlice: no packet is its (M-31)"

    def _without_effect(self) -> Iterator[str]:
        for profile in self.profiles:
            if profile.metadata.name == BUILT_IN_PROFILE and profile.spec != _ALLOW_ALL:
                yield f"{profile.key}: has no effect: the built-in profile of this name always allows (R-28)"
        for workload in self.workload_endpoints:
            if not workload.spec.ip_networks:
                yield f"{workload.key}: has no effect: it has no `ipNetworks` (R-30)"

    def _replaced_profiles(self) -> Iterator[str]:
        """By documents of their names that are not alike (R-24, R-25)."""
        written = {profile.metadata.name: profile for profile in self.profiles}
        if not written:
            return
        made = [
            *((one.key, namespace_profile(one), _ALLOW_ALL, "R-24") for one in self.namespaces),
            *((one.key, service_account_profile(one), _NO_RULES, "R-25") for one in self.service_accounts),
        ]
        for key, parts, rules, rule in made:
            profile = written.get(parts["name"])
            if profile is None:
                continue
            spec = profile.spec
            others = [
                word
                for word, differs in (
                    ("labels", spec.labels_to_apply != parts["labels"]),
                    ("rules", (spec.ingress, spec.egress) != (rules.ingress, rules.egress)),
                )
                if differs
            ]
            if others:
                replaced = f"the profile of {key}, and has other {' and '.join(others)} ({rule})"
                yield f"{profile.key}: takes the place of {replaced}"

    def _workload_addresses(self) -> Iterator[tuple[typed.Resource, typed.IPAddress]]:
        for workload in self.workload_endpoints:
            yield from ((workload, net.network_address) for net in workload.spec.ip_networks)
        for pod in self.pods:
            if is_workload(pod):
                yield from ((pod, found.ip) for found in pod.status.pod_ips)
                if pod.status.pod_ip is not None and not pod.status.pod_ips:
                    yield pod, pod.status.pod_ip

    def _shared_addresses(self) -> Iterator[str]:
        """Told in one line: where pods are loaded in both of their forms all of them are."""
        # Of 100,000 pods hardly two have one: bytes are compared first, without the names.
        seen: set[bytes] = set()
        twice: set[bytes] = set()
        for _, address in self._workload_addresses():
            packed = address.packed
            (twice if packed in seen else seen).add(packed)
        owners: dict[typed.IPAddress, set[str]] = {}
        for owner, address in self._workload_addresses() if twice else ():
            if address.packed in twice:
                owners.setdefault(address, set()).add(owner.key)
        several = [address for address, keys in owners.items() if len(keys) > 1]
        if not several:
            return
        address = min(several, key=lambda one: (one.version, int(one)))
        keys = owners[address]
        first, second, *others = sorted(keys, key=lambda key: (key.rpartition("/")[2].encode(), key))  # E-45
        named = f"{first}, {second}" + (f" and {len(others)} more" if others else "")
        more = f" (and {len(several) - 1} more addresses are of several workloads)" if several[1:] else ""
        yield (
            f"{named}: have the address {address} in common{more}: rules mean each of them by its labels, and"
            f" {first} answers where only the address is known; an object of a workload that is gone is the"
            " usual cause"
        )

    def settings(self, node: str | None) -> Settings:
        """What FelixConfiguration documents say of a node: `default`, then `node.NAME`; else the defaults.

        The environment and configuration files, which the daemon also reads, do not count here.

        Raises:
            TypeError: `node` is no name.
            ValueError: values that do not go together.

        >>> import labelgate
        >>> labelgate.Snapshot().settings("edge1") == labelgate.Settings()
        True
        """
        return documented_settings(self.felix_configurations, node_name(node))

    def compile(
        self,
        *,
        node: str | None,
        host: HostFacts | None = None,
        settings: Settings | None = None,
        staged: bool = False,
        budgets: Budgets | None = None,
    ) -> DecisionTable:
        """The decision table of one node; `node=None` compiles all workloads of the cluster.

        Without `host` no interface has an address: host endpoints govern by name only. On a node that no
        endpoint names (`nodes` has those that are named) nothing governs, and every answer is `continue`.
        Without `settings` those of `self.settings(node)` hold.
        With `staged` the table answers what would be decided if every staged policy were in force too.
        Answers do not depend on the `budgets` of the engines, only time and memory do.

        Raises:
            TypeError: `node` is no name, or another argument is not what it is to be.
            ValueError: the core refuses what validation let pass, or a budget is no size.

        >>> import labelgate
        >>> from importlib.resources import files
        >>> snapshot = labelgate.load(str(files("labelgate") / "examples" / "02-host-endpoint.yaml"))
        >>> snapshot.nodes()
        ['edge1']
        >>> table = snapshot.compile(node="edge1", host=labelgate.HostFacts({"eth0": ("198.51.100.10",)}))
        >>> table.governs_something, snapshot.compile(node="edge2").governs_something
        (True, False)
        """
        check_compile(host, settings, budgets, staged)
        settings = settings or self.settings(node)
        model = core_model(self, settings, staged=staged)
        program = _core.compile(model, node_name(node), budgets.json() if budgets else None)
        return DecisionTable(program, host or HostFacts({}), settings)


def check_node(node: str, *snapshots: Snapshot) -> None:
    """ValueError where it is the node of no endpoint: what is asked of it alone would be asked of nobody."""
    nodes = {name for one in snapshots for name in one.nodes()}
    if node not in nodes:
        known = ", ".join(sorted(nodes)) or "none"
        raise ValueError(f"node: found `{node}`, expected one that an endpoint is on: {known}")


def check_compile(
    host: object = None, settings: object = None, budgets: object = None, staged: object = False
) -> None:
    """TypeError where one of these arguments of `Snapshot.compile` is there and of another type."""
    check_type("staged", staged, bool, "True or False")
    for name, value, kind in (
        ("host", host, HostFacts), ("settings", settings, Settings), ("budgets", budgets, Budgets),
    ):  # fmt: skip
        if value is not None:
            check_type(name, value, kind, f"{kind.__name__}, or None")


_ALLOW_ALL = typed.ProfileSpec(ingress=[typed.Rule(action="Allow")], egress=[typed.Rule(action="Allow")])
_NO_RULES = typed.ProfileSpec()
_ABSENT_PROFILE = "it gives no labels and denies what no profile before it allows (R-29)"
_ABSENT_LABELS = "it gives no labels; a profile before it allows everything (R-24, R-29)"


def _allows_all(spec: typed.ProfileSpec) -> bool:
    """Whether the first rules do, in both directions."""
    return spec.ingress[:1] == _ALLOW_ALL.ingress and spec.egress[:1] == _ALLOW_ALL.egress


def _origin(profile: str) -> str:
    """What a profile that Kubernetes' objects stand for is made of (R-24, R-25)."""
    match profile.split(".", 2):
        case ["kns", namespace]:
            return f"; load Namespace `{namespace}`"
        case ["ksa", namespace, account]:
            return f"; load ServiceAccount `{namespace}/{account}`"
    return ""


def _some(keys: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(keys) - 1
    return keys[0] + (f" and {more} more" if more else "")


def load(*paths: str | Path, progress: Progress = lambda done, whole: None) -> Snapshot:
    """Loads files, folders (recursive) and `-` (standard input).

    `progress` is told again and again how many bytes are read, and how many there are.

    Raises:
        TypeError: a path is none, a list of them for example: `load(*paths)` takes them one by one.
        LoadError: with every problem of every document; nothing is loaded.

    >>> import labelgate
    >>> from importlib.resources import files
    >>> labelgate.load(str(files("labelgate") / "examples" / "02-host-endpoint.yaml"))
    Snapshot(global_network_policies: 1, host_endpoints: 1)
    """
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            kind = type(path).__name__
            raise TypeError(f'load: found a {kind}, expected paths, one by one: load("a.yaml", "b/")')
    return Snapshot.of(load_documents([os.fspath(path) for path in paths], progress))
