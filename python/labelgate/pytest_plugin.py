"""A plugin of pytest: each expectation of a PolicyTest document is a test.

It is there wherever labelgate is installed, and does nothing until pytest meets a YAML or JSON file with a
PolicyTest. Only pytest imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from labelgate.expect.judge import Result
    from labelgate.expect.suite import Suite
    from labelgate.resources import PolicyTest

_SUFFIXES = (".yaml", ".yml", ".json")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option."""
    group = parser.getgroup("labelgate", "policy tests")
    group.addoption(
        "--labelgate-policies",
        action="append",
        default=[],
        metavar="PATH",
        help="Policies in the place of those that PolicyTest documents name; repeatable.",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> PolicyFile | None:
    """Files that hold a PolicyTest."""
    if file_path.suffix not in _SUFFIXES:
        return None
    try:
        content = file_path.read_bytes()
    except OSError:
        return None  # Whoever asks for it by name is told by pytest.
    if not _holds_tests(file_path, content, is_asked=parent.session.isinitpath(file_path)):
        return None
    found: PolicyFile = PolicyFile.from_parent(parent, path=file_path)
    return found


def _holds_tests(file: Path, content: bytes, *, is_asked: bool) -> bool:
    """Whoever names a file is told what is wrong with it; a template that lies about is left alone."""
    from labelgate.expect.suite import holds_tests
    from labelgate.resources.positions import SyntaxProblem

    try:
        return holds_tests(content, is_asked=is_asked)
    except SyntaxProblem as problem:
        if not is_asked:
            where = f"{file}:{problem.place.line}:{problem.place.column}"
            told = f"{where}: looks like a PolicyTest but is left alone: {problem.wrong.message}"
            warnings.warn(pytest.PytestCollectionWarning(told), stacklevel=1)
        return is_asked


class Unexpected(Exception):
    """An expectation that does not hold; its text says why."""


class PolicyFile(pytest.File):
    """A file with PolicyTest documents."""

    def collect(self) -> Iterator[ExpectationItem]:
        """An item for each expectation."""
        from labelgate.expect.suite import read_tests
        from labelgate.resources import LoadError

        try:
            tests = read_tests([self.path])
        except LoadError as error:
            raise self.CollectError(str(error)) from None
        suite = _suite(self.config)
        for test in tests:
            for index in range(test.count):
                name = f"{test.metadata.name}[{index}]"
                yield ExpectationItem.from_parent(self, name=name, suite=suite, test=test, index=index)


_SUITE = pytest.StashKey[Any]()


def _suite(config: pytest.Config) -> Suite:
    """One for all files: policies that several share are compiled once."""
    from labelgate.expect.suite import Suite

    if _SUITE not in config.stash:
        config.stash[_SUITE] = Suite(config.getoption("labelgate_policies"))
    found: Suite = config.stash[_SUITE]
    return found


class ExpectationItem(pytest.Item):
    """One expectation."""

    def __init__(self, *, suite: Suite, test: PolicyTest, index: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._suite, self._test, self._index = suite, test, index

    def runtest(self) -> None:
        """Asks, and raises with the whole story where the answer is another."""
        from labelgate.config import ConfigError
        from labelgate.expect.judge import judge
        from labelgate.expect.report import text
        from labelgate.resources import LoadError

        try:
            world = self._suite.world(self._test)
        except (LoadError, ConfigError) as error:
            raise Unexpected(str(error)) from None
        result = judge(world, self._test, self._index)
        if not result.is_as_expected:
            raise Unexpected(text(result, world))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The story without a traceback."""
        if isinstance(excinfo.value, Unexpected):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """File, line and what is asked."""
        line = self._test.places[self._index].line
        return self.path, line - 1, f"{self.name}: {self._result.title}"

    @property
    def _result(self) -> Result:
        from labelgate.expect.judge import Result

        return Result(self._test, self._index)
