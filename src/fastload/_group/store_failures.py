"""What ranks tell each other by the store alone, where one of them may open no socket.

::

    rank 0 may open none                          another rank may open none
    publishes why                                 finds rank 0's token, and writes why beside it
    the others find that, and ask if it is so     rank 0 finds that, and ends the rendezvous (failure_watch)
    rank 0 answers each of them, once             and writes that it has

The connection to the store is there already. What is written there stays, so nothing is believed because it is there:
who wrote it must still be there to answer.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

from fastload._group.rendezvous_store import RootEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._group.rendezvous_store import RendezvousStore
    from fastload._group.timeout import RendezvousTimeout
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


class Ping:
    """One rank's: is rank 0, which says that it failed, still there?"""

    def __init__(self, store: RendezvousStore, rank: int) -> None:
        self._store = store
        self._rank = rank
        self._nonce = secrets.token_hex(8)
        self._token = ""

    def is_answered(self, token: str) -> bool:
        """True once rank 0, by its ``token``, has answered, as it does once for each rank; to be called repeatedly."""
        if token != self._token:
            self._store.write(_asked_key(token, self._rank), self._nonce)
            self._token = token
        return self._store.read(_answered_key(token, self._rank)) == self._nonce


def publish_failure(
    store: RendezvousStore, failure: GroupError, late: set[int], timeout: RendezvousTimeout, ended: Callable[[], None]
) -> None:
    """Rank 0 tells those that are ``late`` why there is no load, as they come; who knows it is taken out.

    ``ended`` is called when those that are there know.

    Raises:
        GroupError: the store cannot be asked.
    """
    root = RootEndpoint("", 0, secrets.token_hex(16), (failure.what, failure.hint))
    store.publish(root)
    grace_until_s = time.monotonic() + _GRACE_S
    while late and timeout.left_s > 0:
        for rank in sorted(late):
            number = store.read(_asked_key(root.token, rank))
            if number is not None:
                store.write(_answered_key(root.token, rank), number)
                timeout.is_told = True
                late.discard(rank)
        if time.monotonic() >= grace_until_s:
            ended()
        time.sleep(_LOOK_S)
    ended()


def report_failure(store: RendezvousStore, failure: GroupError, rank: int, timeout: RendezvousTimeout) -> None:
    """``rank`` tells rank 0 why it cannot come, as soon as that is there.

    Raises:
        GroupError: the store cannot be asked.
    """
    ping = Ping(store, rank)
    while timeout.left_s > 0:
        root = store.find_root()
        if root is not None and _is_known(store, root, ping, rank, failure):
            timeout.is_told = True
            return
        time.sleep(_LOOK_S)


def _is_known(store: RendezvousStore, root: RootEndpoint, ping: Ping, rank: int, failure: GroupError) -> bool:
    """True once rank 0 knows; another one that cannot come may have written over it, so it is written each time."""
    if root.failed is not None:
        return ping.is_answered(root.token)
    store.write(failed_key(root.token), json.dumps([rank, failure.what, failure.hint]))
    return store.read(heard_key(root.token, rank)) is not None


def _asked_key(token: str, rank: int) -> str:
    return f"{token}/asked/{rank}"


def _answered_key(token: str, rank: int) -> str:
    return f"{token}/answered/{rank}"
