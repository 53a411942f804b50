"""The command line: one file per verb.

Exit codes: 0 ok, 1 findings or denied, 2 usage, 3 environment or load, 4 internal disagreement.
"""

from __future__ import annotations

import sys

import click

from labelgate.cli.apply import apply, confirm, rollback
from labelgate.cli.bench import bench
from labelgate.cli.check import check
from labelgate.cli.clean import clean
from labelgate.cli.config import config
from labelgate.cli.connectivity import connectivity
from labelgate.cli.demo import demo
from labelgate.cli.doctor import doctor
from labelgate.cli.events import events
from labelgate.cli.explain import explain
from labelgate.cli.install_unit import install_unit
from labelgate.cli.reload import reload
from labelgate.cli.rules import rules
from labelgate.cli.run import run
from labelgate.cli.schema import schema
from labelgate.cli.selector import selector
from labelgate.cli.status import status
from labelgate.cli.top import top
from labelgate.cli.version import version
from labelgate.config import ConfigError
from labelgate.resources import LoadError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Calico and Kubernetes network policy on any Linux host.

    \b
    Exit codes: 0 ok, 1 findings or denied, 2 usage, 3 environment or load, 4 internal disagreement.
    """


for verb in (
    check, explain, connectivity, selector, schema, bench, run, status, top, reload, apply, confirm, rollback,
    events, rules, config, doctor,
    install_unit, clean, demo, version,
):  # fmt: skip
    cli.add_command(verb)


def main() -> None:
    """The `labelgate` program: every error is a message on stderr and an exit code, never a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        click.echo("labelgate: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (LoadError, ConfigError) as error:
        click.echo(error, err=True)
        sys.exit(3)
