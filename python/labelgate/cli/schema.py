"""`labelgate schema`: a JSON Schema of a kind, for editors."""

from __future__ import annotations

import json

import click

from labelgate.resources.schema import json_schema, kinds


@click.command()
@click.argument("kind")
def schema(kind: str) -> None:
    """Print the JSON Schema of a KIND, for editors that check YAML while it is written.

    NetworkPolicy is Calico's; Kubernetes' is KubernetesNetworkPolicy. The schema knows names, types and lists
    of words; what fields mean together is said by `labelgate check`.
    """
    if kind not in kinds():
        raise click.UsageError(f"KIND: found `{kind}`, expected one of {', '.join(kinds())}")
    click.echo(json.dumps(json_schema(kind), indent=2))
