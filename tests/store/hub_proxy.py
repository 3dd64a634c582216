"""A forward proxy on 127.0.0.1: CONNECT for https, whole addresses for http."""

from __future__ import annotations

import base64
import select
import socket
import socketserver
import threading
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 20  # 1 MiB
_LOOK_EVERY_S = 0.05


@dataclass
class Proxy:
    """Passes on what it is asked for, while the ``with`` lasts.

    Args:
        credentials: ``user:password`` that clients must send; None for an open one.
    """

    credentials: str | None = None
    requests: list[str] = field(default_factory=list, init=False)
    """The first line of each request, credentials or not."""
    heads: list[str] = field(default_factory=list, init=False)
    """All of each request's head."""

    def __enter__(self) -> Self:
        self.stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), name="proxy")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._server.server_address[1]}"


class _Handler(socketserver.BaseRequestHandler):
    proxy: Proxy
    request: socket.socket

    def handle(self) -> None:
        head = self._read_head()
        if not head:
            return
        first, _, rest = head.partition("\r\n")
        self.proxy.requests.append(first)
        self.proxy.heads.append(head)
        if not self._is_allowed(rest):
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        method, target, version = first.split(" ")
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with socket.create_connection((parts.hostname, parts.port)) as upstream:
            if method == "CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.partition(parts.netloc)[2]
                upstream.sendall(f"{method} {path} {version}\r\nConnection: close\r\n{rest}".encode("latin-1"))
                # One request a connection: the next one may be for another host.
                status = self._read_line(upstream)
                self.request.sendall(status + b"Connection: close\r\n")
            self._pass_on(upstream)

    @staticmethod
    def _read_line(connection: socket.socket) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (byte := connection.recv(1)):
            line += byte
        return line

    def _read_head(self) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not select.select([self.request], [], [], _LOOK_EVERY_S)[0]:
                if self.proxy.stopped.is_set():
                    return ""
                continue
            byte = self.request.recv(1)
            if not byte:
                return ""
            head += byte
        return head.decode("latin-1")

    def _is_allowed(self, head: str) -> bool:
        if self.proxy.credentials is None:
            return True
        wanted = base64.b64encode(self.proxy.credentials.encode()).decode()
        return f"proxy-authorization: basic {wanted}".lower() in head.lower()

    def _pass_on(self, upstream: socket.socket) -> None:
        other = {self.request: upstream, upstream: self.request}
        while not self.proxy.stopped.is_set():
            for ready in select.select(list(other), [], [], _LOOK_EVERY_S)[0]:
                try:
                    content = ready.recv(_CHUNK_BYTES)
                    other[ready].sendall(content)
                except OSError:
                    return
                if not content:
                    return
