"""A threaded HTTP/1.1 server on this machine that sends large bodies by one call, and records what it was asked."""

from __future__ import annotations

import itertools
import socket
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hub_faults import Reply

_SEND_BYTES = 64 << 20  # 64 MiB: one call of sendall, which runs without the GIL


@dataclass
class Request:
    """One request that a server got, and what it gave."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """With lower-case names."""
    host: str = ""
    """``hub`` or ``cdn``."""
    status: int = 0
    """Of the answer; 0 while there is none."""
    bytes_served: int = 0
    connection: int = 0
    """The client's port: the same for all requests over one connection."""


@dataclass
class LoopbackServer:
    """Gives each request to ``answer`` and sends what it returns, from construction to :meth:`stop`."""

    answer: Callable[[Request], Reply]
    tls: ssl.SSLContext | None
    stopped: threading.Event
    address: str = "127.0.0.1"
    _open: set[socket.socket] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = _Server((self.address, 0), handler)
        if self.tls is not None:
            # The handshake is made by the connection's own thread, when it first reads.
            wrap = self.tls.wrap_socket
            self._server.socket = wrap(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), name=f"serves {self.url}")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{self.address}:{self._server.server_address[1]}"

    def stop(self) -> None:
        """End all connections and threads."""
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._open):
            _hang_up(connection)
        self._server.server_close()  # joins the connections' threads


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what tests are about: no tracebacks on stderr."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "hub"
    server_of: LoopbackServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server_of._open.add(self.connection)

    def finish(self) -> None:
        self.server_of._open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Tests look at the recorded requests."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parts.query, headers, connection=self.client_address[1])
        reply = self.server_of.answer(request)
        request.status = reply.status
        if reply.cut_after_bytes == 0:
            self._reset()
            return
        if reply.stall_after_bytes == -1:
            self.server_of.stopped.wait(reply.stall_s)
        self._send_head(reply)
        if self.command != "HEAD":
            self._send_body(request, reply)

    def _send_head(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not {"Content-Length", "Transfer-Encoding"} & set(reply.headers):
            self.send_header("Content-Length", str(len(reply.body)))
        if reply.headers.get("Connection") == "close":
            self.close_connection = True
        self.end_headers()

    def _send_body(self, request: Request, reply: Reply) -> None:
        is_chunked = "Transfer-Encoding" in reply.headers
        for start, end in _steps(reply):
            if reply.cut_after_bytes is not None and start >= reply.cut_after_bytes:
                self._reset()
                return
            if start == reply.stall_after_bytes:
                self.server_of.stopped.wait(reply.stall_s)
            step = reply.body[start:end]
            request.bytes_served += len(step)  # before: a client may look as soon as it has them
            self.connection.sendall(b"%x\r\n%s\r\n" % (len(step), step) if is_chunked else step)
            if reply.step_pause_s:
                self.server_of.stopped.wait(reply.step_pause_s)
        if is_chunked:
            self.connection.sendall(b"0\r\n\r\n")
        if int(reply.headers.get("Content-Length", len(reply.body))) != len(reply.body):
            self.close_connection = True

    def _reset(self) -> None:
        """Hang up in the middle: what was sent arrives, and then the end."""
        self.close_connection = True
        _hang_up(self.connection)


def _steps(reply: Reply) -> list[tuple[int, int]]:
    """The parts of the body that are sent by one call each."""
    size = len(reply.body)
    edges = {0, size, *range(0, size, reply.step_bytes or _SEND_BYTES)}
    edges |= {at for at in (reply.cut_after_bytes, reply.stall_after_bytes) if at is not None and 0 <= at < size}
    ordered = sorted(edges)
    return list(itertools.pairwise(ordered))


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the client was faster
        return
