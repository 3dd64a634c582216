"""What any rank but the first does to meet the others."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

from fastload._group.guests import MEET_HINT, ROSTER, WELCOME, Badge, Met
from fastload._group.last_words import find_failure
from fastload._group.life import Lifeline, explain
from fastload._group.notes import Question
from fastload._group.refusal import opening_connections
from fastload._group.wire import send_message
from fastload.errors import GroupError

if TYPE_CHECKING:
    from fastload._group.board import Board, Notice
    from fastload._group.patience import Patience

CONNECT_S = 5.0
_LOOK_S = 0.05
_LISTEN_S = 0.2
_VERDICT_S = 0.5
"""Where rank 0 has no longer to wait either, it knows better who is missing: let it say so."""


def join(own: Badge, board: Board, patience: Patience) -> Met:
    """Go to rank 0 until it answers; an address in the store may be that of an earlier meeting.

    Where this rank itself has failed, it goes there to say so, and rank 0 tells the others.

    Raises:
        GroupError: rank 0 does not come, or any rank failed; or the store cannot be asked.
    """
    line, token = _reach(own.rank, board, patience)
    return Met(token, _wait_for_all(line, own, patience), {0: line.connection})


def _reach(rank: int, board: Board, patience: Patience) -> tuple[Lifeline, str]:
    """A connection to rank 0, and the meeting's token."""
    question = Question(board, rank)
    while patience.left_s > 0:
        notice = board.find()
        if notice is not None and notice.failed is not None and question.is_answered(notice.token):
            raise GroupError(*notice.failed)
        line = None if notice is None or notice.failed is not None else _knock(notice, rank)
        if notice is not None and line is not None:
            return line, notice.token
        time.sleep(_LOOK_S)
    raise GroupError("rank 0 did not come to load with the others", MEET_HINT)


def _knock(notice: Notice, rank: int) -> Lifeline | None:
    """A connection to rank 0, if it is there and says welcome."""
    try:
        with opening_connections():
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


def _wait_for_all(line: Lifeline, own: Badge, patience: Patience) -> list[Badge]:
    try:
        return _hear_roster(line, own, patience)
    except BaseException as error:
        line.end(explain(own.rank, error))
        raise


def _hear_roster(line: Lifeline, own: Badge, patience: Patience) -> list[Badge]:
    patience.check()
    line.say(own)
    while (said := line.look(_LISTEN_S)) is None:
        patience.check()
        if patience.left_s + _VERDICT_S <= 0:
            raise GroupError("rank 0 waits for another rank in vain", MEET_HINT)
    kind, *rest = said
    if kind != ROSTER:
        raise GroupError(*rest)
    if (failure := find_failure(line.unread)) is not None:  # what it said next came with it
        raise failure
    return [Badge(*fields) for fields in rest[0]]
