"""How many flows were decided how: counts of what `decide_batch` answers, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.flow import VERDICTS
from labelgate.tabular import Tabular

_DENY = VERDICTS.index("deny")


class Tally(Tabular):
    """Flows by verdict and by what decided, of any number of batches; made by `DecisionTable.tally`."""

    def __init__(self, outcomes: NDArray[np.void]) -> None:
        """`outcomes` are the rows that ids lead to."""
        self._outcomes = outcomes
        self._denies = outcomes["action"] == "Deny"
        self._counts = np.zeros((len(outcomes), len(VERDICTS)), np.int64)

    def add(self, verdicts: NDArray[np.uint8], outcomes: NDArray[np.uint32]) -> None:
        """Counts the answers of one batch, as `decide_batch` of the same table returns them; both (n,).

        Ids of another table mean something else: refused where verdict and id do not go together here, and
        otherwise counted as what they mean here.

        Raises:
            TypeError: one of them is no array of whole numbers.
            ValueError: the columns differ in length, or hold numbers that this table does not give.
        """
        rows, words = self._counts.shape
        for name, column in (("verdicts", verdicts), ("outcomes", outcomes)):
            if not (isinstance(column, np.ndarray) and column.dtype.kind == "u"):
                raise TypeError(f"{name}: found {_kind(column)}, expected what `decide_batch` returns")
        if verdicts.shape != outcomes.shape or verdicts.ndim != 1:
            raise ValueError(
                f"verdicts: found shape {verdicts.shape}, expected {outcomes.shape} as in outcomes"
            )
        if verdicts.size and (int(verdicts.max()) >= words or int(outcomes.max()) >= rows):
            raise ValueError("outcomes: found ids of another table, expected those of this one")
        if (self._denies[outcomes] != (verdicts == _DENY)).any():
            raise ValueError("outcomes: found answers of another table: here these ids have other verdicts")
        index = outcomes.astype(np.intp) * words + verdicts
        self._counts += np.bincount(index, minlength=rows * words).reshape(rows, words)

    @property
    def flows(self) -> int:
        """How many were counted."""
        return int(self._counts.sum())

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Most flows first: `flows`, `verdict`, and what `DecisionTable.outcomes` says of the outcome."""
        ids, verdicts = np.nonzero(self._counts)
        flows = self._counts[ids, verdicts]
        order = np.lexsort((verdicts, ids, -flows))
        ids, verdicts, flows = ids[order], verdicts[order], flows[order]
        meaning = self._outcomes[ids]
        fields = {name: meaning[name] for name in ("action", "tier", "policy")}
        return {
            "flows": flows,
            "verdict": np.array(VERDICTS, object)[verdicts],
            **fields,
            "rule": meaning["rule"],
            "reason": meaning["reason"],
        }

    def caption(self) -> str:
        """How many flows there are."""
        return f"{self.flows:,} flows by verdict and rule"

    def __repr__(self) -> str:
        """With the count of each verdict."""
        totals = zip(VERDICTS, self._counts.sum(axis=0).tolist(), strict=True)
        words = ", ".join(f"{count:,} {verdict}" for verdict, count in totals if count)
        return f"Tally({words or 'no flows'})"


def _kind(value: object) -> str:
    return f"a column of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
