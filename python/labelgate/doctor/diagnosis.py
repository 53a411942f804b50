"""One thing that was looked at."""

from __future__ import annotations

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
