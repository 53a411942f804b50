"""Who answers the queues: what the daemon asks of a packet loop, whoever wrote it."""

from __future__ import annotations

from typing import Protocol

from labelgate import _core


class PacketLoop(Protocol):
    """Binds its queues in the network namespace of the thread that makes it, and answers them until `stop`.

    There are 14 for each worker.
    """

    def swap(self, table: _core.Table, interfaces: list[tuple[int, str]]) -> int:
        """Puts a new table in force, to be taken up soon; its generation number."""

    def is_followed(self, generation: int, seconds: float) -> bool:
        """Waits until packets are answered by this table or a later one; False if that took too long."""

    def set_without_repeat(self, hooks: list[bool]) -> None:
        """Hooks at which packets must not pass the table twice, in the order of `HOOKS`."""

    def set_filter_actions(self, *, reject: bool, returns: bool) -> None:
        """`FilterDenyAction` is Reject, `FilterAllowAction` is Return."""

    def counters(self) -> str:
        """The counters now, as JSON."""

    def rule_counts(self) -> str:
        """How often rules were met, as JSON; for one caller, who adds up."""

    def samples(self, most: int) -> str:
        """Decisions to be judged again, as JSON."""

    def stage(self, generation: int, table: _core.Table | None) -> None:
        """What is asked beside the table of this number, to tell what staged policies would deny."""

    def events(self, most: int) -> str:
        """What was denied or logged and was not yet taken, as JSON."""

    def recorded(self) -> str:
        """The last denied packets, as JSON."""

    def staged_denials(self) -> int:
        """Packets that only staged policies would deny."""

    def untold(self) -> tuple[int, int]:
        """Events that nobody sees: too many of one rule, not taken in time."""

    def fileno(self) -> int:
        """To be waited for beside other descriptors: readable when the loop has ended."""

    def thread_ids(self) -> list[int]:
        """The kernel's numbers of the threads that answer."""

    def turns(self) -> list[int]:
        """How often each of these threads has come round: once a second at least, also without packets."""

    def is_alive(self) -> bool:
        """Whether packets are being answered."""

    def failure(self) -> str | None:
        """Why the loop ended by itself."""

    def drain(self, seconds: float) -> bool:
        """Waits until every packet that is queued now has been answered; False if that took too long."""

    def stop(self) -> None:
        """Ends the loop and closes the queues."""


class BindLoop(Protocol):
    """Makes a packet loop; the arguments, and what may go wrong with them, are those of `_core.Enforcer`."""

    def __call__(
        self,
        table: _core.Table,
        interfaces: list[tuple[int, str]],
        *,
        base: int,
        workers: int,
        maxlen: int,
        marks: tuple[int, int, int],
        fail_open: list[bool],
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        without_repeat: list[bool],
        sample_every: int,
        event_rate: int,
        event_policy_rate: int,
        recorded: int,
    ) -> PacketLoop:
        """Packets are answered from now on."""
