"""`python -m labelgate.queue_bench.null BASE MAXLEN MASK`: the null verdict, until SIGTERM."""

from __future__ import annotations

import signal
import sys

from labelgate.queue_bench.loop import started
from labelgate.snapshot import Snapshot


def main() -> None:
    """The reply of `allow-notrack` to every packet, by the core's loop, without a look at it."""
    base, maxlen, mask = (int(text, 0) for text in sys.argv[1:])
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    loop = started(Snapshot().compile(node=None), base, maxlen, mask, null="allow-notrack")
    signal.sigwait(stops)
    loop.stop()


if __name__ == "__main__":
    main()
