"""A few paths over HTTP, on threads of their own: whoever asks, and however, the daemon goes on.

So many connections at once, each for so long and with so long a request, then they are cut off; one request
for each. An address that is taken is tried again until it is free (`run --replace`: the daemon of before has
it).
"""

from __future__ import annotations

import errno
import io
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

MOST_CONNECTIONS = 8
"""One more is closed at once."""
SILENT_SECONDS, MOST_SECONDS = 3.0, 10.0
"""How long nothing is waited for, and how long a connection may last."""
MOST_BYTES = 8192
"""Of a request with its headers; what is behind is not read."""
TURN_SECONDS = 0.25
"""How soon a stop is noticed."""
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Response:
    """What a path answers."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Route = Callable[[str], Response]
"""Takes the Accept header; runs on any thread, several at once."""


class HttpServer:
    """Answers from its making to `stop`."""

    def __init__(
        self, address: str, port: int, routes: Mapping[str, Route], say: Callable[[str], None]
    ) -> None:
        self._address, self._routes, self._say = (address, port), routes, say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelgate-http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listens no more; who is being answered is not waited for."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        has_warned = False
        while not self._over.is_set():
            try:
                server = _Server(self._address, self._routes, self._say)
            except OSError as error:
                if not has_warned:
                    self._say(f"warning: no metrics at {_shown(self._address)} yet: {error.strerror}")
                has_warned = True
                self._over.wait(RETRY_SECONDS)
                continue
            with server:
                self._say(f"metrics and health at http://{_shown(self._address)}/")
                while not self._over.is_set():
                    server.handle_request()
                    server.cut_off_old()


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads, block_on_close = True, False
    request_queue_size = 16
    timeout = TURN_SECONDS

    def __init__(
        self, address: tuple[str, int], routes: Mapping[str, Route], say: Callable[[str], None]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.routes, self.say = routes, say
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        """Connections, and when they began."""
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the name of the host, which `HTTPServer` asks name servers for."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", 0

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; not at once where we have no descriptor left, as it stays to be taken."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(TURN_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread, if one is free."""
        with self._lock:
            is_free = len(self._open) < MOST_CONNECTIONS
            if is_free:
                self._open[request] = time.monotonic()
        if not is_free:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # No thread can be started.
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """It is over, whoever ended it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def cut_off_old(self) -> None:
        """Those that have lasted too long; their threads then end by themselves."""
        before = time.monotonic() - MOST_SECONDS
        with self._lock:
            for request in [request for request, begun in self._open.items() if begun < before]:
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are nothing to speak of."""


class _Head(io.BufferedIOBase):
    """The beginning of a request; it ends where it grows too long."""

    def __init__(self, connection: io.BufferedIOBase) -> None:
        self._connection, self._left = connection, MOST_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, as far as it may be."""
        most = self._left if size is None or size < 0 else min(size, self._left)
        line = self._connection.readline(most)
        self._left -= len(line)
        return line

    def close(self) -> None:
        """And the connection with it."""
        self._connection.close()
        super().close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENT_SECONDS
    server_version, sys_version = "labelgate", ""

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        response = self._response(self.path.partition("?")[0])
        self.send_response(response.status)
        self.send_header("Content-Type", response.kind)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(response.body)

    def _response(self, path: str) -> Response:
        if (route := self.server.routes.get(path)) is None:
            known = " ".join(sorted(self.server.routes))
            return Response(f"no such path; known: {known}\n".encode(), status=HTTPStatus.NOT_FOUND)
        try:
            return route(self.headers.get("Accept", ""))
        except BaseException:  # Of ours, or a panic of the core: none may go without a word.
            self.server.say(f"metrics: internal fault\n{traceback.format_exc().rstrip()}")
            return Response(b"internal fault; the log has more\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who asks, and how often, is nobody's news."""
