"""The compiled core: bytes, text, numbers and opaque handles in and out.

People use `labelgate.load`, `Snapshot.compile` and `DecisionTable`; this module is what those are made of.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from labelgate.columns import Flows
from labelgate.flow import Action, Hook, Packet, Stage, Verdict

__all__ = [
    "BATCH",
    "CLOSING_BATCHES",
    "IDLE_MILLISECONDS",
    "STOP_SECONDS",
    "Bench",
    "Capture",
    "Cell",
    "ChainNumbers",
    "Compiler",
    "Connections",
    "Enforcer",
    "FrameSource",
    "Judge",
    "LoadServer",
    "Program",
    "Table",
    "TablePair",
    "__version__",
    "check_selector",
    "compile",
    "connect_many",
    "copied_bytes",
    "default_budgets",
    "exchange",
    "never_passed",
    "queue_number",
    "selector_answer",
    "workloads",
]

__version__: str
BATCH: int
"""Packets that the loop reads at once."""
CLOSING_BATCHES: int
"""Of one queue, at most, that are answered by the table before once another is in force."""
IDLE_MILLISECONDS: int
"""How long a worker waits for packets before it comes round its loop once more."""
STOP_SECONDS: float
"""How long a worker that hangs is waited for at a stop."""

_Gate = tuple[Literal["allow", "deny"], str | None, str | None, int | None]
_Outcome = tuple[Action | None, str | None, str | None, int, str, tuple[int, ...]]
_Step = tuple[Stage, str | None, str | None, str | None, int | None, Action | None, str]

def check_selector(text: str) -> None:
    """Parses a selector (semantics section 2).

    Raises:
        ValueError: message, the text, and a caret under the place.
    """

def selector_answer(text: str, labels: dict[str, str]) -> tuple[bool, str]:
    """Whether the labels satisfy the selector, and its canonical text.

    >>> selector_answer("a in {'z','a'}", {"a": "z"})
    (True, 'a in {"a", "z"}')
    """

@final
class Program:
    """The compiled policy of a node; `str()` is its stable text."""

    @property
    def warnings(self) -> list[str]:
        """What the compiler noticed although it is no error, sorted."""

    @property
    def endpoints(self) -> list[str]:
        """The local endpoints by name."""

    def contents(self) -> str:
        """Endpoints and chains as JSON; `labelgate.analysis.program` has the words for it.

        An object: `endpoints` (`name`, `short_name`, `kind`: host or workload, `attachment`: any,
        address, remote or an object with `interface`, `addresses`, `sources`, and the numbers of chains:
        `normal`, `forward`, `untracked` as [ingress, egress] or null, `prednat`), `chains` (`tiers` with
        `name`, `lists` and `end`: deny, pass or fall; `profiles`; `end`: deny, accept or unmarked), `lists`
        (how many there are; chains have their numbers). Releases the GIL.
        """

    def rule_lists(self) -> str:
        """The rules as JSON: a list of `policy`, `tier`, `direction` and `rules`.

        In rules sets are numbers, and a side of which nothing is asked is null. Releases the GIL.
        """

    def address_sets(self) -> list[tuple[bytes, bytes]]:
        """Of each address set its sorted ranges, first and last address of each.

        IPv4: 4 bytes each, little-endian; IPv6: 16 bytes each, in network order.
        """

    def port_sets(self) -> list[list[tuple[int, int, int, int]]]:
        """Of each port set its members, sorted: (IP version, address as a number, protocol, port)."""

@final
class Compiler:
    """A model that is edited; an edit compiles what it touches, and changes engines in place."""

    def __new__(cls, model: bytes, node: str | None = None, budgets: bytes | None = None) -> Compiler:
        """Reads a model; the arguments, and what may be wrong with them, are as for `compile`.

        Releases the GIL.
        """

    def enforce(self, node: str | None) -> Program:
        """The program for the endpoints of another node (None: all workloads), whose later edits follow.

        Its engines are made for its first table. Releases the GIL. Raises ValueError as `compile` does.
        """

    def apply(self, changes: bytes) -> Program:
        """The program after these changes, with its engines; programs of before stay what they are.

        `changes` is a JSON list, in order: `{"put": {"workload": {...}}}`, or `host`, `network_set`,
        `profile`, `tier`, `policy`, `service`, each as in a model; and `{"remove": "Kind/namespace/name"}`,
        or `Kind/name`.
        A key that is not there is no error. Releases the GIL; several threads wait for each other.

        Raises:
            ValueError: a change cannot be read, or the model cannot be compiled with it; nothing has changed.
        """

def compile(model: bytes, node: str | None = None, budgets: bytes | None = None) -> Program:
    """Compiles a model (JSON) for a node, or for all workloads of a cluster. Releases the GIL.

    `budgets` (JSON, whole) are those of the engines that the first table is built with.

    Raises:
        ValueError: the model cannot be read or compiled; says which policy and field. Or the budgets cannot.
    """

def default_budgets() -> str:
    """The budgets of engines where `compile` is given none, as JSON."""

@final
class ChainNumbers:
    """Numbers chains of programs: those that decide alike have one number, whichever program they are of."""

    def __new__(cls) -> ChainNumbers: ...
    def of(self, program: Program) -> list[int]:
        """Of each chain its number: the same rules in the same order, Log rules apart. Releases the GIL."""

_Piece = tuple[bytes, bool, tuple[int, int], tuple[int, int]]
"""A `labelgate.analysis.services.Piece`: protocols, whether opaque, source ports, destination ports."""
_Change = tuple[
    int, list[int], tuple[int, int], bytes | None, bytes, tuple[_Piece, ...], Cell
]  # fmt: skip
"""IP version, members by place, verdicts then and now (indexes of `VERDICTS`), and which packets.

