"""The file of `--host`: what is wrong with it is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from labelgate.cli.host_facts import read_host
from labelgate.cli.options import EnvironmentProblem
from labelgate.settings import HostFacts


def refused(folder: Path, text: str | bytes) -> str:
    file = folder / "host.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EnvironmentProblem) as caught:
        read_host(str(file))
    return caught.value.message.removeprefix(str(file))


def test_host_facts(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text('{"node": 7, "interfaces": {"eth0": ["198.51.100.10", "2001:DB8::10"], "eth1": null}}')
    assert read_host(str(file)) == (
        "7",
        HostFacts({"eth0": ("198.51.100.10", "2001:db8::10"), "eth1": ()}),
        None,
    )
    file = tmp_path / "host.yaml"
    file.write_text("workloadPrefixes: [cali, tap]\n")
    assert read_host(str(file)) == (None, HostFacts({}), ("cali", "tap"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "interfaces:\n  eth0: [198.51.100.9, 198.51.100.10/24]\n",
            ":2:24: interfaces.eth0[1]: found `198.51.100.10/24`, expected an IPv4 or IPv6 address"
            " (leave out the mask: `198.51.100.10`)",
        ),
        (
            "interfaces: {eth0: 198.51.100.9}\n",
            ":1:20: interfaces.eth0: found `198.51.100.9`, expected a list of addresses",
        ),
        (
            "node: a\nnode: b\n",
            ":2:1: node: the same field twice: `node`, expected each field once;"
            " the first is at line 1, column 1 (keep one of them)",
        ),
        (
            "node: [a\n",
            ":2:1: not valid YAML: no ',' or ']', while parsing a flow sequence, "
            "expected a YAML or JSON document (check indentation, quotes and brackets up to here)",
        ),
        (
            "nodes: a\n",
            ":1:1: nodes: unknown key, expected one of `node`, `interfaces`, `workloadPrefixes`",
        ),
        ("workloadPrefixes: cali\n", ":1:19: workloadPrefixes: found `cali`, expected a list of names"),
        ("- a\n", ":1:1: found a list, expected a mapping with node, interfaces, workloadPrefixes"),
        ("", ": found 0 documents, expected one"),
        ("node: a\n---\nnode: b\n", ": found 2 documents, expected one"),
        (
            b"node: \xe9\n",
            ":1:7: not UTF-8 text: the byte 0xe9, expected UTF-8 (convert it: `iconv -f LATIN1 -t UTF-8`)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refused(tmp_path, text) == message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="host: No such file or directory"):
        read_host(str(tmp_path / "host"))
