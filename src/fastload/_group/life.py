"""How a rank shows that it lives, how it notices that another one does not, and how it says why it cannot go on."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastload._group.wire import is_readable
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Sequence

BEAT = b"."
FAILED = "failed"
"""The first word of whoever says why there is no load."""
BEAT_S = 1.0
SILENCE_S = 6.0
"""After so long without a sign of life a rank has failed. Together with the rest below ten seconds."""
KILLED_HINT = "See its own log: it may have been killed, by the OOM killer for one. The group itself stays usable"
_SILENT_HINT = "It may be stopped, swapping, or its machine gone. The group itself stays usable"
_FAILED_HINT = "Mend that, then load again on all ranks. The group itself stays usable"
_TEXT_LIMIT = 2000
_READ_BYTES = 1 << 16
_LONGEST_BYTES = 16 << 20  # 16 MiB: who is there, of 100,000 ranks
_LOOK_S = 0.2
_LANGUAGE_HINT = "The ranks run different versions of fastload, or something else answers on its port"


def explain(rank: int, error: BaseException) -> GroupError:
    """What the other ranks get where ``rank`` fails by ``error``."""
    if isinstance(error, GroupError):
        return error
    # By the name that callers know: some of our errors have kinds that only we tell apart.
    kind = next(kind for kind in type(error).__mro__ if not kind.__module__.startswith("fastload._"))
    return GroupError(f"rank {rank} failed: {kind.__name__}: {error}"[:_TEXT_LIMIT], _FAILED_HINT)


class Vigil:
    """Since when another rank has been silent; time in which this process did not run itself does not count."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._heard_s = self._looked_s = time.monotonic()

    def hear(self) -> None:
        """It has said something."""
        self._heard_s = time.monotonic()

    def check(self) -> None:
        """To be called at least once a second.

        Raises:
            GroupError: it has been silent for too long.
        """
        now_s = time.monotonic()
        self._heard_s += max(0.0, now_s - self._looked_s - BEAT_S)
        self._looked_s = now_s
        if now_s - self._heard_s > SILENCE_S:
            raise GroupError(f"rank {self._rank} has given no sign of life for {SILENCE_S:g} s", _SILENT_HINT)


class Lifeline:
    """A connection between rank 0 and another one while the ranks still meet.

    Messages are lines of JSON; between them go signs of life, which :mod:`~fastload._group.control` knows as well.
    """

    def __init__(self, connection: socket.socket, peer: int) -> None:
        """``peer``: who is at the other end."""
        self.connection = connection
        self._peer = peer
        self._vigil = Vigil(peer)
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
        self._vigil.check()
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return None
        self._received = rest
        try:
            message: list[Any] = json.loads(line.lstrip(BEAT))
        except ValueError as exc:
            raise GroupError(f"rank {self._peer} speaks another language", _LANGUAGE_HINT) from exc
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
        self._vigil.hear()
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
