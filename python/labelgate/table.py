"""The decision table for Python: one packet at one hook in, a decision with its reason out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, NoReturn, cast

from labelgate import _core
from labelgate.arguments import check_type
from labelgate.engines import Description, summary
from labelgate.flow import (
    Action,
    Answer,
    Connection,
    CtState,
    Gate,
    Hook,
    IPAddress,
    Packet,
    Stage,
    Step,
    Verdict,
    check_interfaces,
    protocol_number,
    read_address,
)
from labelgate.printable import printable
from labelgate.settings import HostFacts, Settings
from labelgate.tabular import Tabular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelgate.columns import Answers
    from labelgate.tally import Tally

# numpy is imported by the first question by column: neither the daemon nor the command line waits for it.


@dataclass(frozen=True, slots=True, repr=False)
class Decision(Tabular):
    """A verdict with what decided it."""

    verdict: Verdict
    failsafe: bool
    """A failsafe port settled it (E-40)."""
    accepted: bool
    """Accept mark after our last rule of this hook (E-48)."""
    stage: Stage
    endpoint: str | None
    tier: str | None
    policy: str | None
    rule: int | None
    """Counts from 0 within its direction; None where no rule decided."""
    action: Action | None
    reason: str
    """One short phrase with the rule id of `docs/semantics.md`."""
    outcome: int
    """Its row in `DecisionTable.outcomes`, which also tells the Log rules passed."""

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """One row with all fields; `rule` is -1 where no rule decided."""
        import numpy as np

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        dtypes = {"failsafe": np.bool_, "accepted": np.bool_, "rule": np.int32, "outcome": np.uint32}
        values["rule"] = -1 if self.rule is None else self.rule
        return {name: np.array([value], dtypes.get(name, object)) for name, value in values.items()}

    def caption(self) -> str:
        """The verdict and what decided."""
        what = [self.policy + ("" if self.rule is None else f" rule {self.rule}")] if self.policy else []
        what += [f"tier {self.tier}"] if self.tier else []
        what += [self.endpoint] if self.endpoint else []
        notes = " [failsafe]" if self.failsafe else ""
        return f"{self.verdict}{notes}: {self.reason}" + (f" ({', '.join(what)})" if what else "")

    def __repr__(self) -> str:
        """The verdict and what decided, on one line."""
        return f"Decision({self.caption()})"


class DecisionTable(Tabular):
    """Compiled policy of one node, bound to the interfaces of a host. Made by `Snapshot.compile`.

    As a table (`to_numpy`, `to_pandas`, in a notebook) it is what its outcome ids mean. Threads
    and forked processes may share it; it is neither pickled nor copied.
    """

    def __init__(self, program: _core.Program, host: HostFacts, settings: Settings) -> None:
        self.program = program
        self.host = host
        self.settings = settings
        facts = {"interfaces": host.interfaces, "workload_prefixes": settings.workload_prefixes}
        self.core = _core.Table(program, json.dumps(facts).encode())

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a DecisionTable is neither pickled nor copied: it never changes, so share it; for another"
            " process pickle its Snapshot, and compile it there"
        )

    @property
    def warnings(self) -> list[str]:
        """What does nothing here, or not what it says, although it is no error; sorted."""
        return sorted(map(printable, [*self.program.warnings, *self.core.warnings]))

    def decide(
        self,
        *,
        hook: Hook,
        src: IPAddress | str,
        dst: IPAddress | str,
        protocol: int | str | np.integer[Any],
        sport: int | np.integer[Any] | None = None,
        dport: int | np.integer[Any] | None = None,
        icmp_type: int | np.integer[Any] | None = None,
        icmp_code: int | np.integer[Any] | None = None,
        in_: str | None = None,
        out: str | None = None,
        ct: CtState = "new",
        accepted: bool = False,
        dnatted: bool = False,
        fragment: bool = False,
    ) -> Decision:
        """Decides one packet at one hook; the fields are those of `labelgate.flow.Packet`.

        Raises:
            ValueError: an address, the hook, an interface, the protocol or a number cannot be read, or the
                interface is missing that a packet at the hook has: `out` at the hooks of what the host sends,
                `in_` at others, one of both at `filter-forward`. One that nobody governs is one, too.

        >>> import labelgate
        >>> from importlib.resources import files
        >>> policy = files("labelgate") / "examples" / "02-host-endpoint.yaml"
        >>> table = labelgate.load(str(policy)).compile(node="edge1")
        >>> decision = table.decide(hook="filter-input", in_="eth0", src="192.0.2.5", dst="198.51.100.10",
        ...                         protocol="tcp", sport=40000, dport=9100)
        >>> decision
        Decision(deny: end of tier (E-21) (tier default, HostEndpoint/edge1-out))
        >>> decision.verdict, decision.policy
        ('deny', None)
        """
        packet = Packet(
            hook, _address(src, "src"), _address(dst, "dst"), protocol_number(protocol), _number(sport),
            _number(dport), _number(icmp_type), _number(icmp_code), in_, out, ct, accepted, dnatted, fragment,
        )  # fmt: skip
        return self.decide_packet(packet)

    def decide_packet(self, packet: Packet) -> Decision:
        """The same for a `Packet`.

        Raises:
            TypeError: this is no Packet.
            ValueError: as `decide`.
        """
        _check(packet)
        verdict, failsafe, mark, outcome, step = self.core.decide(packet)
        return Decision(verdict, failsafe, mark, *step, outcome)

    def answer(self, packet: Packet) -> Answer:
        """The decision with every step on the way, as `labelgate explain` prints it.

        Raises:
            TypeError: this is no Packet.
            ValueError: as `decide`.

        >>> import labelgate
        >>> from importlib.resources import files
        >>> from ipaddress import ip_address
        >>> policy = files("labelgate") / "examples" / "02-host-endpoint.yaml"
        >>> table = labelgate.load(str(policy)).compile(node="edge1")
        >>> there, here = ip_address("192.0.2.5"), ip_address("198.51.100.10")
        >>> answer = table.answer(labelgate.Packet("filter-input", there, here, 6, dport=22, in_="eth0"))
        >>> answer.verdict, [step.reason for step in answer.trace]
        ('allow', ['failsafe (E-40)'])
        """
        _check(packet)
        verdict, failsafe, mark, steps = self.core.trace(packet)
        return Answer(verdict, failsafe, mark, tuple(Step(*step) for step in steps))

    def connectivity(self, packet: Packet) -> Connection:
        """Whether policy lets a new connection through between workloads, wherever they live.

        Of the packet only addresses, protocol, ports and ICMP type and code count. A table of one node knows
        the workloads of that node, `Snapshot.compile(node=None)` those of the cluster.

        Raises:
            TypeError: this is no Packet.

        >>> import labelgate
        >>> from importlib.resources import files
        >>> from ipaddress import ip_address
        >>> policy = files("labelgate") / "examples" / "01-workload.yaml"
        >>> table = labelgate.load(str(policy)).compile(node=None)
        >>> web, db = ip_address("10.65.0.2"), ip_address("10.65.0.3")
        >>> connection = table.connectivity(labelgate.Packet("filter-forward", web, db, 6, dport=5432))
        >>> connection.verdict, connection.ingress.policy
        ('allow', 'NetworkPolicy/shop/db-from-web')
        """
        check_type("packet", packet, Packet, "a Packet")
        whole = replace(packet, fragment=False) if packet.fragment else packet
        egress, ingress = self.core.connectivity(whole)
        return Connection(egress and Gate(*egress), ingress and Gate(*ingress))

    def decide_batch(
        self,
        hook: Hook,
        src: IPAddress | str | NDArray[np.uint32] | NDArray[np.uint8],
        dst: IPAddress | str | NDArray[np.uint32] | NDArray[np.uint8],
        protocol: int | str | np.integer[Any] | NDArray[np.uint8],
        sport: int | np.integer[Any] | NDArray[np.uint16] = 0,
        dport: int | np.integer[Any] | NDArray[np.uint16] = 0,
        *,
        in_: str | NDArray[np.uint32] | None = None,
        out: str | NDArray[np.uint32] | None = None,
        ct: CtState | NDArray[np.uint8] = "new",
        accepted: bool | NDArray[np.bool_] = False,
        dnatted: bool | NDArray[np.bool_] = False,
        fragment: bool | NDArray[np.bool_] = False,
        threads: int = 1,
        into: Answers | None = None,
    ) -> Answers:
        """Decides many flows at one hook; each argument is one value for all or a column with one for each.

        A column is a numpy array of n values, aligned and side by side in memory; it is read where it is,
        never converted or copied. The GIL is released: nobody may write to a column meanwhile. Ctrl-C ends
        it, some answers written.

        Args:
            hook: where all of them are seen.
            src: an address, or a column: uint32 (n,) for IPv4, uint8 (n, 16) in network order for IPv6.
            dst: as `src`, in the same IP version.
            protocol: a name, or IP protocol numbers, uint8 (n,).
            sport: source ports, uint16 (n,).
            dport: destination ports, uint16 (n,); for ICMP and ICMPv6 `type << 8 | code`. Without meaning for
                other protocols.
            in_: the in-interface by name, or ids that `interface_ids` of this table gave, uint32 (n,). Each
                flow has the interface of its hook, also where nobody governs it.
            out: likewise the out-interface, at the hooks of what the host sends; at `filter-forward` one of
                both will do.
            ct: a word, or indexes of `labelgate.flow.CT_STATES`, uint8 (n,).
            accepted: accept mark on arrival (E-48), bool (n,).
            dnatted: DNATed in nat OUTPUT (E-37), bool (n,).
            fragment: ports, ICMP type and code cannot be read, whatever is given (M-19), bool (n,). Where
                ports are left out they are 0, not unreadable.
            threads: how many threads share the flows, the calling one among them.
            into: arrays for the answers, so that a stream of batches needs no new ones; they must not overlap
                with any column.

        Returns:
            Verdicts, uint8 (n,), indexes of `labelgate.flow.VERDICTS`, and outcome ids, uint32 (n,), rows of
            `outcomes`: those of `into` where given.

        Raises:
            TypeError: an argument has another type or dtype.
            ValueError: a number, word, shape, length or layout does not fit. Or the interface of the hook is
                missing, or an id is none of this table: some answers are written then.

        >>> import labelgate, numpy as np
        >>> from importlib.resources import files
        >>> from labelgate.flow import VERDICTS
        >>> policy = str(files("labelgate") / "examples" / "02-host-endpoint.yaml")
        >>> table = labelgate.load(policy).compile(node="edge1")
        >>> dports = np.array([22, 80, 9100], np.uint16)
        >>> verdicts, outcomes = table.decide_batch(
        ...     "filter-input", "203.0.113.7", "198.51.100.10", "tcp", 40000, dports, in_="eth0")
        >>> [VERDICTS[verdict] for verdict in verdicts]
        ['allow', 'deny', 'allow']
        >>> table.outcomes[outcomes]["reason"].tolist()
        ['failsafe (E-40)', 'end of tier (E-21)', 'rule (M-50)']
        """
        from labelgate.columns import Flows, read_threads

        flows = Flows.read(
            self.core, hook=hook, src=src, dst=dst, protocol=protocol, sport=sport, dport=dport, in_=in_,
            out=out, ct=ct, accepted=accepted, dnatted=dnatted, fragment=fragment,
        )  # fmt: skip
        verdicts, outcomes = flows.answers(into)
        self.core.decide_batch(flows, verdicts, outcomes, read_threads(threads))
        return verdicts, outcomes

    def connectivity_batch(
        self,
        src: IPAddress | str | NDArray[np.uint32] | NDArray[np.uint8],
        dst: IPAddress | str | NDArray[np.uint32] | NDArray[np.uint8],
        protocol: int | str | np.integer[Any] | NDArray[np.uint8],
        sport: int | np.integer[Any] | NDArray[np.uint16] = 0,
        dport: int | np.integer[Any] | NDArray[np.uint16] = 0,
        *,
        fragment: bool | NDArray[np.bool_] = False,
        threads: int = 1,
        into: tuple[Answers, Answers] | None = None,
    ) -> tuple[Answers, Answers]:
        """As `connectivity` for many new connections; values, columns, GIL and Ctrl-C as in `decide_batch`.

        Args:
            src: an address, or a column: uint32 (n,) for IPv4, uint8 (n, 16) in network order for IPv6.
            dst: as `src`, in the same IP version.
            protocol: a name, or IP protocol numbers, uint8 (n,).
            sport: source ports, uint16 (n,).
            dport: destination ports, uint16 (n,); for ICMP and ICMPv6 `type << 8 | code`.
            fragment: ports, ICMP type and code are not known, whatever is given, bool (n,): as where a
                `Packet` leaves them out.
            threads: how many threads share the flows, the calling one among them.
            into: arrays for the answers, in the shape of what is returned; none may overlap with another, or
                with a column.

        Returns:
            `(verdicts, outcomes)` of the egress gates, those of the workloads that own the sources, and of
            the ingress gates, those of the workloads that own the destinations. Verdicts, uint8 (n,), are
            indexes of `labelgate.flow.VERDICTS`: `allow` or `deny`, and `continue` where no workload of this
            table owns the address. Outcome ids, uint32 (n,), are rows of `outcomes`; where nobody owns the
            address that of `no endpoint here (E-39)`. A connection is let through where neither verdict is
            `deny` (E-39a).

        Raises:
            TypeError: an argument has another type or dtype.
            ValueError: a number, word, shape, length or layout does not fit.

        >>> import labelgate, numpy as np
        >>> from importlib.resources import files
        >>> from labelgate.flow import VERDICTS
        >>> policy = str(files("labelgate") / "examples" / "01-workload.yaml")
        >>> table = labelgate.load(policy).compile(node=None)
        >>> dports = np.array([5432, 22], np.uint16)
        >>> egress, ingress = table.connectivity_batch("192.0.2.1", "10.65.0.3", "tcp", 40000, dports)
        >>> [VERDICTS[verdict] for verdict in (*egress[0], *ingress[0])]
        ['continue', 'continue', 'deny', 'deny']
        >>> egress, ingress = table.connectivity_batch("10.65.0.2", "10.65.0.3", "tcp", 40000, dports)
        >>> [VERDICTS[verdict] for verdict in (*egress[0], *ingress[0])]
        ['allow', 'deny', 'allow', 'deny']
        >>> table.outcomes[ingress[1]]["policy"].tolist()
        ['NetworkPolicy/shop/db-from-web', None]
        """
        from labelgate.columns import Flows, read_threads

        flows = Flows.connections(
            self.core, src=src, dst=dst, protocol=protocol, sport=sport, dport=dport, fragment=fragment
        )
        egress, ingress = flows.answers_of_both(into)
        self.core.connectivity_batch(flows, egress, ingress, read_threads(threads))
        return egress, ingress

    def interface_ids(self, names: Sequence[str | None]) -> NDArray[np.uint32]:
        """Interfaces as `decide_batch` takes them by column, uint32 (len(names),); None: no interface.

        Nobody governs a packet without one: only at `filter-forward` one of the two may be missing.

        An id has a meaning for this table only. Of a long column of names, ask about each name once:

        >>> import labelgate, numpy as np
        >>> table = labelgate.Snapshot().compile(node="edge1")
        >>> names, inverse = np.unique(["eth0", "cali1", "eth0"], return_inverse=True)
        >>> table.interface_ids(names.tolist())[inverse]
        array([2, 1, 2], dtype=uint32)

        Raises:
            TypeError: `names` is one text, or holds something else than texts and None.
            ValueError: one holds half a surrogate pair.
        """
        import numpy as np

        if isinstance(names, str):  # Its letters would be interfaces that nobody knows.
            raise TypeError(f"names: found the text {names!r}, expected a sequence of names: [{names!r}]")
        try:
            return np.array(self.core.interface_ids(list(names)), np.uint32)
        except UnicodeEncodeError as error:
            raise ValueError(f"names: found {error.object!r}, expected names") from None

    @cached_property
    def outcomes(self) -> NDArray[np.void]:
        """What outcome ids mean: a structured array, read-only, with a row for each id.

        Its fields: `action`, `tier` and `policy`, text or None; `rule`, int32, -1 where no rule decided;
        `reason`, text; `logs`, a tuple with the outcome ids of the Log rules that the deciding chain passed
        before, in order. The Log rules of chains that the `linear` engine answers for (`describe`) are in the
        trace of `answer` only.
        """
        import numpy as np

        from labelgate.columns import OUTCOME

        rows = np.array(self.core.outcomes(), OUTCOME)
        rows.setflags(write=False)
        return rows

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The rows of `outcomes` with their ids, uint32, those of policies first; without the Log rules."""
        import numpy as np

        ids = np.argsort(self.outcomes["policy"] == None, kind="stable").astype(np.uint32)  # noqa: E711
        rows = self.outcomes[ids]
        names = ("action", "tier", "policy", "rule", "reason")
        return {"outcome": ids, **{name: rows[name] for name in names}}

    def caption(self) -> str:
        """How large it is, and which engines answer."""
        endpoints, warnings = len(self.program.endpoints), len(self.warnings)
        noted = f", {warnings} warnings" if warnings else ""
        sizes = f"{endpoints} endpoint{'s' * (endpoints != 1)}, {len(self.outcomes)} outcomes{noted}"
        return f"DecisionTable: {sizes}; {summary(self.describe())}"

    def __repr__(self) -> str:
        """How large it is, and which engines answer."""
        return f"<{self.caption()}>"

    def tally(self) -> Tally:
        """An empty count of answers of `decide_batch`, by verdict and by what decided.

        >>> import labelgate, numpy as np
        >>> table = labelgate.Snapshot().compile(node="edge1")
        >>> tally = table.tally()
        >>> dports = np.array([22, 80], np.uint16)
        >>> tally.add(*table.decide_batch(
        ...     "filter-input", "192.0.2.5", "198.51.100.10", "tcp", 40000, dports, in_="eth0"))
        >>> tally
        Tally(2 continue)
        >>> tally.to_numpy()["flows"].tolist()
        [2]
        """
        from labelgate.tally import Tally

        return Tally(self.outcomes)

    def describe(self) -> Description:
        """Which engines answer, how large their tables are, and why no faster one was chosen.

        >>> import labelgate
        >>> labelgate.Snapshot().compile(node="edge1").describe()["others"]
        []
        """
        return cast(Description, json.loads(self.core.describe()))

    def connectivity_trace(self, packet: Packet) -> tuple[tuple[Step, ...] | None, tuple[Step, ...] | None]:
        """The egress and ingress gates of `connectivity` with every step on the way; the last one decides.

        Raises:
            TypeError: this is no Packet.
        """
        check_type("packet", packet, Packet, "a Packet")
        whole = replace(packet, fragment=False) if packet.fragment else packet
        egress, ingress = self.core.connectivity_trace(whole)
        return _steps(egress), _steps(ingress)

    def workloads(self) -> dict[str, list[str]]:
        """Every workload by name, sorted, with the addresses that are its own."""
        return dict(self.core.workloads())

    def on_host(self, host: HostFacts) -> DecisionTable:
        """The same program on other interfaces or addresses."""
        return DecisionTable(self.program, host, self.settings)

    def rule_facts(self) -> dict[str, Any]:
        """What kernel rules may answer ahead of the queue, and which interfaces must be queued where."""
        facts: dict[str, Any] = json.loads(self.core.rule_facts())
        return facts

    def settled(self) -> dict[str, Any]:
        """Which rules packets meet where kernel rules answer: `chains` and `names` of `_core.Table`."""
        settled: dict[str, Any] = json.loads(self.core.settled())
        return settled

    @property
    def governs_something(self) -> bool:
        """Whether any interface has an endpoint."""
        facts = self.rule_facts()
        return bool(facts["hosts"] or facts["workloads"])

    @property
    def has_untracked_policy(self) -> bool:
        """Whether a host endpoint here has untracked policy."""
        return any(host["untracked"] is not None for host in self.rule_facts()["hosts"])


def _check(packet: Packet) -> None:
    """TypeError or ValueError where the answer to it would mean nothing."""
    check_type("packet", packet, Packet, "a Packet")
    check_interfaces(packet)


def _steps(steps: list[Any] | None) -> tuple[Step, ...] | None:
    return None if steps is None else tuple(Step(*step) for step in steps)


def _number(value: int | np.integer[Any] | None) -> int | None:
    """As type checkers know those of packets; numpy's are read as well."""
    return cast("int | None", value)


def _address(value: IPAddress | str, field: str) -> IPAddress:
    return value if isinstance(value, IPv4Address | IPv6Address) else read_address(value, field)