Those are products of own addresses (None: all that the members have), addresses of the other side (both as
`labelgate.analysis.addresses` has edges) and services, and one of the cells that they are made of.
"""
_Pair = tuple[int | None, int | None]

@final
class TablePair:
    """Two tables that are compared place by place: an old one and a new one.

    One packet of each class of packets that the rules of a place, of either state, cannot tell apart is asked
    of both: nothing is sampled. Changes are disjoint for each member. Releases the GIL.
    """

    def __new__(cls, old: Table, new: Table) -> TablePair: ...
    def workloads(self, egress: bool, chains: _Pair, members: list[_Pair]) -> list[_Change]:
        """What changes for workloads whose rules in one direction are those of `chains`, then and now.

        `members` are their numbers in either program, None where one is not there: unknown workloads are
        denied (E-38), and their outcomes mean nothing. The first is asked for all. Raises ValueError where
        there is no such chain or endpoint, or nobody to ask.
        """

    def interface(
        self, kind: str, egress: bool, chains: _Pair, at: tuple[str, str]
    ) -> list[_Change]:  # fmt: skip
        """What changes for a kind of policy of host endpoints (normal, forward, untracked, preDNAT).

        Asked about at a hook and an interface (`at`). Members are [0]. Raises ValueError where there is no
        such chain, kind or hook.
        """

@final
class Cell:
    """Packets that the rules of a place cannot tell apart."""

    @property
    def outcomes(self) -> tuple[int, int]:
        """What decides them then and now: rows of `Table.outcomes`."""

    @property
    def service(self) -> tuple[int, int, int, bool]:
        """One of their services: protocol, source port, destination port, whether it is a later fragment.

        Of ICMP `type << 8 | code` is the destination port.
        """

    def own(self) -> bytes:
        """Their addresses on the endpoints' own side, as edges."""

    def peers(self) -> bytes:
        """Their addresses on the other side, as edges."""

