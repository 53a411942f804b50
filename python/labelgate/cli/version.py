"""`labelgate version`."""

from __future__ import annotations

import platform

import click

from labelgate import _core


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(text())


def text() -> str:
    """Of labelgate, Python and the kernel."""
    kernel = f"{platform.system()} {platform.release()}"
    return f"labelgate {_core.__version__} (Python {platform.python_version()}, {kernel})"
