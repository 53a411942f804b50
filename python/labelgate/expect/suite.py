"""The expectations of files, each with the policies that it is about."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from labelgate.expect.judge import Result, Rule, judge
from labelgate.expect.world import World
from labelgate.resources import LoadError, Loading, PolicyTest, Problem
from labelgate.resources.documents import decode, documents
from labelgate.resources.errors import Wrong
from labelgate.resources.kinds import items_of
from labelgate.resources.positions import SyntaxProblem
from labelgate.resources.versions import OURS
from labelgate.snapshot import load
from labelgate.sources.files import all_files, file_name, read_file
from labelgate.sources.places import Places

_KIND = rb"[\"']?kind[\"']?[ \t]*:[ \t]*[\"']?"
_MARK = re.compile(rb"(?:^[ \t-]*|[{,][ \t]*)" + _KIND + rb"PolicyTest(?:List)?(?![\w-])", re.MULTILINE)
_NEARLY = re.compile(
    rb"(?:^[ \t-]*|[{,][ \t]*)" + _KIND + rb"policy[-_]?tests?(?:List)?(?![\w-])",
    re.MULTILINE | re.IGNORECASE,
)
_OURS = OURS.partition("/")[0]


def holds_tests(content: bytes, *, is_asked: bool = False) -> bool:
    """Whether a document in it is of kind PolicyTest and not another project's, as far as it can be read.

    With `is_asked` a kind that is misspelt counts as well.

    Raises:
        SyntaxProblem: it may be one, but does not parse.
    """
    mark = _NEARLY if is_asked else _MARK
    if not mark.search(content):
        return False
    found = (item for document in documents(decode(content)) for item in _items(document.data))
    return any(_is_test(mark, item) for item in found)


def _items(data: Any) -> Iterator[Any]:
    items = items_of(data)
    yield from [data] if items is None else (item for _, item in items)


def _is_test(mark: re.Pattern[bytes], item: Any) -> bool:
    if not isinstance(item, dict) or not mark.match(f"kind: {item.get('kind')}".encode()):
        return False
    version = item.get("apiVersion")
    return not isinstance(version, str) or version.partition("/")[0].lower() == _OURS


def _is_worth_loading(content: bytes) -> bool:
    try:
        return holds_tests(content, is_asked=True)
    except SyntaxProblem:
        return True  # To say what is wrong.


def _parses(content: bytes) -> bool:
    try:
        return all(True for _ in documents(decode(content)))
    except SyntaxProblem:
        return False


def read_tests(paths: Iterable[str | os.PathLike[str]]) -> list[PolicyTest]:
    """The tests of files and folders (recursive), in order; other documents are left alone.

    Raises:
        LoadError: with all that is wrong with files that hold tests, or cannot be read, or are named and do
            not parse.
    """
    paths = list(paths)
    named = {os.fspath(path) for path in paths}
    tests: list[PolicyTest] = []
    problems: list[Problem] = []
    for file in all_files(paths):
        loading = Loading()  # For each its own: files of examples may well say the same twice.
        content = read_file(file)
        if isinstance(content, Wrong):
            loading.add_unreadable(content, file_name(file))
        elif _is_worth_loading(content) or (file in named and not _parses(content)):
            loading.add(content, file_name(file))
        tests += loading.tests
        problems += loading.problems
    if problems:
        raise LoadError(problems)
    return tests


class Suite:
    """Tests with their policies, which are loaded and compiled once for all that share them."""

    def __init__(self, policies: Iterable[str] = (), config_file: str | None = None) -> None:
        """`policies` stand in the place of those that the tests name."""
        self._policies = tuple(policies)
        self._config_file = config_file
        self.worlds: dict[tuple[str, ...], World] = {}

    def world(self, test: PolicyTest) -> World:
        """What a test is asked of.

        Raises:
            LoadError, ConfigError: its policies cannot be loaded.
        """
        paths = self._policies or tuple(policy_paths(test))
        key = tuple(map(os.path.realpath, paths))
        if key not in self.worlds:
            try:
                self.worlds[key] = World(load(*paths), self._config_file)
            except LoadError as error:
                raise error if self._policies else LoadError(_placed(error.problems, test)) from None
        return self.worlds[key]

    def results(self, tests: Iterable[PolicyTest]) -> Iterator[Result]:
        """All expectations, judged, in order."""
        for test in tests:
            world = self.world(test)
            for index in range(test.count):
                yield judge(world, test, index)

    def exercised(self, results: Iterable[Result]) -> list[tuple[World, set[Rule]]]:
        """Of each world that was asked the rules that matched."""
        found: dict[World, set[Rule]] = {world: set() for world in self.worlds.values()}
        for result in results:
            found[self.world(result.test)].update(*(answer.rules for answer in result.answers))
        return list(found.items())


def _placed(problems: Iterable[Problem], test: PolicyTest) -> list[Problem]:
    """A path that leads nowhere stands in the test that names it."""
    named = policy_paths(test)
    found = []
    for problem in problems:
        if problem.code == "file-missing" and problem.file in named:
            number = named.index(problem.file)
            place = Places().place(test.location, ("spec", "policies", number))
            problem = replace(
                problem, file=test.location.file, line=place.line, column=place.column, kind="PolicyTest",
                name=test.metadata.name, path=f"spec.policies[{number}]", found=f"`{problem.file}`",
                hint="paths are seen from the folder of this file",
            )  # fmt: skip
        found.append(problem)
    return found


def policy_paths(test: PolicyTest) -> list[str]:
    """Those that a test names, seen from its file; else the folder of that."""
    folder = os.path.dirname(test.location.file)
    named = [os.path.normpath(os.path.join(folder, path)) for path in test.spec.policies or ()]
    return named or [folder or "."]
