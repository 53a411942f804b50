"""`labelgate test`: do policies decide what is expected of them?"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from labelgate.cli.options import config_option, writing
from labelgate.expect.coverage import Coverage
from labelgate.expect.judge import EnginesDiffer, Result, judge
from labelgate.expect.junit import junit
from labelgate.expect.report import text
from labelgate.expect.suite import Suite, read_tests
from labelgate.printable import printable, printable_lines
from labelgate.resources import PolicyTest

Timed = tuple[Result, float]


@click.command("test")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "-f",
    "--filename",
    "policies",
    multiple=True,
    metavar="POLICY",
    help="Policies in the place of those that the tests name: file or folder; repeatable.",
)
@click.option(
    "-k",
    "words",
    metavar="TEXT",
    help="Only expectations with this text in their name or question, in any case.",
)
@click.option("--junit", "junit_file", metavar="FILE", help="Write the results as JUnit XML.")
@click.option("--coverage", is_flag=True, help="Say which rules no expectation exercises.")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="With --coverage: exit code 1 if fewer rules are exercised.",
)
@config_option
def run_expectations(
    paths: tuple[str, ...],
    policies: tuple[str, ...],
    words: str | None,
    junit_file: str | None,
    coverage: bool,
    fail_under: float | None,
    config_file: str | None,
) -> None:
    """Ask what PolicyTest documents expect, of the table that would enforce the policies.

    \b
    labelgate test policies/
    labelgate test policies/ -f candidate.yaml --coverage --fail-under 90 --junit results.xml

    Files and folders (recursive) are read for documents of kind PolicyTest; the policies are those that each
    names, or else those in its own folder. What such a document looks like: docs/policy-tests.md.

    Exit code 1 if any answer is not as expected (or coverage too low), 2 if there is nothing to ask, 3 if
    files do not load, 4 for a bug of labelgate: the table contradicts its own rules.
    """
    if fail_under is not None and not coverage:
        raise click.UsageError("--fail-under needs --coverage")
    suite = Suite(policies, config_file)
    chosen = [
        (found, index)
        for found in read_tests(paths)
        for index in range(found.count)
        if words is None or _has(words, found, index)
    ]
    if not chosen:
        raise click.UsageError(
            f"no expectation has `{words}` in its name or question"
            if words
            else "no expectation in these files, expected documents of `kind: PolicyTest` "
            "(docs/policy-tests.md shows one)"
        )
    results = _run(suite, chosen)
    texts = {
        number: text(result, suite.world(result.test))
        for number, (result, _) in enumerate(results)
        if not result.is_as_expected
    }
    for failure in texts.values():
        click.echo(printable_lines(failure))
    if junit_file is not None:
        with writing(junit_file):
            Path(junit_file).write_bytes(junit(results, texts))
    is_covered = not coverage or _cover(suite, results, fail_under or 0)
    _sum_up(results)
    sys.exit(1 if texts or not is_covered else 0)


def _has(words: str, found: PolicyTest, index: int) -> bool:
    result = Result(found, index)
    return words.lower() in f"{found.metadata.name}[{index}] {result.title}".lower()


def _run(suite: Suite, chosen: list[tuple[PolicyTest, int]]) -> list[Timed]:
    results = []
    for found, index in chosen:
        world = suite.world(found)
        start = time.perf_counter()
        try:
            result = judge(world, found, index)
        except EnginesDiffer as error:
            click.echo(f"the table contradicts its own rules, please report this: {error}", err=True)
            sys.exit(4)
        results.append((result, time.perf_counter() - start))
    return results


def _cover(suite: Suite, results: list[Timed], least: float) -> bool:
    """Prints the rules that are never asked; whether enough of them are."""
    found = Coverage.of(suite.exercised(result for result, _ in results))
    for rule in found.missed:
        click.echo(printable(f"{rule.place}: not exercised: {rule} ({rule.action})"))
    click.echo(found.caption())
    if not found.rules:
        click.echo("no policy has a rule: nothing is covered", err=True)
        return False
    if found.percent < least:
        click.echo(f"coverage {found.percent:.1f} % is below --fail-under {least:g}", err=True)
    return found.percent >= least


def _sum_up(results: list[Timed]) -> None:
    wrong = sum(bool(result.failures) for result, _ in results)
    errors = sum(result.error is not None for result, _ in results)
    asked = sum(result.asked for result, _ in results)
    parts = [f"{len(results) - wrong - errors} as expected"]
    parts += [f"{wrong} not as expected"] if wrong else []
    parts += [f"{errors} cannot be asked"] if errors else []
    click.echo(f"{', '.join(parts)} ({asked} question{'s' * (asked != 1)})")
