"""What can go wrong between a hub and its clients, as small values that a test adds to a server.

A fault says what it changes in the reply that would have been sent; where and how often, whoever adds it::

    hub.faults.add(Cut(after_bytes=1000), path="*/resolve/*", times=None)
"""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, field, replace
from typing import Protocol

_NOTHING = memoryview(b"")


@dataclass(frozen=True)
class Reply:
    """What the server is about to send, and how it sends it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: memoryview = _NOTHING
    content: memoryview | None = None
    """All of the file that ``body`` is a part of."""
    cut_after_bytes: int | None = None
    stall_after_bytes: int | None = None
    stall_s: float = 0.0
    step_bytes: int | None = None
    step_pause_s: float = 0.0

    def with_headers(self, **changed: str) -> Reply:
        """The same with other headers; ``_`` in a name stands for ``-``."""
        return replace(self, headers={**self.headers, **{key.replace("_", "-"): val for key, val in changed.items()}})


class Fault(Protocol):
    """Something that goes wrong."""

    def change(self, reply: Reply) -> Reply:
        """What is sent instead of ``reply``."""


@dataclass(frozen=True)
class Cut:
    """The connection is reset after so many bytes of the body; 0: before any answer at all."""

    after_bytes: int

    def change(self, reply: Reply) -> Reply:
        return replace(reply, cut_after_bytes=self.after_bytes)


@dataclass(frozen=True)
class Stall:
    """Nothing comes for a while after so many bytes of the body; -1: before any answer at all."""

    after_bytes: int
    seconds: float

    def change(self, reply: Reply) -> Reply:
        return replace(reply, stall_after_bytes=self.after_bytes, stall_s=self.seconds)


@dataclass(frozen=True)
class Drip:
    """The body comes in small steps."""

    step_bytes: int
    pause_s: float

    def change(self, reply: Reply) -> Reply:
        return replace(reply, step_bytes=self.step_bytes, step_pause_s=self.pause_s)


@dataclass(frozen=True)
class Refuse:
    """An error status instead of an answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error":"no"}'

    def change(self, reply: Reply) -> Reply:
        return Reply(self.status, {"Content-Type": "application/json", **self.headers}, memoryview(self.body))


def too_many_requests(retry_after_s: int) -> Refuse:
    """429, as a hub says it."""
    return Refuse(429, {"Retry-After": str(retry_after_s)})


@dataclass(frozen=True)
class Headers:
    """Other values in some headers; an empty one removes it."""

    changed: dict[str, str]

    def change(self, reply: Reply) -> Reply:
        headers = {**reply.headers, **self.changed}
        return replace(reply, headers={name: value for name, value in headers.items() if value})


@dataclass(frozen=True)
class Body:
    """Another body with status 200."""

    body: bytes
    content_type: str = "application/json"

    def change(self, reply: Reply) -> Reply:
        return Reply(200, {"Content-Type": self.content_type}, memoryview(self.body))


PORTAL = Body(b"<!doctype html><title>Welcome to the hotel</title>" * 20, "text/html; charset=utf-8")
"""What a captive portal or a proxy answers to everything."""


@dataclass(frozen=True)
class WrongBytes:
    """The byte at ``offset`` of the file is another one."""

    offset: int

    def change(self, reply: Reply) -> Reply:
        if reply.content is None:
            return reply
        start = int(reply.headers.get("Content-Range", "bytes 0").removeprefix("bytes ").partition("-")[0])
        at = self.offset - start
        if not 0 <= at < len(reply.body):
            return reply
        changed = bytearray(reply.body)
        changed[at] ^= 0xFF
        return replace(reply, body=memoryview(changed))


@dataclass(frozen=True)
class NoRanges:
    """The whole file with 200, whatever range was asked for."""

    has_length: bool = True

    def change(self, reply: Reply) -> Reply:
        if reply.content is None:
            return reply
        headers = {
            name: value for name, value in reply.headers.items() if name not in {"Content-Range", "Accept-Ranges"}
        }
        if not self.has_length:
            headers["Transfer-Encoding"] = "chunked"
        return replace(reply, status=200, headers=headers, body=reply.content)


@dataclass(frozen=True)
class Redirect:
    """On to another place; to its own for a loop."""

    location: str

    def change(self, reply: Reply) -> Reply:
        return Reply(302, {"Location": self.location})


@dataclass
class _Added:
    fault: Fault
    path: str
    host: str
    method: str
    left: int | None
    skip: int


class Faults:
    """The faults of a server, each with where and how often it strikes. Several may strike the same reply."""

    def __init__(self) -> None:
        self._added: list[_Added] = []
        self._lock = threading.Lock()

    def add(
        self, fault: Fault, *, path: str = "*", host: str = "*", method: str = "*", times: int | None = 1, skip: int = 0
    ) -> None:
        """Let ``fault`` strike.

        Args:
            fault: what goes wrong.
            path: a glob of the request's path; for the CDN it is ``/cdn/<sha256>``.
            host: ``hub``, ``cdn`` or both.
            method: a glob of the request's method.
            times: how many requests; None for all.
            skip: how many matching requests are let through before.
        """
        with self._lock:
            self._added.append(_Added(fault, path, host, method, times, skip))

    def clear(self) -> None:
        """From here on all goes well."""
        with self._lock:
            self._added.clear()

    def strike(self, host: str, method: str, path: str, reply: Reply) -> Reply:
        """``reply`` as it is sent after all that goes wrong with it."""
        with self._lock:
            striking = [added for added in self._added if self._strikes(added, host, method, path)]
        for added in striking:
            reply = added.fault.change(reply)
        return reply

    @staticmethod
    def _strikes(added: _Added, host: str, method: str, path: str) -> bool:
        wanted = ((host, added.host), (method, added.method), (path, added.path))
        if added.left == 0 or not all(fnmatch.fnmatchcase(found, glob) for found, glob in wanted):
            return False
        if added.skip:
            added.skip -= 1
            return False
        if added.left is not None:
            added.left -= 1
        return True
