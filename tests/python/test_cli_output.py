"""Standard output that cannot be written says nothing of policies, and is no fault of ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from labelgate import cli

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
    assert said == "labelgate: standard output: No space left on device: not all of the answer is there\n"


def test_a_socket_whose_other_end_has_gone_is_not_the_output() -> None:
    """A daemon that ends while it is asked."""
    with pytest.raises(BrokenPipeError), cli._writing():
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
