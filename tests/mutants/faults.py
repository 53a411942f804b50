"""The seeded faults: what each changes, and the rules that it breaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "faults"
RESULT = Path(__file__).parent / "RESULT.md"


@dataclass(frozen=True, slots=True)
class Fault:
    """One deliberate fault."""

    id: str
    rules: tuple[str, ...]
    """The ids of `docs/semantics.md` that it breaks."""
    file: str
    """Relative to the root of the tree."""
    find: str
    """What occurs exactly once in the file."""
    replace: str
    breaks: str
    """What is wrong then, in one line."""

    @property
    def is_compiled(self) -> bool:
        """Whether it is in the core, which has to be built anew."""
        return self.file.endswith(".rs")

    def in_text(self, text: str) -> str:
        """The file's text with the fault.

        Raises:
            ValueError: the text to find is not there exactly once.
        """
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"{self.file}: found {count} times, expected once: {self.find}")
        return text.replace(self.find, self.replace)


def load_faults() -> list[Fault]:
    """Every fault, by the way of the data: as the files and entries are sorted."""
    return [
        Fault(file=file, rules=tuple(entry.pop("rules")), **entry)
        for part in ("conversion", "compile", "engine", "reference")
        for file, entries in yaml.safe_load((FOLDER / f"{part}.yaml").read_text()).items()
        for entry in entries
    ]
