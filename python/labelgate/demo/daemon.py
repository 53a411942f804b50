"""`labelgate run` as a process in a node of a world."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labelgate.demo.namespaces import Namespaces, WorldError, end
from labelgate.demo.world import EDGE

NODE = "edge1"
READY_SECONDS = 60.0
"""As everything here that only a failure waits for: enough for a machine that is busy with other things."""


class Daemon:
    """In the namespace of `host`. Started on entry and in force when entry ends; stopped on exit."""

    def __init__(
        self,
        world: Namespaces,
        *paths: Path | str,
        backend: str,
        host: str = EDGE,
        node: str = NODE,
        settle: str = "0",
        watch: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        self._world, self._host = world, host
        files = [option for path in paths for option in ("-f", str(path))]
        # The daemon of this machine, if there is one, keeps its socket.
        # One folder for each host that is not the edge node: daemons of one world must not share state.
        folder = world.folder if host == EDGE else world.folder / host
        folder.mkdir(exist_ok=True)
        self.socket = str(folder / "control.sock")
        """Where it answers."""
        self._command = [
            sys.executable, "-m", "labelgate", "run", *files, "--node", node, "--backend", backend,
            "--settle", settle, "--socket", self.socket, "--state", str(folder / "state"),
            "--watch" if watch else "--no-watch", *options,
        ]  # fmt: skip
        self.log: list[str] = []
        """Every line said so far."""
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self.start()
        self.wait_for("in force")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it without waiting."""
        self.process = self._world.start(
            self._host, *self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=_listen, args=(self.process, self._lines), daemon=True)
        self._listener.start()

    def wait_for(self, text: str, seconds: float = READY_SECONDS) -> str:
        """The next line that holds a text; WorldError if none comes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                break  # It has ended.
            self.log.append(line)
            if text in line:
                return line
        said = "\n".join(self.log)
        raise WorldError(f"`labelgate run` did not say `{text}` within {seconds:g} s; it said:\n{said}")

    def counters(self) -> dict[str, Any]:
        """The counters of the packet loop."""
        self.process.send_signal(signal.SIGUSR1)
        counters: dict[str, Any] = json.loads(self.wait_for('{"generation"'))
        return counters

    def verdicts(self, hook: str) -> dict[str, int]:
        """How often each verdict was given at a hook, without zeros."""
        counted: dict[str, int] = self.counters()["hooks"][hook]["verdicts"]
        return {verdict: count for verdict, count in counted.items() if count}

    def reload(self) -> str:
        """Has the files read anew; what is said about it."""
        self.process.send_signal(signal.SIGHUP)
        return self.wait_for("in force")

    def exit_code(self, seconds: float = 30.0) -> int:
        """Waits until it ends by itself; its exit code."""
        code = self.process.wait(seconds)
        self._listener.join()
        return code

    def stop(self) -> int:
        """Ends it; its exit code."""
        code = end(self.process)
        self._listener.join()
        return code


def _listen(process: subprocess.Popen[str], into: queue.SimpleQueue[str | None]) -> None:
    """Every line that a process says, then None."""
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            into.put(line.rstrip("\n"))
    into.put(None)
