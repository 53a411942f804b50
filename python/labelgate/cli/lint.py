"""`labelgate lint`: what in valid policy is hardly what was meant."""

from __future__ import annotations

import gc
import json
import sys

import click

from labelgate.analysis.lint import RULES, Finding, Severity, UnknownRules, has_endpoints, lint, read
from labelgate.analysis.lint.catalogue import SEVERITIES
from labelgate.analysis.lint.sarif import sarif
from labelgate.cli.options import config_option, policies
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.printable import printable
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.sources.files import misnamed


@click.command("lint")
@policies(required=False)
@config_option
@click.option(
    "--select",
    multiple=True,
    metavar="RULE,...",
    help="Only these: LG101, LG1, shadowed-rule, ALL [default: ALL].",
)
@click.option("--ignore", multiple=True, metavar="RULE,...", help="Not these, even if selected.")
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="info",
    show_default=True,
    help="The least that is told.",
)
@click.option("--rules", is_flag=True, help="List all rules and end.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True
)
def lint_verb(
    paths: tuple[str, ...],
    config_file: str | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    severity: Severity,
    rules: bool,
    output: str,
) -> None:
    """Find what in valid policy is hardly what was meant.

    \b
    labelgate lint -f policies/
    labelgate lint -f policies/ --severity warning --ignore LG107 -o sarif

    Endpoints are those in the files: load pods and host endpoints beside their policies, for otherwise
    each rule is compared only with those of its own policy, and selectors with nothing. `--rules` lists
    what is looked for. An annotation `lint.labelgate.io/LG101: the reason` on a resource (or
    among the metadata.annotations of a rule) suppresses a finding. docs/lint.md explains each rule.

    Exit codes: 0 nothing found, 1 findings, 2 usage, 3 a file is refused.
    """
    if rules:
        for rule in RULES.values():
            click.echo(f"{rule.id}  {rule.severity:7}  {rule.name:24}  {rule.summary} ({rule.laws})")
        return
    if not paths:
        raise click.UsageError("missing option -f / --filename")
    with ProgressBar() as progress:
        snapshot, places = read(paths, progress)
    for warning in misnamed(paths):
        click.echo(f"warning: {warning}", err=True)

    def settings_of(node: str | None) -> Settings:
        return load_config(config_file, snapshot.felix_configurations, node).settings

    try:
        found = lint(
            snapshot, settings_of=settings_of, severity=severity, places=places,
            select=_words(select) or ("ALL",), ignore=_words(ignore),
        )  # fmt: skip
    except UnknownRules as error:
        raise click.UsageError(str(error)) from None
    gc.freeze()  # What is read lives to the end: the interpreter would look through all of it on its way out.
    _say_what_is_missing(snapshot)
    _print(found, output)
    sys.exit(1 if found else 0)


def _say_what_is_missing(snapshot: Snapshot) -> None:
    """Without endpoints much is silent: whoever takes that for praise should know."""
    if has_endpoints(snapshot):
        return
    if not any(True for _ in snapshot.resources()):
        click.echo("no resources in these files: nothing was judged", err=True)
        return
    text = (
        "no endpoints in these files: rules were judged within their policies only, and selectors not at all"
    )
    if snapshot.pods:
        text += "; pods count once they have a node and addresses (`kubectl get pods -o yaml`) (R-30)"
    click.echo(text, err=True)


def _words(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip() for text in given for word in text.split(",") if word.strip())


def _print(found: list[Finding], output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"findings": [one.to_json() for one in found]}, indent=2))
    elif output == "sarif":
        click.echo(json.dumps(sarif(found), indent=2))
    else:
        for one in found:
            click.echo(f"{one} [{one.name}]\n  mend: {printable(one.mend)}")
        counts = {word: sum(one.severity == word for one in found) for word in SEVERITIES}
        told = ", ".join(
            f"{count} {word}" + "s" * (count != 1 and word != "info")
            for word, count in counts.items()
            if count
        )
        click.echo(told or "nothing found", err=True)
