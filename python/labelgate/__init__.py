"""Calico and Kubernetes network policy on any Linux host: compiled, explained and enforced.

>>> import labelgate
>>> table = labelgate.load("policy.yaml").compile(node="edge1")            # doctest: +SKIP
>>> table.decide(hook="filter-input", in_="eth0", src="192.0.2.5", dst="198.51.100.10",
...              protocol="tcp", sport=40000, dport=9100).verdict          # doctest: +SKIP
'deny'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelgate._core import __version__
    from labelgate.analysis.lint import Finding, lint
    from labelgate.compiler import Compiler
    from labelgate.engines import Budgets
    from labelgate.flow import Answer, Packet, Step
    from labelgate.resources import LoadError
    from labelgate.settings import HostFacts, Settings
    from labelgate.snapshot import Snapshot, load
    from labelgate.table import Decision, DecisionTable

__all__ = [
    "Answer",
    "Budgets",
    "Compiler",
    "Decision",
    "DecisionTable",
    "Finding",
    "HostFacts",
    "LoadError",
    "Packet",
    "Settings",
    "Snapshot",
    "Step",
    "__version__",
    "lint",
    "load",
]

_HOME = {
    "__version__": "_core",
    **dict.fromkeys(("Answer", "Packet", "Step"), "flow"),
    **dict.fromkeys(("Finding", "lint"), "analysis.lint"),
    "Budgets": "engines",
    "Compiler": "compiler",
    "LoadError": "resources",
    **dict.fromkeys(("HostFacts", "Settings"), "settings"),
    **dict.fromkeys(("Snapshot", "load"), "snapshot"),
    **dict.fromkeys(("Decision", "DecisionTable"), "table"),
}
"""Imported when first asked for: the program must have a say before half a second of imports begins."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
