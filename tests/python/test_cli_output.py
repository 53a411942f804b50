"""Standard output that cannot be written says nothing of policies, and is no fault of ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import labelgate as package
import pytest
from labelgate import cli

FULL = "labelgate: standard output: No space left on device: not all of the answer is there\n"
WRITERS = [["--help"], ["schema", "Tier"]]


def labelgate(words: list[str], output: int) -> tuple[int, str]:
    """Exit code and errors."""
    command = [sys.executable, "-P", "-m", "labelgate", *words]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_reader_that_has_gone(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert labelgate(words, writer) == (141, "")
    finally:
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device of Linux that is full")
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_full_disk(words: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = labelgate(words, full)
    finally:
        os.close(full)
    assert code == 3
    assert said == FULL


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device of Linux that is full")
def test_a_full_disk_is_not_told_of_the_file_that_is_read(tmp_path: Path) -> None:
    policy = Path(package.__file__).parent / "examples" / "01-workload.yaml"
    packets = tmp_path / "packets.jsonl"
    packets.write_text("{}\n")
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = labelgate(["explain", "-f", str(policy), "--packets", str(packets)], full)
    finally:
        os.close(full)
    assert code == 3
    assert said.endswith(FULL)
    assert packets.name not in said


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_what_is_not_the_output_is_not_told_as_if(number: int) -> None:
    """A daemon that ends while it is asked; watches of which the kernel allows no more."""
    with pytest.raises(OSError, match=os.strerror(number)), cli._writing():
        raise OSError(number, os.strerror(number))