@final
class Table:
    """A program bound to the interfaces of a host; immutable, shared freely between threads."""

    def __new__(cls, program: Program, host: bytes) -> Table:
        """Binds to a host as JSON: `{"interfaces": {name: [address]}, "workload_prefixes": [name]}`."""

    @property
    def warnings(self) -> list[str]:
        """Endpoints whose interface is not governed by them, sorted."""

    def rule_facts(self) -> str:
        """What kernel rules may answer, as JSON."""

    def settled(self) -> str:
        """Which rules packets meet where kernel rules answer, as JSON: `{"chains", "names"}`.

        `chains` is as `rule_facts`, but for each answer of a chain it has a list of outcome ids: what every
        packet meets there, in order, the last of which decides; empty where the packet matters. `names` has
        for those, and for whatever has no name but its reason, what `Enforcer.rule_counts` calls it.
        """

    def describe(self) -> str:
        """`labelgate.engines.Description` as JSON."""

    def rules(self) -> str:
        """The rules in force, as JSON: `[{"tier", "policy", "direction", "rule", "action", "reason",
        "uncounted"}]`, each as in `Enforcer.rule_counts`.

        `uncounted` says why not every packet that meets a rule is counted, or is null: `kernel` (kernel rules
        may answer ahead of the queue), `pass` (a Pass rule of a chain for which telling those would take more
        memory than `passes` of the budget), `log` (a Log rule of a chain in `tree` that has more than 16).
        Releases the GIL.
        """

    def outcomes(self) -> list[_Outcome]:
        """(action, tier, policy, rule or -1, reason, outcome ids of the Log rules passed), by outcome id."""

    def interface_ids(self, names: Sequence[str | None]) -> list[int]:
        """The number of each interface in this table; None: no interface."""

    def decide_batch(
        self,
        flows: Flows,
        verdicts: NDArray[np.uint8],
        outcomes: NDArray[np.uint32],
        threads: int,
    ) -> None:
        """Answers flows into C-contiguous arrays of their length. Releases the GIL; Ctrl-C ends it early.

        Raises:
            TypeError: an attribute is not as `Flows` says.
            ValueError: lengths differ, or an array is read-only or in use by another call. Or a flow has not
                the interface of its hook, or an id that is none of this table: some answers are written then.
        """

    def connectivity_batch(
        self,
        flows: Flows,
        egress: tuple[NDArray[np.uint8], NDArray[np.uint32]],
        ingress: tuple[NDArray[np.uint8], NDArray[np.uint32]],
        threads: int,
    ) -> None:
        """As `connectivity` for many, into verdicts and outcomes of each side.

        Hook, interfaces and state of the flows do not count. Verdicts are deny, allow, and continue where no
        workload has the address. Releases the GIL; Ctrl-C ends it early.

        Raises:
            TypeError, ValueError: as `decide_batch`.
        """

    def gate_batch(
        self,
        egress: bool,
        workloads: NDArray[np.uint32],
        flows: Flows,
        verdicts: NDArray[np.uint8],
        outcomes: NDArray[np.uint32],
    ) -> None:
        """As `connectivity` in one direction, for many: `workloads` has one endpoint number for each flow.

        Numbers are places in `Program.endpoints`. Hook, interfaces and state of the flows do not count.
        Verdicts are deny and allow. Releases the GIL.

        Raises:
            TypeError: as `decide_batch`.
            ValueError: as `decide_batch`, or there is no endpoint with such a number.
        """

    def decide(self, packet: Packet) -> tuple[Verdict, bool, bool, int, _Step]:
        """(verdict, failsafe, accepted, outcome id, deciding step).

        Raises:
            ValueError: a field cannot be read; says which.
        """

    def trace(self, packet: Packet) -> tuple[Verdict, bool, bool, list[_Step]]:
        """(verdict, failsafe, accepted, every step on the way).

        Raises:
            ValueError: as `decide`.
        """

    def connectivity(self, packet: Packet) -> tuple[_Gate | None, _Gate | None]:
        """(egress, ingress) of a new connection: (verdict, tier, policy, rule); hook and state do not count.

        Raises:
            ValueError: as `decide`.
        """

    def connectivity_trace(self, packet: Packet) -> tuple[list[_Step] | None, list[_Step] | None]:
        """(egress, ingress) of `connectivity`, with every step on the way; the last one decides.

        Raises:
            ValueError: as `decide`.
        """

    def workloads(self) -> list[tuple[str, list[str]]]:
        """Every workload by name, with the addresses that are its own; sorted."""

