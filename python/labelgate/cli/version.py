"""`labelgate version`."""

from __future__ import annotations

import platform

import click

from labelgate import _core


@click.command()
def version() -> None:
    """Print the version."""
    kernel = f"{platform.system()} {platform.release()}"
    click.echo(f"labelgate {_core.__version__} (Python {platform.python_version()}, {kernel})")
