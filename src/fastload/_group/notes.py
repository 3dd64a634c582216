"""What ranks tell each other by the store alone, where one of them may open no socket.

::

    rank 0 may open none                          another rank may open none
    leaves word of why                            finds rank 0's token, and writes why beside it
    the others find that, and ask if it is so     rank 0 finds that, and ends the meeting (letterbox)
    rank 0 answers each of them, once             and writes that it has

The connection to the store is there already. What is written there stays, so nothing is believed because it is there:
who wrote it must still be there to answer.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

from fastload._group.board import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._group.board import Board
    from fastload._group.patience import Patience
    from fastload.errors import GroupError

_LOOK_S = 0.1
_GRACE_S = 1.0
"""How long rank 0 stays for those that are there already: its process may end when its caller has the error."""


def failed_key(token: str) -> str:
    """Where a rank says to rank 0 why it cannot come."""
    return f"{token}/failed"


def heard_key(token: str, rank: int) -> str:
    """Where rank 0 says to ``rank`` that it knows."""
    return f"{token}/heard/{rank}"


class Question:
    """One rank's: is rank 0, which says that it failed, still there?"""

    def __init__(self, board: Board, rank: int) -> None:
        self._board = board
        self._rank = rank
        self._number = secrets.token_hex(8)
        self._token = ""

    def is_answered(self, token: str) -> bool:
        """True once rank 0, by its ``token``, has answered, as it does once for each rank; to be called repeatedly."""
        if token != self._token:
            self._board.write(_asked_key(token, self._rank), self._number)
            self._token = token
        return self._board.read(_answered_key(token, self._rank)) == self._number


def tell_others(
    board: Board, failure: GroupError, late: set[int], patience: Patience, ended: Callable[[], None]
) -> None:
    """Rank 0 tells those that are ``late`` why there is no load, as they come; who knows it is taken out.

    ``ended`` is called when those that are there know.

    Raises:
        GroupError: the store cannot be asked.
    """
    notice = Notice("", 0, secrets.token_hex(16), (failure.what, failure.hint))
    board.leave(notice)
    grace_until_s = time.monotonic() + _GRACE_S
    while late and patience.left_s > 0:
        for rank in sorted(late):
            number = board.read(_asked_key(notice.token, rank))
            if number is not None:
                board.write(_answered_key(notice.token, rank), number)
                patience.is_told = True
                late.discard(rank)
        if time.monotonic() >= grace_until_s:
            ended()
        time.sleep(_LOOK_S)
    ended()


def tell_first(board: Board, failure: GroupError, rank: int, patience: Patience) -> None:
    """``rank`` tells rank 0 why it cannot come, as soon as that is there.

    Raises:
        GroupError: the store cannot be asked.
    """
    question = Question(board, rank)
    while patience.left_s > 0:
        notice = board.find()
        if notice is not None and _is_known(board, notice, question, rank, failure):
            patience.is_told = True
            return
        time.sleep(_LOOK_S)


def _is_known(board: Board, notice: Notice, question: Question, rank: int, failure: GroupError) -> bool:
    """True once rank 0 knows; another one that cannot come may have written over it, so it is written each time."""
    if notice.failed is not None:
        return question.is_answered(notice.token)
    board.write(failed_key(notice.token), json.dumps([rank, failure.what, failure.hint]))
    return board.read(heard_key(notice.token, rank)) is not None


def _asked_key(token: str, rank: int) -> str:
    return f"{token}/asked/{rank}"


def _answered_key(token: str, rank: int) -> str:
    return f"{token}/answered/{rank}"
