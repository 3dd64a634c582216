"""What any rank but the first does to meet the others."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

from fastload._group.abort import explain, find_failure
from fastload._group.membership import MEET_HINT, ROSTER, WELCOME, Membership, RankAddress
from fastload._group.rendezvous_connection import RendezvousConnection
from fastload._group.socket_limits import opening_connections
from fastload._group.store_failures import Ping
from fastload._group.wire import send_message
from fastload.errors import GroupError

if TYPE_CHECKING:
    from fastload._group.rendezvous_store import RendezvousStore, RootEndpoint
    from fastload._group.timeout import RendezvousTimeout

CONNECT_S = 5.0
_LOOK_S = 0.05
_LISTEN_S = 0.2
_VERDICT_S = 0.5
"""Where rank 0 has no longer to wait either, it knows better who is missing: let it say so."""


def join(own: RankAddress, store: RendezvousStore, timeout: RendezvousTimeout) -> Membership:
    """Go to rank 0 until it answers; an address in the store may be that of an earlier rendezvous.

    Where this rank itself has failed, it goes there to say so, and rank 0 tells the others.

    Raises:
        GroupError: rank 0 does not come, or any rank failed; or the store cannot be asked.
    """
    line, token = _reach(own.rank, store, timeout)
    return Membership(token, _wait_for_all(line, own, timeout), {0: line.connection})


def _reach(rank: int, store: RendezvousStore, timeout: RendezvousTimeout) -> tuple[RendezvousConnection, str]:
    """A connection to rank 0, and the rendezvous's token."""
    ping = Ping(store, rank)
    while timeout.left_s > 0:
        root = store.find_root()
        if root is not None and root.failed is not None and ping.is_answered(root.token):
            raise GroupError(*root.failed)
        line = None if root is None or root.failed is not None else _try_connect(root, rank)
        if root is not None and line is not None:
            return line, root.token
        time.sleep(_LOOK_S)
    raise GroupError("rank 0 did not come to load with the others", MEET_HINT)


def _try_connect(root: RootEndpoint, rank: int) -> RendezvousConnection | None:
    """A connection to rank 0, if it is there and says welcome."""
    try:
        with opening_connections():
            connection = socket.create_connection((root.host, root.port), CONNECT_S)
    except OSError:
        return None
    line = RendezvousConnection(connection, 0)
    try:
        send_message(connection, json.dumps([root.token, rank]).encode())
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


def _wait_for_all(line: RendezvousConnection, own: RankAddress, timeout: RendezvousTimeout) -> list[RankAddress]:
    try:
        return _hear_roster(line, own, timeout)
    except BaseException as error:
        line.end(explain(own.rank, error))
        raise


def _hear_roster(line: RendezvousConnection, own: RankAddress, timeout: RendezvousTimeout) -> list[RankAddress]:
    timeout.check()
    line.say(own)
    while (said := line.look(_LISTEN_S)) is None:
        timeout.check()
        if timeout.left_s + _VERDICT_S <= 0:
            raise GroupError("rank 0 waits for another rank in vain", MEET_HINT)
    kind, *rest = said
    if kind != ROSTER:
        raise GroupError(*rest)
    if (failure := find_failure(line.unread)) is not None:  # what it said next came with it
        raise failure
    return [RankAddress(*fields) for fields in rest[0]]
