"""Whether the policies of the configuration are valid, and protect what they mean to on this host."""

from __future__ import annotations

from collections.abc import Iterator

from labelgate.config import Config
from labelgate.doctor.diagnosis import Diagnosis, some
from labelgate.resources import LoadError
from labelgate.settings import HostFacts
from labelgate.snapshot import load


def policies(config: Config, host: HostFacts) -> Iterator[Diagnosis]:
    """What the daemon would say of them at its start, and host endpoints that govern no interface."""
    if not config.policies:
        return
    try:
        snapshot = load(*config.policies)
    except LoadError as error:
        problem = error.problems[0]
        found = f"{len(error.problems)} errors, the first: {problem.file}:{problem.line}: {problem.message}"
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
    if idle := list(snapshot.idle_host_endpoints(config.node, host)):
        yield Diagnosis(
            "policies", "warning", some(idle),
            "these host endpoints govern no interface, and protect nothing",
            "correct `interfaceName` or `expectedIPs`; nothing is to be done where the interface comes later",
        )  # fmt: skip
        return
    yield Diagnosis("policies", "ok", f"valid; every host endpoint of `{config.node}` has an interface")
