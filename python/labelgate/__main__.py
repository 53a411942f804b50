"""The program `labelgate`, also as `python -m labelgate`."""

from __future__ import annotations

import os
import signal
import sys

_INTERRUPTED = 130
"""As a shell says it: 128 and the number of SIGINT."""


def main() -> None:
    """Ctrl-C ends it without a traceback from here on, also while the modules are imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # In the background of a shell it is ignored.
        # An exception would come out of some module's import, or be lost in it.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from labelgate.cli import main as run

    try:
        signal.signal(signal.SIGINT, before)
        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
