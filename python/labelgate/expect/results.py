"""Judged expectations as a table, for notebooks, numpy and pandas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from labelgate.expect.coverage import Coverage
from labelgate.expect.judge import Result
from labelgate.expect.report import text
from labelgate.expect.suite import Suite
from labelgate.resources import PolicyTest
from labelgate.tabular import Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Results(Tabular):
    """What became of expectations; a row for each.

    >>> from importlib.resources import files
    >>> from labelgate.expect.results import Results
    >>> from labelgate.expect.suite import read_tests
    >>> tests = read_tests([files("labelgate") / "examples" / "tests" / "02-host-endpoint.yaml"])
    >>> results = Results(tests)
    >>> results.are_as_expected, results.coverage().percent
    (True, 100.0)
    """

    def __init__(self, tests: Iterable[PolicyTest], suite: Suite | None = None) -> None:
        """Asks all that `read_tests` found, of the policies that each test names, or of those of `suite`.

        Raises:
            LoadError, ConfigError: policies cannot be loaded.
            EnginesDiffer: the table contradicts its own rules.
        """
        self._suite = Suite() if suite is None else suite
        self._results = list(self._suite.results(tests))

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    @property
    def are_as_expected(self) -> bool:
        """All of them."""
        return all(result.is_as_expected for result in self._results)

    def failures(self) -> str:
        """What `labelgate test` says of those that do not hold."""
        wrong = (result for result in self._results if not result.is_as_expected)
        return "\n".join(text(result, self._suite.world(result.test)) for result in wrong)

    def coverage(self) -> Coverage:
        """Which rules they exercise."""
        return Coverage.of(self._suite.exercised(self._results))

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """`verdict` is `pass`, `fail` or `error`; `wrong` are those of the `questions` answered otherwise."""
        import numpy as np

        def column(values: Iterable[str | None]) -> NDArray[Any]:
            return np.array(list(values), object)

        return {
            "place": column(result.place for result in self._results),
            "expectation": column(result.title for result in self._results),
            "expected": column(result.expectation.expect for result in self._results),
            "verdict": column(map(_verdict, self._results)),
            "questions": np.array([result.asked for result in self._results], np.int64),
            "wrong": np.array([result.wrong for result in self._results], np.int64),
            "error": column(result.error for result in self._results),
        }

    def caption(self) -> str:
        """How many hold."""
        holding = sum(result.is_as_expected for result in self._results)
        return f"{holding} of {len(self)} expectations hold"

    def __repr__(self) -> str:
        """The same."""
        return f"Results({self.caption()})"


def _verdict(result: Result) -> str:
    if result.error is not None:
        return "error"
    return "pass" if result.is_as_expected else "fail"
