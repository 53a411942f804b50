"""The facts of the five worked examples of semantics section 8, by family, as `rule_facts()` gives them."""

from __future__ import annotations

from typing import Any

from labelgate.netfilter.facts import RulesetFacts

QUEUE, ALLOW, DENY, UNMARKED = (["queue"] * 2, ["allow"] * 2, ["deny"] * 2, ["unmarked"] * 2)


def services(protocol: int, side: str, *ports: list[int]) -> dict[str, Any]:
    """Asked about these packets only (E-22)."""
    return {"services": [{"protocol": protocol, "side": side, "ports": list(ports)}]}


NODE_PORTS = [services(6, "destination", [22, 22], [30000, 32767])] * 2
ANSWERS = [services(17, "source", [53, 53]), "unmarked"]
V4_ONLY = ["queue", "deny"]  # Rules with IPv4 nets vanish for IPv6 (M-12): the end of the tier is left.


def workload(name: str, interface: str, last: int, ingress: list[str], egress: list[str]) -> dict[str, Any]:
    return {
        "endpoint": f"WorkloadEndpoint/shop/{name}",
        "interface": interface,
        "sources": [f"10.65.0.{last}/32", f"fd00:65::{last}/128"],
        "ingress": ingress,
        "egress": egress,
    }


def host(name: str, interface: str, **chains: Any) -> dict[str, Any]:
    return {
        "endpoint": f"HostEndpoint/{name}",
        "interfaces": [] if interface == "*" else [interface],
        "any": interface == "*",
        "untracked": None,
        "untracked_denies": {"ingress": [False, False], "egress": [False, False]},
        "prednat": None,
        "input": DENY,
        "output": DENY,
        "forward": {"ingress": ALLOW, "egress": ALLOW},
    } | chains


PODS = [workload("web", "cali111", 2, ALLOW, ALLOW), workload("db", "cali222", 3, ALLOW, ALLOW)]
TRANSIT = {"input": QUEUE, "forward": {"ingress": QUEUE, "egress": UNMARKED}}
EXAMPLES: dict[str, dict[str, Any]] = {
    "workload-policy": {"hosts": [], "workloads": [workload("web", "cali111", 2, V4_ONLY, QUEUE), PODS[1]]},
    "host-endpoint": {"hosts": [host("edge1-out", "eth0", input=V4_ONLY)], "workloads": PODS},
    "apply-on-forward": {"hosts": [host("edge1-out", "eth0", **TRANSIT)], "workloads": PODS},
    "apply-on-forward-any": {"hosts": [host("edge1-out", "*", **TRANSIT)], "workloads": PODS},
    "prednat": {"hosts": [host("edge1-out", "eth0", prednat=NODE_PORTS)], "workloads": PODS},
    "do-not-track": {
        "hosts": [
            host(
                "edge1-in",
                "eth1",
                untracked={"ingress": ["queue", "unmarked"], "egress": ANSWERS},
                untracked_denies={"ingress": [True, False], "egress": [False, False]},
            )
        ],
        "workloads": PODS,
    },
}


def example(name: str, **rest: Any) -> RulesetFacts:
    return RulesetFacts.read(EXAMPLES[name], **rest)


def many_pods(count: int) -> RulesetFacts:
    """Interfaces as pods have them: a prefix and eleven hex digits."""
    pods = [
        workload(
            f"pod-{number}", f"cali{number * 0x9E3779B97F4A7C15 % (1 << 44):011x}", number + 2, QUEUE, QUEUE
        )
        for number in range(count)
    ]
    for number, pod in enumerate(pods):
        pod["sources"] = [f"10.66.{number // 250}.{number % 250 + 1}/32"]
    return RulesetFacts.read({"hosts": [], "workloads": pods})
