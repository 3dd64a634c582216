"""What rank 0 does so that all meet: it waits until they have come, and tells everybody who is there, or why not."""

from __future__ import annotations

import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from fastload._group.abort import explain
from fastload._group.failure_watch import FailureWatch
from fastload._group.listener import HELLO_S, accept
from fastload._group.membership import MEET_HINT, ROSTER, WELCOME, Membership, RankAddress, name_ranks
from fastload._group.rendezvous_connection import FAILED, RendezvousConnection
from fastload._group.rendezvous_store import RootEndpoint
from fastload._group.store_failures import publish_failure
from fastload.errors import GroupError, UnsupportedError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fastload._group.rendezvous_store import RendezvousStore
    from fastload._group.timeout import RendezvousTimeout

    Ended = Callable[[BaseException], None]
    """Takes why there will be no load."""


def gather_members(
    own: RankAddress,
    size: int,
    listener: socket.socket,
    store: RendezvousStore,
    timeout: RendezvousTimeout,
    ended: Ended,
) -> Membership:
    """Wait until all have come, then tell them who is there.

    If there will be no load, ``ended`` is called with the cause, and those who come late are told of it as they come:
    nobody need wait for this to return.

    Raises:
        GroupError: one does not come, or came and failed, or this one has; or the store cannot be asked.
    """
    token, others = secrets.token_hex(16), set(range(1, size))
    with FailureWatch(store, token, set(others), timeout) as watch:
        coordinator = _Coordinator(listener, token, timeout, watch)
        try:
            store.publish(RootEndpoint(own.host, own.port, token))
            coordinator.wait_for(others)
        except UnsupportedError as error:  # there is no descriptor for those that come
            failure = explain(own.rank, error)
            timeout.give_up(failure)
            listener.close()
            publish_failure(store, failure, coordinator.abort_joined(failure), timeout, partial(ended, error))
            raise
        except BaseException as error:
            failure = explain(own.rank, error)
            late = coordinator.abort_joined(failure)
            ended(error)
            coordinator.abort_late(failure, late)
            raise
    roster = [own, *(coordinator.addresses[rank] for rank in range(1, size))]
    for line in coordinator.joined.values():
        with suppress(OSError):  # one that is gone by now is missed where all connect to all
            line.say([ROSTER, roster])
    return Membership(coordinator.token, roster, {rank: line.connection for rank, line in coordinator.joined.items()})


class _Coordinator:
    """Where rank 0 waits with those that have come."""

    def __init__(self, listener: socket.socket, token: str, timeout: RendezvousTimeout, watch: FailureWatch) -> None:
        self._listener = listener
        self.token = token
        self._timeout = timeout
        self._watch = watch
        self.joined: dict[int, RendezvousConnection] = {}
        self.addresses: dict[int, RankAddress] = {}
        self._told: set[int] = set()
        """Those that know why there is no load, since they have said it."""

    def wait_for(self, ranks: set[int]) -> None:
        """Until all of them are here.

        Raises:
            GroupError: some did not come, or one that had come has failed, or this one.
        """
        for come in accept(self._listener, self.token, self._timeout, lambda: self.joined.keys() == ranks):
            if come is not None:
                self._admit(come[1][0], RendezvousConnection(come[0], come[1][0]))
            self._timeout.check()
            self._watch.check()
            for line in self.joined.values():
                said = line.look()
                if said is not None:  # nothing else is said before all are there
                    raise GroupError(*said[1:])
        if missing := sorted(ranks - self.joined.keys()):
            raise GroupError(f"{name_ranks(missing)} did not come to load with the others", MEET_HINT)

    def _admit(self, rank: int, line: RendezvousConnection) -> None:
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
        if rank in self.joined:
            self.joined[rank].close()
        self.joined[rank], self.addresses[rank] = line, RankAddress(*said)

    def abort_joined(self, failure: GroupError) -> set[int]:
        """Tell those that are here that there is no load; those that do not know it yet."""
        for line in self.joined.values():
            line.end(failure)
        self._watch.ranks -= self.joined.keys() | self._told
        return self._watch.ranks

    def abort_late(self, failure: GroupError, late: set[int]) -> None:
        """Tell those that come when it is over; once: whoever comes again comes for the next load."""
        for come in accept(self._listener, self.token, self._timeout, lambda: not late):
            if come is None:
                continue
            connection, (rank,) = come
            line = RendezvousConnection(connection, rank)
            if rank not in late:
                line.close()
                continue
            late.discard(rank)
            with suppress(OSError, GroupError):
                line.say([WELCOME])
                line.wait(HELLO_S)
            line.end(failure)
