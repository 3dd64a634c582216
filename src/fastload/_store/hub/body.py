"""The body of an answer on its way into memory: cut short, silent and too slow ones are noticed here."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._store.hub.failure import translate, without_query
from fastload._store.hub.meter import Meter
from fastload._store.hub.retry import TransientError
from fastload.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._store.hub.wire import Answer, Wire

_STEP_BYTES = 512 << 10  # 512 KiB: urllib3 makes an object of each step; larger ones cost page faults (measured)


class Target:
    """Memory for a part of a file, one buffer after another, and how far it is filled."""

    def __init__(self, offset: int, buffers: Sequence[memoryview], file_bytes: int) -> None:
        self.offset = offset
        """Of the next byte in the file."""
        self.end = max(offset, min(file_bytes, offset + sum(map(len, buffers))))
        self._left = [buffer for buffer in reversed(buffers) if len(buffer)]

    @property
    def wanted_bytes(self) -> int:
        """How many are missing."""
        return self.end - self.offset

    def put(self, content: bytes) -> None:
        """Fill in what comes next, which must not be more than is missing."""
        self.offset += len(content)
        view = memoryview(content)
        while view:
            buffer = self._left.pop()
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            view = view[count:]
            if count < len(buffer):
                self._left.append(buffer[count:])


class Transfers:
    """What one reader has under way, so that all of it can be stopped from another thread."""

    def __init__(self, wire: Wire, url: str) -> None:
        self.wire = wire
        self.url = url
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._asking: set[int] = set()
        self._under_way: set[Body] = set()

    def ask(self, url: str, headers: dict[str, str]) -> Answer:
        """As :meth:`~fastload._store.hub.wire.Wire.get`, but :meth:`stop` ends it."""
        thread = threading.get_ident()
        with self._lock:
            self._asking.add(thread)
        try:
            self.check()
            return self.wire.get(url, headers)
        except TransientError:
            self.check()
            raise
        finally:
            with self._lock:
                self._asking.discard(thread)

    @contextmanager
    def watch(self, body: Body) -> Iterator[None]:
        """While this lasts, :meth:`stop` ends reads of ``body``."""
        with self._lock:
            self._under_way.add(body)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._under_way.discard(body)

    def check(self) -> None:
        """Raise ``HubError`` after :meth:`stop`."""
        if self.stopped.is_set():
            raise HubError(self.url, "the transfer was stopped, because its reader was closed")

    def stop(self) -> None:
        """End all that is under way, now and from now on."""
        self.stopped.set()
        with self._lock:
            for thread in self._asking:
                self.wire.interrupt(thread)
            for body in self._under_way:
                body.interrupt()


class Body:
    """The bytes that follow an answer's head, in order."""

    def __init__(self, answer: Answer, transfers: Transfers) -> None:
        self._answer = answer
        self._transfers = transfers

    def pour(self, target: Target) -> None:
        """Fill ``target`` with what comes next.

        Raises:
            TransientError: it ended, fell silent or became too slow before; what had come is in ``target``.
            HubError: the reader was closed.
        """
        meter = Meter(self._transfers.wire.patience)  # a new one: between two calls nobody reads
        while target.wanted_bytes:
            target.put(self._read(min(_STEP_BYTES, target.wanted_bytes), meter))

    def skip(self, count: int) -> None:
        """Throw away the next ``count`` bytes; raises as :meth:`pour`."""
        meter = Meter(self._transfers.wire.patience)
        while count:
            count -= len(self._read(min(_STEP_BYTES, count), meter))

    def _read(self, max_bytes: int, meter: Meter) -> bytes:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - was imported by who opened the connection

        handled = sys.exception()
        try:
            content = self._answer.response.read1(max_bytes, decode_content=False)
        except HTTPError as exc:
            self._transfers.check()
            raise translate(self._answer.url, exc, self._transfers.wire.patience, handled=handled) from exc
        self._transfers.check()
        if not content:
            raise self._failed("it ended early")
        if meter.is_too_slow(len(content)):
            raise self._failed(meter.verdict)
        return content

    def _failed(self, reason: str) -> TransientError:
        return TransientError(without_query(self._answer.url), reason, "Check the network, then try again")

    def finish(self) -> None:
        """All was read: the connection may be used again."""
        self._answer.finish()

    def drop(self) -> None:
        """Hang up."""
        self._answer.drop()

    def interrupt(self) -> None:
        """From another thread: let a read that waits end now."""
        try:
            self._answer.response.shutdown()
        except (ValueError, RuntimeError, OSError):  # it has just ended by itself
            return
