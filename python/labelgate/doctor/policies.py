"""Whether the policies of the configuration are valid, and protect what they mean to on this host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelgate.config import Config, ConfigError, load_config
from labelgate.doctor.diagnosis import Diagnosis, some
from labelgate.flow import UDPLITE
from labelgate.links import Links
from labelgate.out_of_reach import out_of_reach
from labelgate.resources import LoadError
from labelgate.snapshot import Snapshot, load


def policies(
    config: Config, links: Links, config_file: str | None = None, *, conntrack_checksums: bool = True
) -> Iterator[Diagnosis]:
    """What the daemon would say of them at its start, and policies that cannot do what they mean to."""
    if not config.policies:
        return
    try:
        snapshot = load(*config.policies)
    except LoadError as error:
        problem = error.problems[0]
        count = f"{len(error.problems)} error{'s' * (len(error.problems) > 1)}"
        found = f"{count}, the first: {problem.file}:{problem.line}: {problem.message}"
        yield Diagnosis(
            "policies", "failure", found, "none of them comes into force: all must be valid",
            "labelgate check -f ... shows all of them, each with what was expected",
        )  # fmt: skip
        return
    if config.node not in (nodes := snapshot.nodes()):
        yield Diagnosis(
            "policies", "failure", f"no endpoint names node `{config.node}`",
            "nothing would be enforced, so the daemon does not start",
            f"set `node` to one of these: {', '.join(nodes) or 'none is named'}",
        )  # fmt: skip
        return
    try:
        settings = load_config(config_file, snapshot.felix_configurations, config.node).settings
    except ConfigError as error:
        yield Diagnosis(
            "policies", "failure", str(error), "the daemon does not start with these values together",
            "correct the FelixConfiguration, or what is set beside it",
        )  # fmt: skip
        return
    table = snapshot.compile(node=config.node, host=links.host_facts, settings=settings)
    if unreached := out_of_reach(snapshot, config.node, links, table):
        yield not_reached(unreached)
        return
    if idle := list(snapshot.idle_host_endpoints(config.node, links.host_facts)):
        yield Diagnosis(
            "policies", "warning", some(idle),
            "these host endpoints govern no interface, and protect nothing",
            "correct `interfaceName` or `expectedIPs`; nothing is to be done where the interface comes later",
        )  # fmt: skip
        return
    is_denied = conntrack_checksums and settings.invalid_check
    if is_denied and (tracked := _tracked_udplite(snapshot)):
        yield Diagnosis(
            "policies", "warning", f"{some(tracked)}: UDPLite",
            "conntrack compares its checksums as if they were UDP's: every packet is INVALID, and denied",
            "sysctl net.netfilter.nf_conntrack_checksum=0, or policy with doNotTrack",
        )  # fmt: skip
        return
    yield Diagnosis("policies", "ok", f"valid; every host endpoint of `{config.node}` has an interface")


def not_reached(endpoints: Sequence[str]) -> Diagnosis:
    """Endpoints that rules do not reach, as `out_of_reach` tells them."""
    return Diagnosis(
        "policies", "warning", some(endpoints),
        "these endpoints are not enforced there, or not at every hook",
        "as it is said there; docs/operations.md has more",
    )  # fmt: skip


def _tracked_udplite(snapshot: Snapshot) -> list[str]:
    """Policies that name UDPLite and are asked behind conntrack."""
    return [
        policy.key
        for policy in snapshot.calico_policies()
        if not getattr(policy.spec, "do_not_track", False)
        and any(rule.protocol == UDPLITE for rule in (*policy.spec.ingress, *policy.spec.egress))
    ]
