"""A few paths over HTTP, on threads of their own: whoever asks, and however, the daemon goes on.

So many connections at once, each for so long and with so long a request, then they are cut off; one request
for each. Who connects and does not ask gives way to those who come, and what takes long has some of the
connections only: health is answered always. An address that is taken is tried again until it is free
(`run --replace`: the daemon of before has it).
"""

from __future__ import annotations

import errno
import io
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

MOST_CONNECTIONS = 8
"""One more takes the place of the oldest that has not asked yet."""
MOST_SLOW = 4
"""Requests for what takes long; one more is refused."""
HEAD_SECONDS, SILENT_SECONDS, MOST_SECONDS = 1.0, 3.0, 10.0
"""How long a request may take to arrive, nothing is waited for, and a connection may last."""
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
        self,
        address: str,
        port: int,
        routes: Mapping[str, Route],
        say: Callable[[str], None],
        slow: Collection[str] = (),
    ) -> None:
        """`slow` are the paths whose answers may take long."""
        self._address, self._routes, self._say, self._slow = (address, port), routes, say, slow
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
                server = _Server(self._address, self._routes, self._say, self._slow)
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
        self,
        address: tuple[str, int],
        routes: Mapping[str, Route],
        say: Callable[[str], None],
        slow: Collection[str],
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.routes, self.say, self.slow = routes, say, slow
        self.slow_places = threading.BoundedSemaphore(MOST_SLOW)
        self._lock = threading.Lock()
        self._silent: dict[socket.socket, float] = {}
        """Connections that have not asked yet, and when they began, in this order."""
        self._asked: dict[socket.socket, float] = {}
        """Likewise those that have."""
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
            is_free = len(self._silent) + len(self._asked) < MOST_CONNECTIONS
            if not is_free and self._silent:
                oldest = next(iter(self._silent))
                del self._silent[oldest]
                _cut_off(oldest)
                is_free = True
            if is_free:
                self._silent[request] = time.monotonic()
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
            self._silent.pop(request, None)
            self._asked.pop(request, None)
        super().shutdown_request(request)

    def has_asked(self, request: Any) -> None:
        """Its request is there: it gives way to nobody any more."""
        with self._lock:
            begun = self._silent.pop(request, None)
            if begun is not None:
                self._asked[request] = begun

    def cut_off_old(self) -> None:
        """Those that have lasted too long; their threads then end by themselves."""
        now = time.monotonic()
        with self._lock:
            for connections, most in ((self._silent, HEAD_SECONDS), (self._asked, MOST_SECONDS)):
                for request, begun in connections.items():
                    if begun < now - most:
                        _cut_off(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are nothing to speak of."""


def _cut_off(request: socket.socket) -> None:
    """Its thread then ends by itself."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


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
        self.server.has_asked(self.request)
        path, places = self.path.partition("?")[0], self.server.slow_places
        if path not in self.server.slow:
            self._send(self._response(path), with_body=with_body)
        elif places.acquire(blocking=False):
            try:
                self._send(self._response(path), with_body=with_body)
            finally:
                places.release()
        else:
            busy = Response(b"too many ask for this\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
            self._send(busy, with_body=with_body)

    def _send(self, response: Response, *, with_body: bool) -> None:
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
