"""`python -m labelgate.queue_bench.noting POLICIES BASE MAXLEN MASK`: a loop that switches what it notes.

Each line of standard input is a word of `_core.Enforcer.set_noted`; when it holds, a line comes back: how
many packets have been counted by their rules so far. Ends with its input. Events are taken as often as the
daemon takes them.
"""

from __future__ import annotations

import json
import select
import signal
import sys

from labelgate import _core
from labelgate.config import KEYS
from labelgate.queue_bench.loop import started
from labelgate.queue_bench.policies import NODE
from labelgate.snapshot import load

TAKE_SECONDS, MOST_EVENTS = 0.2, 4096


def main() -> None:
    """Rates and room of the flight recorder are those that `labelgate run` has by default."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal's Ctrl-C is for who started this.
    policies, *numbers = sys.argv[1:]
    base, maxlen, mask = (int(text, 0) for text in numbers)
    loop = started(
        load(policies).compile(node=NODE),
        base,
        maxlen,
        mask,
        event_rate=KEYS["events.rate"][1],
        event_policy_rate=KEYS["events.policyRate"][1],
        recorded=KEYS["events.recorder"][1],
    )
    while True:
        if select.select([sys.stdin], [], [], TAKE_SECONDS)[0]:
            if not (word := sys.stdin.readline().strip()):
                break
            loop.set_noted(word)
            loop.events(MOST_EVENTS)  # Done when the line is out: what comes then is the packets' time alone.
            print(counted(loop), flush=True)
        else:
            loop.events(MOST_EVENTS)
    loop.stop()


def counted(loop: _core.Enforcer) -> int:
    """Packets, by the rules that they met: one each, as there is one chain."""
    return sum(rule["packets"] for table in json.loads(loop.rule_counts()) for rule in table["rules"])


if __name__ == "__main__":
    main()