_Columns = dict[str, NDArray[Any]]
_Address = IPv4Address | IPv6Address

@final
class Connections:
    """Tracked connections, as nfnetlink_conntrack tells them (linux/netfilter/nfnetlink_conntrack.h)."""

    def __new__(cls, in_any_state: bool) -> Connections:
        """Of those that the answer has, keeps connections in no zone of their own that both sides have a part
        in, of TCP the established ones; with `in_any_state` also those that begin or end, but are not over.
        """

    def add(self, datagram: bytes) -> bool:
        """Takes one datagram of the answer; whether it was the last one.

        Raises:
            OSError: the kernel says that it cannot answer.
        """

    def columns(self) -> tuple[_Columns, _Columns]:
        """Those of IPv4 and of IPv6, each in the direction of its first packet.

        `src`, `dst` and `target` (where DNAT sent it, else `dst`), uint32 (n,) or uint8 (n, 16); `protocol`,
        uint8; `sport`, `dport` and `target_port`, uint16 (ICMP: id, and `type << 8 | code` twice);
        `answered`, bool.
        """

@final
class Capture:
    """A capture file (pcap, pcapng, plain or gzip) that is read on as flows, block by block."""

    def __new__(
        cls,
        path: str,
        *,
        flows: int,
        complete: bool,
        dnat: Sequence[tuple[int | None, _Address, int | None, _Address, int | None]] = ...,
    ) -> Capture:
        """Reads what the file begins with; `flows` are under way at a time, others are given out early.

        `complete` says that nothing was under way when the capture began: what has no beginning in it is
        then what conntrack makes of such packets. `dnat` says where flows are sent on their way: protocol
        (None: any), address and port (None: any) ahead of it, address and port (None: stays) behind it; what
        was captured behind it belongs to the flow that was captured ahead of it. Releases the GIL.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no capture, or an entry of `dnat` has addresses of both IP versions.
        """

    def read(self, most: int) -> tuple[_Columns, _Columns] | None:
        """Columns of IPv4 and of IPv6 flows that are over, `most` or so, maybe none; None at the end.

        `src` and `dst`, uint32 (n,) or uint8 (n, 16); `protocol`, uint8; `sport` and `dport`, uint16 (ICMP:
        id, and `type << 8 | code` of the request); `ct`, uint8, of the first packet; `begin`, uint8 (0: who
        began it is known, 1: it was under way already, 2: an error about a flow that is not in the capture);
        `packets`, `replies`, `bytes` and `reply_bytes`, uint64; `first` and `last`, uint64, nanoseconds since
        1970; `interface`, uint32, a row of `interfaces`; `way`, uint8 (0: unknown, 1: in, 2: out);
        `answered`, bool, the other side has sent something that is no refusal. Releases the GIL.

        Raises:
            OSError: the file cannot be read on.
            ValueError: it is damaged, or its link type is not read.
        """

    @property
    def interfaces(self) -> list[str | None]:
        """Names of the interfaces met so far; None where the file has none."""

    @property
    def bytes_read(self) -> int:
        """How much of the file, as it is, has been read."""

    def counters(self) -> str:
        """What has been read so far, as JSON: `packets` (each is in a flow or in another counter), `not_ip`,
        `fragments` (later ones), `cut_link` (ended in the link layer's header), `malformed` (by kind),
        `evicted` (flows given out early), `is_cut` (the file ends inside a packet)."""

