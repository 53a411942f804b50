"""`labelgate install-unit`: the systemd unit, for this installation."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import click

from labelgate.cli.options import writing

UNIT = "labelgate.service"
_HOMES = ("/home/", "/root/", "/run/user/")


def unit(program: str = sys.executable) -> str:
    """The unit's text, with a Python that has labelgate."""
    # A Python in somebody's home can only be run if that can be read.
    home = "read-only" if program.startswith(_HOMES) else "yes"
    text = (files("labelgate") / UNIT).read_text(encoding="utf-8")
    return text.replace("@PROGRAM@", f"{program} -m labelgate").replace("@HOME@", home)


@click.command("install-unit")
@click.option("--install", is_flag=True, help="Write it into the folder instead of printing it.")
@click.option("--folder", default="/etc/systemd/system", show_default=True, metavar="FOLDER")
def install_unit(install: bool, folder: str) -> None:
    """Print or install the systemd unit of the daemon.

    It reads /etc/labelgate/config.yaml, which has to name `policies`.
    """
    if not install:
        click.echo(unit(), nl=False)
        return
    path = Path(folder) / UNIT
    with writing(path):
        path.write_text(unit(), encoding="utf-8")
    click.echo(f"{path} is installed; now: systemctl daemon-reload && systemctl enable --now labelgate")
