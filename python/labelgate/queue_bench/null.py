"""`python -m labelgate.queue_bench.null BASE MAXLEN MASK`: the null verdict, until SIGTERM."""

from __future__ import annotations

import signal
import sys

from labelgate import _core
from labelgate.flow import HOOKS
from labelgate.netfilter.facts import Marks
from labelgate.snapshot import Snapshot


def main() -> None:
    """The reply of `allow-notrack` to every packet, by the core's loop, without a look at it."""
    base, maxlen, mask = (int(text, 0) for text in sys.argv[1:])
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    marks = Marks.from_mask(mask)
    no = [False] * len(HOOKS)
    loop = _core.Enforcer(
        Snapshot().compile(node=None).core,
        [],
        base=base,
        maxlen=maxlen,
        marks=(marks.accept, marks.decided, marks.reject),
        fail_open=no,
        malformed_accept=False,
        filter_reject=False,
        filter_return=False,
        without_repeat=no,
        null="allow-notrack",
    )
    signal.sigwait(stops)
    loop.stop()


if __name__ == "__main__":
    main()
