"""Files that several tests of recorded traffic read."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_traffic import PACKETS, POLICY
from scapy.utils import wrpcap


@pytest.fixture
def recorded_policy(tmp_path: Path) -> str:
    """The policies of `recorded_traffic`."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return str(path)


@pytest.fixture
def capture(tmp_path: Path) -> str:
    """Its packets."""
    path = str(tmp_path / "traffic.pcap")
    wrpcap(path, PACKETS)
    return path
