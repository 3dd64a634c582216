"""Bytes on a socket: messages with their length before them, and buffers filled to the end."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME_HEAD_BYTES = 9
_LENGTH_BYTES = 8
_MAX_MESSAGE_BYTES = 4 << 10  # 4 KiB: who has come. Whoever reaches the port may send one
_IOV_MAX = 1024


def send_message(connection: socket.socket, content: bytes) -> None:
    """Send ``content`` so that :func:`receive_message` gives it back."""
    connection.sendall(len(content).to_bytes(_LENGTH_BYTES, "little") + content)


def receive_message(connection: socket.socket, within_s: float) -> bytes:
    """The next message.

    Raises:
        EOFError: the other end has closed the connection.
        OSError: as the system says; also where not all of it comes in time, or it is longer than any of ours.
    """
    until_s = time.monotonic() + within_s
    count = int.from_bytes(_receive(connection, _LENGTH_BYTES, until_s), "little")
    if count > _MAX_MESSAGE_BYTES:
        raise OSError(f"a message of {count:,} bytes")
    return _receive(connection, count, until_s)


def _receive(connection: socket.socket, count: int, until_s: float) -> bytes:
    """So many bytes; a socket's own timeout begins anew with each that drips in."""
    content = bytearray()
    while len(content) < count:
        connection.settimeout(max(0.0, until_s - time.monotonic()))
        piece = connection.recv(count - len(content))
        if not piece:
            raise EOFError
        content += piece
    return bytes(content)


def frame(kind: int, content: bytes) -> bytes:
    """``content`` with its kind and its length before it."""
    return bytes([kind]) + len(content).to_bytes(FRAME_HEAD_BYTES - 1, "little") + content


def take_frame(received: bytearray) -> tuple[int, bytes] | None:
    """The kind and the content of the first frame, taken off ``received``; None: not all of it is there."""
    end = FRAME_HEAD_BYTES + int.from_bytes(received[1:FRAME_HEAD_BYTES], "little")
    if len(received) < max(end, FRAME_HEAD_BYTES):
        return None
    kind, content = received[0], bytes(received[FRAME_HEAD_BYTES:end])
    del received[:end]
    return kind, content


def is_readable(connection: socket.socket, wait_s: float) -> bool:
    """True once there is something to take, or its end; waits ``wait_s`` for it at most."""
    waiting = select.poll()  # select.select refuses descriptors above 1,023
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(wait_s * 1000))


def send_buffers(connection: socket.socket, buffers: Sequence[memoryview]) -> None:
    """Send ``buffers``, one after another."""
    pending = [buffer for buffer in buffers if len(buffer)]
    first = 0
    while first < len(pending):
        first = _step(pending, first, connection.sendmsg(pending[first : first + _IOV_MAX]))


def receive_into(connection: socket.socket, buffers: Sequence[memoryview]) -> None:
    """Fill ``buffers``, one after another.

    Raises:
        EOFError: the other end has closed the connection before.
    """
    pending = [buffer for buffer in buffers if len(buffer)]
    first = 0
    while first < len(pending):
        count = connection.recvmsg_into(pending[first : first + _IOV_MAX], 0, socket.MSG_WAITALL)[0]
        if not count:
            raise EOFError
        first = _step(pending, first, count)


def _step(pending: list[memoryview], first: int, count: int) -> int:
    """The first buffer that is not full yet, after ``count`` more bytes."""
    while count:
        step = min(count, len(pending[first]))
        count -= step
        if step == len(pending[first]):
            first += 1
        else:
            pending[first] = pending[first][step:]
    return first
