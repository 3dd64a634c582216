"""What any rank but the first does to meet the others."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

from fastload._group.guests import ROSTER, WELCOME, Badge, Met
from fastload._group.life import Lifeline, explain
from fastload._group.wire import send_message
from fastload.errors import GroupError

if TYPE_CHECKING:
    from fastload._group.board import Board, Notice

CONNECT_S = 5.0
_LOOK_S = 0.05
_VERDICT_S = 0.5
"""Where rank 0 has no longer to wait either, it knows better who is missing: let it say so."""
_HINT = "Every rank of the group must load the same model at the same time: see what became of the others"


def join(own: Badge, board: Board, until_s: float) -> Met:
    """Go to rank 0 until it answers; an address in the store may be that of an earlier meeting.

    Raises:
        GroupError: rank 0 does not come, or it or another rank failed; or the store cannot be asked.
    """
    line, token = _reach(own.rank, board, until_s)
    return Met(token, _wait_for_all(line, own, until_s), {0: line.connection})


def tell_rank_0(rank: int, board: Board, until_s: float, failure: GroupError) -> None:
    """Tell rank 0 that ``rank`` has failed, which tells the others.

    Raises:
        GroupError: rank 0 does not come; or the store cannot be asked.
    """
    line, _ = _reach(rank, board, until_s)
    line.end(failure)


def _reach(rank: int, board: Board, until_s: float) -> tuple[Lifeline, str]:
    """A connection to rank 0, and the meeting's token."""
    while time.monotonic() < until_s:
        notice = board.find()
        line = None if notice is None else _knock(notice, rank)
        if notice is not None and line is not None:
            return line, notice.token
        time.sleep(_LOOK_S)
    raise GroupError("rank 0 did not come to load with the others", _HINT)


def _knock(notice: Notice, rank: int) -> Lifeline | None:
    """A connection to rank 0, if it is there and says welcome."""
    try:
        connection = socket.create_connection((notice.host, notice.port), CONNECT_S)
    except OSError:
        return None
    line = Lifeline(connection, 0)
    try:
        send_message(connection, json.dumps([notice.token, rank]).encode())
        if line.wait(CONNECT_S) == [WELCOME]:
            return line
    except (OSError, GroupError):  # somebody else has that port by now
        line.close()
        return None
    except BaseException:
        line.close()
        raise
    line.close()
    return None


def _wait_for_all(line: Lifeline, own: Badge, until_s: float) -> list[Badge]:
    try:
        return _hear_roster(line, own, until_s)
    except BaseException as error:
        line.end(explain(own.rank, error))
        raise


def _hear_roster(line: Lifeline, own: Badge, until_s: float) -> list[Badge]:
    line.say(own)
    said = line.wait(until_s - time.monotonic() + _VERDICT_S)
    if said is None:
        raise GroupError("rank 0 waits for another rank in vain", _HINT)
    kind, *rest = said
    if kind != ROSTER:
        raise GroupError(*rest)
    return [Badge(*fields) for fields in rest[0]]