def queue_number(hook: Hook, version: Literal[4, 6], worker: int, *, base: int, workers: int) -> int:
    """The queue that a worker answers for a hook and IP version.

    Raises:
        ValueError, OSError: there is no such hook or worker, or the numbers do not suffice.
    """

def copied_bytes(version: Literal[4, 6]) -> int:
    """How much of a packet the loop asks the kernel for."""

def never_passed() -> list[str]:
    """Kinds of unreadable packets that are denied also with `malformed_accept`: a sender chooses them."""

@final
class Enforcer:
    """The packet loop of the calling thread's network namespace: native threads, never entering Python."""

    def __new__(
        cls,
        table: Table,
        interfaces: Sequence[tuple[int, str]],
        *,
        base: int,
        workers: int = 1,
        maxlen: int,
        marks: tuple[int, int, int],
        fail_open: Sequence[bool],
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        without_repeat: Sequence[bool],
        null: str | None = None,
        sample_every: int = 0,
        event_rate: int = 0,
        event_policy_rate: int = 30,
        recorded: int = 0,
    ) -> Enforcer:
        """Binds the queues `base + (2 * hook + family) * workers + worker` and starts answering.

        `interfaces` are (index, name); `marks` the bits (accept, decided, reject); the other sequences hold
        one flag per hook in the order of `labelgate.flow.HOOKS`. With `null` every packet is answered with
        that verdict without being looked at: what is measured then is the queue alone. One decision in
        `sample_every` is kept for `samples`; 0: none. `event_rate` events of one rule are kept for `events`
        each second by each worker, 0: none; of all rules of one policy `event_policy_rate`, and one of each
        rule. The last `recorded` denied packets of each worker are kept for `recorded`; 0: none.

        Raises:
            OSError: a queue cannot be bound (taken, not permitted, not supported).
            ValueError: no verdict has the name `null`.
        """

    def swap(self, table: Table, interfaces: Sequence[tuple[int, str]]) -> int:
        """Puts another table in force, which workers take up together, soon. Its generation number.

        What has passed one hook by the table before is judged by that to its end.
        """

    def is_followed(self, generation: int, seconds: float) -> bool:
        """Waits until all workers answer by the table of this number, or a later one.

        False if that took too long, or the loop has ended.
        """

    def fileno(self) -> int:
        """To be waited for beside other descriptors: readable when the loop has ended."""

    def thread_ids(self) -> list[int]:
        """The kernel's numbers of the worker threads, to pin or to measure them."""

    def turns(self) -> list[int]:
        """How often each worker has come round its loop: once a second at least, also without packets."""

    def samples(self, most: int) -> str:
        """Sampled decisions that were not yet taken, as a JSON list of `most` at most.

        Each has the fields of a packet line (`icmp` is [type, code]; `in` and `out` are ifindexes, 0: none),
        `generation`, `verdict` and `acceptedAfter`. What is not taken in time is forgotten.
        """

    def stage(self, generation: int, table: Table | None) -> None:
        """Asks another table too while the one of this number is in force: staged policies in force in it.

        It has the same endpoints on the same interfaces. Packets that only it denies are events; None: no
        other. Where no events are told nothing is asked.
        """

    def events(self, most: int) -> str:
        """What was denied or met a Log rule and was not yet taken, of `most` packets, as a JSON list.

        Each has `time` (milliseconds since 1970), `kind` (`deny`, `log` or `staged-deny`), `generation`
        (the loop's number of the table), `hook`, `verdict`, the fields of a packet line (`icmp` is [type,
        code]; `in` and `out` are ifindexes, 0: none), `stage`, `endpoint`, `tier`, `policy`, `direction`,
        `rule`, `action`, `reason`, `length` (of the packet, in bytes) and `header` (its first 128 bytes, in
        hex).

        Releases the GIL.
        """

    def recorded(self) -> str:
        """The last denied packets, the oldest first, as a JSON list; they stay.

        Each is as one of `events`, of kind `deny`; `stage` and `endpoint` are null, and so is the rule where
        more than four other tables have been in force since.

        Releases the GIL.
        """

    def staged_denials(self) -> int:
        """Packets that only the table of `stage` denied, since the start, told or not."""

    def untold(self) -> tuple[int, int]:
        """Events since the start that nobody sees: too many of one rule in a second, not taken in time."""

    def set_without_repeat(self, hooks: Sequence[bool]) -> None:
        """Changes which hooks are answered without repeating packets."""

    def set_filter_actions(self, *, reject: bool, returns: bool) -> None:
        """Changes `FilterDenyAction` (Reject) and `FilterAllowAction` (Return)."""

    def set_noted(self, noted: str) -> None:
        """For measurements: how much is noted of packets, from the next batch on.

        `nothing`, `counted` (rules that were met), `told` (events, too), or `recorded`: all, as at the start,
        as far as the constructor was told to.

        Raises:
            ValueError: another word.
        """

    def counters(self) -> str:
        """All counters since the start, as JSON."""

    def rule_counts(self) -> str:
        """How often rules were met, table by table, as JSON; only what was met at all.

        `[{"generation": 2, "isOver": false, "rules": [{"tier": "default", "policy":
        "GlobalNetworkPolicy/web", "direction": "Ingress", "rule": 0, "action": "Deny", "reason":
        "rule (M-51)", "packets": 7, "lastHit": 1795680000000}]}]`: `lastHit` in milliseconds since 1970.
        What stands in the place of a rule (end of a tier, failsafe port, no endpoint) is counted by its
        reason, with nulls for what it has not.
        `generation` is the number of the table that was the first to be counted so; the same program on other
        interfaces is counted on. The table in force comes last. Counts of a table that packets no longer meet
        are given once, with `isOver`: one caller adds them up, others ask that one.

        A packet counts for every chain that it passes, for the rule that decided there, and for the Log rules
        before; not for Pass rules, nor for Log rules of chains that the `linear` engine answers for.
        """

    def is_alive(self) -> bool:
        """Whether the loop still answers packets."""

    def failure(self) -> str | None:
        """Why the loop ended by itself; None while it answers or if it was stopped."""

    def drain(self, seconds: float) -> bool:
        """Waits until every packet that is queued now has been answered; False if that took longer.

        Raises:
            ValueError: no time to wait: negative, for instance.
        """

    def stop(self) -> None:
        """Ends the loop within a second and closes the queues; the kernel drops what is still queued.

        A worker that hangs is given two seconds, and then left to the end of the process.
        """

