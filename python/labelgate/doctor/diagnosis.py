"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "warning", "failure"]
"""`note`: good to know; `warning`: policy is enforced, but not all as one may think; `failure`: it is not."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, what it means, and the mend."""

    subject: str
    state: State
    found: str
    meaning: str = ""
    """Empty where all is well."""
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return {
            "subject": self.subject,
            "state": self.state,
            "found": self.found,
            "meaning": self.meaning,
            "mend": self.mend,
        }


_MOST_NAMED = 5


def some(found: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return "; ".join(found[:_MOST_NAMED]) + more
