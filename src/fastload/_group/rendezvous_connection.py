"""What rank 0 and another one say to each other while the ranks still meet."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastload._group.heartbeat import BEAT, BEAT_S, KILLED_HINT, HeartbeatMonitor
from fastload._group.wire import is_readable
from fastload._json_outline import Density, find_excess
from fastload.errors import GroupError
from fastload.strict_json import check_nesting

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = "failed"
"""The first word of whoever says why there is no load."""
_READ_BYTES = 1 << 16
_LONGEST_BYTES = 16 << 20  # 16 MiB: who is there, of 100,000 ranks
_DENSITY = Density(value_bytes=4, object_bytes=48)
"""Who is there has five commas and brackets of a rank, and 20 bytes at least."""
_LOOK_S = 0.2
_LANGUAGE_HINT = "The ranks run different versions of fastload, or something else answers on its port"


class RendezvousConnection:
    """A connection between rank 0 and another rank.

    Messages are lines of JSON; between them go heartbeats, as on a
    :class:`~fastload._group.control_channel.ControlChannel`.
    """

    def __init__(self, connection: socket.socket, peer: int) -> None:
        """``peer``: who is at the other end."""
        self.connection = connection
        self._peer = peer
        self._monitor = HeartbeatMonitor(peer)
        self._beat_s = time.monotonic()
        self._received = bytearray()

    def say(self, message: Sequence[object]) -> None:
        """Send it.

        Raises:
            OSError: the other end is gone.
        """
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def look(self, wait_s: float = 0.0) -> list[Any] | None:
        """What the other end says, if it says something within ``wait_s``. To be called at least once a second.

        Raises:
            GroupError: its process has ended, or is silent for too long.
        """
        self._beat()
        if is_readable(self.connection, wait_s):
            self._hear()
        self._monitor.check()
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return None
        self._received = rest
        message = _parse(line.lstrip(BEAT))
        if message is None:
            raise GroupError(f"rank {self._peer} speaks another language", _LANGUAGE_HINT)
        return message

    @property
    def unread(self) -> bytes:
        """What came after the last message."""
        return bytes(self._received)

    def wait(self, wait_s: float) -> list[Any] | None:
        """As :meth:`look`, until it says something, for ``wait_s`` at most."""
        until_s = time.monotonic() + wait_s
        while (message := self.look(min(_LOOK_S, max(0.0, until_s - time.monotonic())))) is None:
            if time.monotonic() >= until_s:
                return None
        return message

    def _beat(self) -> None:
        if time.monotonic() - self._beat_s >= BEAT_S:
            self._beat_s = time.monotonic()
            with suppress(OSError):  # whether it has ended is seen where it is heard
                self.connection.send(BEAT, socket.MSG_DONTWAIT)

    def _hear(self) -> None:
        try:
            content = self.connection.recv(_READ_BYTES)
        except OSError:
            content = b""
        if not content:
            raise GroupError(f"rank {self._peer} ended without a word while the ranks met", KILLED_HINT)
        self._monitor.hear()
        self._received += content
        if len(self._received) > _LONGEST_BYTES:
            raise GroupError(f"rank {self._peer} says too much", _LANGUAGE_HINT)

    def end(self, failure: GroupError) -> None:
        """Tell the other end why there is no load, and let it go."""
        with suppress(OSError):
            self.say([FAILED, failure.what, failure.hint])
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _parse(line: bytearray) -> list[Any] | None:
    """What it says; None where it is no message of ours: somebody else may have the port of an earlier rank 0."""
    if find_excess(line, _DENSITY) is not None:
        return None
    try:
        check_nesting(line)
        message = json.loads(str(line, "utf-8"))  # as its values are counted
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, list) and message else None