@final
class Judge:
    """Judges one packet of one queue at a time, for handlers in Python: the table and marks of `Enforcer`."""

    def __new__(
        cls,
        table: Table,
        *,
        hook: str,
        version: int,
        marks: tuple[int, int, int],
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        may_repeat: bool,
    ) -> Judge:
        """For a hook and IP version 4 or 6; the other arguments are those of `Enforcer`."""

    def judge(
        self, payload: bytes, length: int, mark: int, input: int, output: int
    ) -> tuple[str, str, int, int | None]:
        """The counter, the word under it, the kernel's verdict, and the mark if it changes.

        `payload` begins at the IP header and may be cut; `length` is that of the whole packet. Interfaces are
        numbers of this table (`Table.interface_ids`). The counter is `verdicts` (the word is the verdict),
        `malformed` (what is wrong) or `loop_guard` (no word).
        """

    def decision(
        self, payload: bytes, length: int, mark: int, input: int, output: int
    ) -> tuple[Verdict, bool, bool, int, _Step] | None:
        """As `Table.decide` for a packet that waits; None if it cannot be read."""

    def reply(self, verdict: str, mark: int) -> tuple[int, int | None]:
        """The kernel's verdict, and the mark if it changes, for a verdict that somebody else gave.

        Raises:
            ValueError: no verdict of this hook.
        """

