"""What a rank sends before it closes its connections, because it cannot go on; also to those that do not listen yet.

Between the roster and the first value of a load all connect to all. Whoever fails then says so on the connections that
there are; the others find it where they listen from then on (:mod:`~fastload._group.control_channel`), or wait in vain.
"""

from __future__ import annotations

import pickle
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fastload._group.heartbeat import BEAT, BEAT_S
from fastload._group.wire import FRAME_HEAD_BYTES, frame, is_readable
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


FAIL = b"F"[0]
_FAILED_HINT = "Mend that, then load again on all ranks. The group itself stays usable"
_TEXT_LIMIT = 2000
_LONGEST_BYTES = 1 << 16
_LOOK_S = 0.05


def explain(rank: int, error: BaseException) -> GroupError:
    """What the other ranks get where ``rank`` fails by ``error``."""
    if isinstance(error, GroupError):
        return error
    # By the name that callers know: some of our errors have kinds that only we tell apart.
    kind = next(kind for kind in type(error).__mro__ if not kind.__module__.startswith("fastload._"))
    return GroupError(f"rank {rank} failed: {kind.__name__}: {error}"[:_TEXT_LIMIT], _FAILED_HINT)


def send_abort(connections: Iterable[socket.socket], failure: GroupError) -> None:
    """Tell them why; never waits."""
    for each in connections:
        with suppress(OSError):  # one that is gone need not be told
            each.send(frame(FAIL, pickle.dumps(failure)), socket.MSG_DONTWAIT)


def find_abort(connections: Iterable[socket.socket]) -> GroupError | None:
    """Why one of those at the other ends cannot go on, if it has said so; nothing is taken off the connections."""
    for each in connections:
        with suppress(OSError):  # whether it has ended is seen elsewhere
            said = each.recv(_LONGEST_BYTES, socket.MSG_PEEK) if is_readable(each, 0) else b""
            if (failure := find_failure(said)) is not None:
                return failure
    return None


def wait_abort(connections: Collection[socket.socket]) -> GroupError | None:
    """As :func:`find_abort`, for a moment: a rank that cannot be reached may have told another one why."""
    until_s = time.monotonic() + BEAT_S
    while (failure := find_abort(connections)) is None and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
    return failure


def find_failure(said: bytes | bytearray) -> GroupError | None:
    """What :func:`send_abort` has said, if that is what comes first."""
    said = said.lstrip(BEAT)
    end = FRAME_HEAD_BYTES + int.from_bytes(said[1:FRAME_HEAD_BYTES], "little")
    if said[:1] != bytes([FAIL]) or len(said) < end:
        return None
    failure: GroupError = pickle.loads(said[FRAME_HEAD_BYTES:end])  # noqa: S301 - peers have shown the rendezvous's token
    return failure
