"""`labelgate install-unit`: the systemd unit, for this installation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import click

from labelgate.cli.options import EnvironmentProblem, writing
from labelgate.doctor.files import installation, is_at_home, unreadable

UNIT = "labelgate.service"


def unit(places: Sequence[str] | None = None) -> str:
    """The unit's text, for an installation: first the Python that has labelgate, then what it needs."""
    program, *_ = places = installation() if places is None else places
    # A Python in somebody's home can only be run if that can be read.
    home = "read-only" if is_at_home(places) else "yes"
    text = (files("labelgate") / UNIT).read_text(encoding="utf-8")
    return text.replace("@PROGRAM@", f"{_word(program)} -m labelgate").replace("@HOME@", home)


def _word(path: str) -> str:
    """As a command line of a unit has it (systemd.service(5), systemd.unit(5)).

    >>> print(_word("/opt/venv/bin/python"), _word("/opt/100 %/python"))
    /opt/venv/bin/python "/opt/100 %%/python"
    """
    if re.search(r"[\"'\\]", path):
        raise EnvironmentProblem(f"{path}: systemd runs no program whose path has a quote or a backslash")
    escaped = path.replace("%", "%%")
    return escaped if re.fullmatch(r"[\w/.+@%:=,-]+", escaped) else f'"{escaped}"'


@click.command("install-unit")
@click.option("--install", is_flag=True, help="Write it into the folder instead of printing it.")
@click.option("--folder", default="/etc/systemd/system", show_default=True, metavar="FOLDER")
def install_unit(install: bool, folder: str) -> None:
    """Print or install the systemd unit of the daemon.

    It reads /etc/labelgate/config.yaml, which has to name `policies`. What its daemon could not read of this
    installation, having no CAP_DAC_OVERRIDE, is warned of.
    """
    for why in unreadable(installation()):
        click.echo(f"warning: the unit's daemon cannot read this installation: {why}", err=True)
    if not install:
        click.echo(unit(), nl=False)
        return
    path = Path(folder) / UNIT
    with writing(path):
        path.write_text(unit(), encoding="utf-8")
    click.echo(f"{path} is installed; now: systemctl daemon-reload && systemctl enable --now labelgate")
