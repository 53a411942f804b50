"""Calico and Kubernetes network policy on any Linux host: compiled, explained and enforced.

>>> import labelgate
>>> table = labelgate.load("policy.yaml").compile(node="edge1")            # doctest: +SKIP
>>> table.decide(hook="filter-input", in_="eth0", src="192.0.2.5", dst="198.51.100.10",
...              protocol="tcp", sport=40000, dport=9100).verdict          # doctest: +SKIP
'deny'
"""

from labelgate._core import __version__
from labelgate.engines import Budgets
from labelgate.flow import Answer, Packet, Step
from labelgate.resources import LoadError
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot, load
from labelgate.table import Decision, DecisionTable

__all__ = [
    "Answer",
    "Budgets",
    "Decision",
    "DecisionTable",
    "HostFacts",
    "LoadError",
    "Packet",
    "Settings",
    "Snapshot",
    "Step",
    "__version__",
    "load",
]
