"""The program `labelgate`, also as `python -m labelgate`."""

from __future__ import annotations

import os
import sys

from labelgate import streams
from labelgate.interrupts import INTERRUPTED, ending_at_once


def main() -> None:
    """Ctrl-C ends it without a traceback from here on, also while the modules are imported."""
    streams.open_closed()
    # numpy would start threads for linear algebra, of which there is none here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ending_at_once():
        from labelgate.cli import main as run

    try:
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
