"""`labelgate demo`: the five policy options on real packets."""

from __future__ import annotations

import click


@click.command()
def demo() -> None:
    """Show the five policy options enforced on real packets in network namespaces (root)."""
