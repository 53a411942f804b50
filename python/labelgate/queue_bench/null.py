"""`python -m labelgate.queue_bench.null QUEUE MAXLEN MARK`: the null verdict, until SIGTERM."""

from __future__ import annotations

import signal
import sys

from labelgate import _core


def main() -> None:
    """REPEAT with the mark, for every packet of one queue."""
    queue, maxlen, mark = (int(text, 0) for text in sys.argv[1:])
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    handler = _core.NullHandler(queue, maxlen=maxlen, repeat=True, mark=mark)
    signal.sigwait(stops)
    handler.stop()


if __name__ == "__main__":
    main()
