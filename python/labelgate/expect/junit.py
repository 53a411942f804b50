"""Results as JUnit XML, as continuous integration reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from xml.etree import ElementTree

from labelgate.expect.judge import Result

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Iterable[tuple[Result, float]], texts: Mapping[int, str]) -> bytes:
    """An XML document with a suite for each test and a case for each expectation.

    It holds what the schema of Jenkins' xunit plugin (junit-10) knows, and nothing else: that refuses a
    report whose cases have a file or a line. The file is the suite's; the text of a case that does not hold
    begins with its place.

    `results` come with the seconds that each took; `texts` say of those that do not hold why, by their
    position.
    """
    root = ElementTree.Element("testsuites", name="labelgate")
    numbered = list(enumerate(results))
    _count(root, [result for _, (result, _) in numbered], sum(seconds for _, (_, seconds) in numbered))
    for _, group in groupby(numbered, key=lambda item: id(item[1][0].test)):
        members = list(group)
        test = members[0][1][0].test
        file = _clean(test.location.file)
        suite = ElementTree.SubElement(root, "testsuite", name=_clean(test.metadata.name), file=file)
        _count(suite, [result for _, (result, _) in members], sum(seconds for _, (_, seconds) in members))
        for number, (result, seconds) in members:
            _case(suite, result, seconds, texts.get(number, ""))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _count(element: ElementTree.Element, results: list[Result], seconds: float) -> None:
    element.set("tests", str(len(results)))
    element.set("failures", str(sum(bool(result.failures) for result in results)))
    element.set("errors", str(sum(result.error is not None for result in results)))
    element.set("time", f"{seconds:.3f}")


def _case(suite: ElementTree.Element, result: Result, seconds: float, text: str) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        name=_clean(f"{result.title} [{result.index}]"),
        classname=_clean(result.test.metadata.name),
        time=f"{seconds:.3f}",
    )
    if not result.is_as_expected:
        kind = "failure" if result.error is None else "error"
        message = "not as expected" if result.error is None else result.error
        found = ElementTree.SubElement(case, kind, message=_clean(message), type=kind)
        found.text = _clean(text)


def _clean(text: str) -> str:
    """Without what XML cannot say."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
