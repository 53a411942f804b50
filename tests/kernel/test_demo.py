"""The demonstration itself: everything as expected, nothing left behind, also when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from kit import wait_until
from labelgate.demo import namespaces as namespaces_module
from labelgate.demo.world import EDGE, World

DEMO = (sys.executable, "-m", "labelgate", "demo", "--backend")


def namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines()}


@pytest.mark.timeout(600)
def test_the_demo_is_as_expected(backend: str) -> None:
    demo = subprocess.Popen([*DEMO, backend], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown, said = demo.communicate(timeout=500)
    assert demo.returncode == 0, shown + said
    assert "32 observations, 0 not as expected" in shown
    assert not any(f"lg-{demo.pid}-" in name for name in namespaces())


def test_an_interrupted_demo_leaves_nothing(backend: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        demo = subprocess.Popen(
            [*DEMO, backend],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert demo.stderr is not None
        demo.stderr.readline()
        assert any(f"lg-{demo.pid}-" in name for name in namespaces())
        demo.send_signal(number)
        demo.communicate(timeout=60)
        assert demo.returncode in (130, 128 + signal.SIGTERM)
        assert not any(f"lg-{demo.pid}-" in name for name in namespaces())


def test_a_killed_demo_is_cleaned_by_the_next_world() -> None:
    demo = subprocess.Popen([*DEMO, "nft"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    demo.stderr.readline()
    assert any(f"lg-{demo.pid}-" in name for name in namespaces())
    demo.kill()
    demo.communicate(timeout=60)
    with World() as world:
        assert world.namespace(EDGE) in namespaces()
        assert wait_until(lambda: not any(f"lg-{demo.pid}-" in name for name in namespaces()))


def test_an_interrupted_removal_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a world is being removed, as one that comes a second time."""
    removed = namespaces_module.ip

    def interrupted(arguments: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        removed(arguments)

    world = World().__enter__()
    monkeypatch.setattr(namespaces_module, "ip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.remove()
    assert world.namespace(EDGE).removesuffix(EDGE) not in "".join(namespaces())
