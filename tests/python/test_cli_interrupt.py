"""Ctrl-C in the first moments of the program, when nothing of it runs yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import labelgate
import pytest

AS_MODULE = "import runpy; runpy.run_module('labelgate', run_name='__main__')"
AS_PROGRAM = """
from importlib.metadata import entry_points
[program] = entry_points(group="console_scripts", name="labelgate")
program.load()()
"""
INTERRUPTED = """
import importlib.abc, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, {disposition})
sys.meta_path.insert(0, Finder())
sys.argv = ["labelgate", *{words!r}]
{start}
"""


def interrupted(start: str, module: str, disposition: str) -> tuple[int, str, str]:
    """Exit code and outputs of `labelgate run --help`, which gets SIGINT as it begins to import a module."""
    words = ["run", "--help"]
    code = INTERRUPTED.format(start=start, module=module, disposition=disposition, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("start", [AS_MODULE, AS_PROGRAM], ids=["module", "program"])
@pytest.mark.parametrize("module", ["labelgate.cli", "labelgate.resources", "pyroute2", "labelgate.agent"])
def test_interrupted_while_it_imports(start: str, module: str) -> None:
    assert interrupted(start, module, "signal.default_int_handler") == (130, "", "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """As in the background of a shell."""
    code, shown, said = interrupted(AS_MODULE, "labelgate.agent", "signal.SIG_IGN")
    assert (code, said) == (0, "")
    assert shown.startswith("Usage: ")


@pytest.mark.parametrize("fault", ["RuntimeError", "BaseException"])
def test_a_fault_of_our_own_says_nothing_of_policies(fault: str) -> None:
    """Its exit code is none that a verb gives; a panic of the core is a BaseException."""
    code = f"""
import sys
from labelgate import __main__
from labelgate.cli.version import version
def fail(**_): raise {fault}("oh")
version.callback = fail
sys.argv = ["labelgate", "version"]
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (70, "")
    assert f"{fault}: oh" in done.stderr
    assert "please report it" in done.stderr


DIFF_INTERRUPTED = """
import os, signal, sys, threading
from labelgate import __main__
from labelgate.analysis import judged
once = threading.Lock()
def build(*_):
    if once.acquire(blocking=False):
        # Python may lose one that comes while its main thread begins to wait for a lock: people press again.
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.1)
    threading.Event().wait()
judged.DecisionTable = build
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["labelgate", "diff", {old!r}, {new!r}]
__main__.main()
"""


def test_interrupted_while_tables_are_built(tmp_path: Path) -> None:
    """Nobody waits for what other threads have begun, or have not yet."""
    paths = [str(tmp_path / name) for name in ("old.yaml", "new.yaml")]
    for path, port in zip(paths, (80, 443), strict=True):
        hosts = "".join(HOST.format(number=number) for number in range(50))
        Path(path).write_text(hosts + POLICY.format(port=port), encoding="utf-8")
    code = DIFF_INTERRUPTED.format(old=paths[0], new=paths[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "labelgate: interrupted\n")


HOST = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: h{number}
spec:
  node: n{number}
  interfaceName: eth0
---
"""
POLICY = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: web
spec:
  selector: all()
  ingress:
  - action: Allow
    protocol: TCP
    destination:
      ports:
      - {port}
"""


def test_every_public_name_is_there() -> None:
    assert {name: hasattr(labelgate, name) for name in labelgate.__all__} == dict.fromkeys(
        labelgate.__all__, True
    )
    assert set(labelgate.__all__) <= set(dir(labelgate))
    with pytest.raises(AttributeError, match="module 'labelgate' has no attribute 'nothing'"):
        labelgate.nothing  # noqa: B018
