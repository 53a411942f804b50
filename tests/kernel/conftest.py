"""Real packets in network namespaces of our own. Without root these tests fail; they are not skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from labelgate.demo.world import World


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    assert os.geteuid() == 0, "kernel tests make network namespaces and netfilter rules: run them as root"


@pytest.fixture
def world() -> Iterator[World]:
    """A world of its own for each test, removed also when the test fails."""
    with World() as world:
        yield world


@pytest.fixture(params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both variants of iptables."""
    return str(request.param)
