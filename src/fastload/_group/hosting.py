"""What rank 0 does so that all meet: it waits until they have come, and tells everybody who is there, or why not."""

from __future__ import annotations

import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from fastload._group.board import Notice
from fastload._group.door import HELLO_S, accept
from fastload._group.guests import MEET_HINT, ROSTER, WELCOME, Badge, Met, name_ranks
from fastload._group.letterbox import Letterbox
from fastload._group.life import FAILED, Lifeline, explain
from fastload._group.notes import tell_others
from fastload.errors import GroupError, UnsupportedError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fastload._group.board import Board
    from fastload._group.patience import Patience

    Ended = Callable[[BaseException], None]
    """Takes why there will be no load."""


def receive_guests(
    own: Badge, size: int, listener: socket.socket, board: Board, patience: Patience, ended: Ended
) -> Met:
    """Wait until all have come, then tell them who is there.

    If there will be no load, ``ended`` is called with the cause, and those who come late are told of it as they come:
    nobody need wait for this to return.

    Raises:
        GroupError: one does not come, or came and failed, or this one has; or the store cannot be asked.
    """
    token, others = secrets.token_hex(16), set(range(1, size))
    with Letterbox(board, token, set(others), patience) as letterbox:
        hall = _Hall(listener, token, patience, letterbox)
        try:
            board.leave(Notice(own.host, own.port, token))
            hall.wait_for(others)
        except UnsupportedError as error:  # there is no descriptor for those that come
            failure = explain(own.rank, error)
            patience.give_up(failure)
            listener.close()
            tell_others(board, failure, hall.send_away(failure), patience, partial(ended, error))
            raise
        except BaseException as error:
            failure = explain(own.rank, error)
            late = hall.send_away(failure)
            ended(error)
            hall.turn_away(failure, late)
            raise
    roster = [own, *(hall.badges[rank] for rank in range(1, size))]
    for line in hall.guests.values():
        with suppress(OSError):  # one that is gone by now is missed where all connect to all
            line.say([ROSTER, roster])
    return Met(hall.token, roster, {rank: line.connection for rank, line in hall.guests.items()})


class _Hall:
    """Where rank 0 waits with those that have come."""

    def __init__(self, listener: socket.socket, token: str, patience: Patience, letterbox: Letterbox) -> None:
        self._listener = listener
        self.token = token
        self._patience = patience
        self._letterbox = letterbox
        self.guests: dict[int, Lifeline] = {}
        self.badges: dict[int, Badge] = {}
        self._told: set[int] = set()
        """Those that know why there is no load, since they have said it."""

    def wait_for(self, ranks: set[int]) -> None:
        """Until all of them are here.

        Raises:
            GroupError: some did not come, or one that had come has failed, or this one.
        """
        for come in accept(self._listener, self.token, self._patience, lambda: self.guests.keys() == ranks):
            if come is not None:
                self._let_in(come[1][0], Lifeline(come[0], come[1][0]))
            self._patience.check()
            self._letterbox.check()
            for line in self.guests.values():
                said = line.look()
                if said is not None:  # nothing else is said before all are there
                    raise GroupError(*said[1:])
        if missing := sorted(ranks - self.guests.keys()):
            raise GroupError(f"{name_ranks(missing)} did not come to load with the others", MEET_HINT)

    def _let_in(self, rank: int, line: Lifeline) -> None:
        """One that does not wait for the welcome will come again; one that has failed already says so."""
        try:
            line.say([WELCOME])
            said = line.wait(HELLO_S)
        except (OSError, GroupError):
            said = None
        if said is None:
            line.close()
            return
        if said[0] == FAILED:
            self._told.add(rank)
            line.close()
            raise GroupError(*said[1:])
        if rank in self.guests:
            self.guests[rank].close()
        self.guests[rank], self.badges[rank] = line, Badge(*said)

    def send_away(self, failure: GroupError) -> set[int]:
        """Tell those that are here that there is no load; those that do not know it yet."""
        for line in self.guests.values():
            line.end(failure)
        self._letterbox.ranks -= self.guests.keys() | self._told
        return self._letterbox.ranks

    def turn_away(self, failure: GroupError, late: set[int]) -> None:
        """Tell those that come when it is over; once: whoever comes again comes for the next load."""
        for come in accept(self._listener, self.token, self._patience, lambda: not late):
            if come is None:
                continue
            connection, (rank,) = come
            line = Lifeline(connection, rank)
            if rank not in late:
                line.close()
                continue
            late.discard(rank)
            with suppress(OSError, GroupError):
                line.say([WELCOME])
                line.wait(HELLO_S)
            line.end(failure)
