"""Threads that wait for an answer to begin, and how another thread ends their wait.

A body can be interrupted through urllib3's response; before there is a response, only the connection knows the socket.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import urllib3


class Waiting:
    """The sockets on which threads wait for the head of an answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[int, socket.socket] = {}

    @contextmanager
    def on(self, connection: socket.socket | None) -> Iterator[None]:
        """While this lasts, the calling thread waits on ``connection``."""
        thread = threading.get_ident()
        if connection is not None:
            with self._lock:
                self._sockets[thread] = connection
        try:
            yield
        finally:
            with self._lock:
                self._sockets.pop(thread, None)

    def interrupt(self, thread: int) -> None:
        """End the wait of ``thread``, if it waits: its connection is broken."""
        with self._lock:
            connection = self._sockets.get(thread)
            if connection is None:
                return
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # broken already
                return


def watch(manager: urllib3.PoolManager, waiting: Waiting) -> None:
    """Let all connections that ``manager`` makes from now on tell ``waiting`` when they wait."""
    from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool  # noqa: PLC0415
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415

    class WatchedConnection(HTTPConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3's own
            with waiting.on(self.sock):
                return super().getresponse()

    class WatchedSecureConnection(HTTPSConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            with waiting.on(self.sock):
                return super().getresponse()

    class WatchedPool(HTTPConnectionPool):
        ConnectionCls = WatchedConnection

    class WatchedSecurePool(HTTPSConnectionPool):
        ConnectionCls = WatchedSecureConnection

    manager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedSecurePool}