@final
class FrameSource:
    """Sends UDP datagrams as whole frames out of one interface of the calling thread's network namespace."""

    def __new__(
        cls,
        interface: int,
        source: bytes,
        destination: bytes,
        flows: Sequence[tuple[int, int, int, int]],
        *,
        payload: int,
    ) -> FrameSource:
        """`interface` is its index, `source` and `destination` MAC addresses.

        A flow is source address and port, destination address and port, addresses as IPv4 numbers; `payload`
        is the bytes of each datagram.

        Raises:
            OSError: no such interface, or CAP_NET_RAW is missing.
        """

    def send(self, count: int, seconds: float) -> int:
        """Sends the flows' frames round and round, `count` of them or for so long; how many were taken.

        Releases the GIL.

        Raises:
            OSError: the interface is gone or down.
            ValueError: no time to wait: negative, for instance.
        """

@final
class LoadServer:
    """Answers at an address of the calling thread's network namespace, on a thread of its own."""

    def __new__(cls, address: str, answer: str) -> LoadServer:
        """`address` as `ADDRESS:PORT`; `answer` is `echo` (UDP) or `greet` (TCP: a word, then closed).

        Raises:
            OSError: the address is taken or is not here.
            ValueError: one of them cannot be read.
        """

    def stop(self) -> None:
        """Ends it."""

def connect_many(
    targets: Sequence[str],
    *,
    threads: int,
    most: int,
    seconds: float,
    patience: float,
    request: bytes,
) -> tuple[list[int], int]:
    """Short TCP connections from the calling thread's network namespace, to `ADDRESS:PORT` in turn.

    Each connects, sends the request, reads the beginning of an answer and closes. None begins after
    `seconds`, there are at most `most`, and one that has no answer after `patience` seconds is lost.
    Nanoseconds of each that was answered, and how many were lost. Releases the GIL.

    Raises:
        ValueError: a target cannot be read, or a time is negative, for instance.
    """

def exchange(source: str, target: str, count: int, seconds: float) -> tuple[list[int], int]:
    """UDP datagrams to an echo, each when the one before is back or 200 ms have gone.

    Nanoseconds of each round trip, and how many were lost. Releases the GIL.

    Raises:
        OSError: the source is no address of the host, or there is no way to the target.
        ValueError: the target cannot be read, or the time is negative, for instance.
    """

def workloads() -> list[str]:
    """The names of the workloads that are made from a seed, small ones first."""

@final
class Bench:
    """A workload's table with the questions to it. Every call releases the GIL and hears Ctrl-C."""

    def __new__(cls, workload: str, *, seed: int, questions: int) -> Bench:
        """Makes a workload of this name (see `workloads`) and aims so many questions at its rules.

        Raises:
            ValueError: no workload has this name.
        """

    @staticmethod
    def of_policies(
        model: bytes, host: bytes, *, node: str | None, uplink: str, seed: int, questions: int
    ) -> Bench:
        """The same for policies of one's own: a model and a host as for `compile` and `Table`.

        Every chain of the node's endpoints is asked at its hooks, forwarded packets between them and the
        interface `uplink`; without a node the ingress policy of every workload of the cluster.

        Raises:
            ValueError: they cannot be read or compiled, or no endpoint has an interface there.
        """

    def facts(self) -> str:
        """What is measured, as JSON: endpoints, policies, rules, questions, engines and their memory."""

    def build(self) -> tuple[float, float]:
        """Compiles and builds the table once more; seconds of each."""

    def check(self) -> str:
        """Asks everything in every way and compares, as JSON: how many answers, how many differ, verdicts."""

    def round(self) -> list[tuple[str, str, float]]:
        """One round of all measures after `check`: (trace, way, nanoseconds a question)."""
