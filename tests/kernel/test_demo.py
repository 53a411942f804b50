"""The demonstration itself: everything as expected, nothing left behind, also when interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

DEMO = (sys.executable, "-m", "labelgate", "demo", "--backend")


def namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines()}


def test_the_demo_is_as_expected(backend: str) -> None:
    demo = subprocess.Popen([*DEMO, backend], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown, said = demo.communicate(timeout=120)
    assert demo.returncode == 0, shown + said
    assert "32 observations, 0 not as expected" in shown
    assert not any(f"lg-{demo.pid}-" in name for name in namespaces())


def test_an_interrupted_demo_leaves_nothing(backend: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        demo = subprocess.Popen([*DEMO, backend], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert demo.stderr is not None
        demo.stderr.readline()
        assert any(f"lg-{demo.pid}-" in name for name in namespaces())
        demo.send_signal(number)
        demo.communicate(timeout=20)
        assert demo.returncode in (130, 128 + signal.SIGTERM)
        assert not any(f"lg-{demo.pid}-" in name for name in namespaces())


def test_a_killed_demo_is_cleaned_by_the_next_world() -> None:
    from labelgate.demo.world import EDGE, World

    demo = subprocess.Popen([*DEMO, "nft"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    demo.stderr.readline()
    demo.kill()
    demo.communicate(timeout=20)
    assert any(f"lg-{demo.pid}-" in name for name in namespaces())
    with World() as world:
        assert world.namespace(EDGE) in namespaces()
        deadline = time.monotonic() + 5
        while any(f"lg-{demo.pid}-" in name for name in namespaces()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(f"lg-{demo.pid}-" in name for name in namespaces())
