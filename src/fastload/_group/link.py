"""Extents on their way between two ranks: over one connection, in the order of the plan.

In order, because of what may wait: a rank that has no room takes only what its caller waits for, and that must never be
behind something else (docs/adr/0012).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fastload._group.wire import receive_into, send_buffers

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_NUMBER_BYTES = 8


class Outgoing:
    """What goes to one rank. Many threads send; each waits for its turn."""

    def __init__(self, connection: socket.socket, numbers: Sequence[int]) -> None:
        """``numbers``: the extents that will be sent, in order."""
        self._connection = connection
        self._turn_of = {number: turn for turn, number in enumerate(numbers)}
        self._turn = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self.sent_bytes = 0

    def wait_turn(self, number: int) -> None:
        """Until all before extent ``number`` was sent, or nothing is any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._turn == self._turn_of[number])

    def send(self, number: int, buffers: Sequence[memoryview]) -> None:
        """Send something of extent ``number``, once all before it was sent; nothing after :meth:`close`.

        Raises:
            OSError: the connection broke.
        """
        self.wait_turn(number)
        if self._is_closed:
            return
        send_buffers(self._connection, [memoryview(number.to_bytes(_NUMBER_BYTES, "little")), *buffers])
        with self._changed:
            self.sent_bytes += sum(map(len, buffers))
            self._turn += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Send nothing any more: the other end does not want it, or the load is over."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Incoming:
    """What comes from one rank. One thread receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received_bytes = 0

    def wait_next(self) -> int:
        """The number of the extent that comes next.

        Raises:
            EOFError, OSError: nothing comes any more.
        """
        number = bytearray(_NUMBER_BYTES)
        receive_into(self._connection, [memoryview(number)])
        return int.from_bytes(number, "little")

    def receive(self, buffers: Sequence[memoryview]) -> None:
        """Its bytes."""
        receive_into(self._connection, buffers)
        self.received_bytes += sum(map(len, buffers))
