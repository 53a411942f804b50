"""What the daemon follows beside its packets, each by itself: a fault of ours in one of them ends nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from labelgate.agent.panics import faults_refused
from labelgate.agent.rate_limit import RateLimited

REST_SECONDS = 1.0
"""Between two tries: what fails at once would else be tried all the time."""
SAYS = (OSError, NetlinkError)
"""They say what is wrong, and are no faults of ours."""


class Follower:
    """One of them. Where it fails what is in force stays, that is said, and it is tried again."""

    def __init__(
        self,
        failing: str,
        follow: Callable[[], object],
        say: Callable[[str], None],
        descriptors: Callable[[], Sequence[int]] = tuple,
        seconds: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`failing` is what is said of it: "files cannot be followed".

        `descriptors` are readable when there is something to do; `seconds` are left until there is.
        """
        self._failing, self._follow = failing, follow
        self._say = RateLimited(say, f"warnings that {failing}")
        self._descriptors, self._seconds = descriptors, seconds
        self._rests_until = -math.inf
        self._problem = ""

    def __call__(self) -> None:
        """Does what there is to do, unless it has failed a moment ago."""
        if self._rest:
            return
        problem = ""
        try:
            with faults_refused(*SAYS):
                self._follow()
        except Exception as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            problem = str(error) or repr(error)
            if problem != self._problem:
                self._say(f"warning: {self._failing}: {problem}; what is in force stays, it is tried again")
        self._problem = problem
        self._say.catch_up()

    @property
    def descriptors(self) -> Sequence[int]:
        """Readable when there is something to do; none while it rests."""
        return () if self._rest else self._descriptors()

    @property
    def seconds_left(self) -> float:
        """Until there is something to do that no descriptor tells of."""
        if rest := self._rest:
            return rest
        seconds = self._seconds()
        return math.inf if seconds is None else seconds

    @property
    def _rest(self) -> float:
        return max(0.0, self._rests_until - time.monotonic())
