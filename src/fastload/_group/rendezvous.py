"""How the ranks of a group find each other: by a store that they share, and then by sockets of their own.

::

    rank 0                              any other rank
    publishes its address               finds it there, and connects (joining)
    accepts it, says welcome            says who it is
    waits for all (coordinator)         waits for the roster of the members
                     everybody connects to the ranks below

A rank that has failed by then goes the same way, to say so; one that may open no socket, by the store alone
(store_failures). Nothing is counted in the store, so that a rank which missed an earlier rendezvous cannot be out of
step. From the welcome on both ends send heartbeats, and whoever fails says so: the others end with the cause, those who
come late too.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fastload._group.abort import explain, find_abort, send_abort, wait_abort
from fastload._group.address import find_node, find_own_address
from fastload._group.coordinator import gather_members
from fastload._group.joining import CONNECT_S, join
from fastload._group.listener import accept, listen
from fastload._group.membership import MEET_HINT, RankAddress, name_ranks
from fastload._group.rendezvous_store import RendezvousStore
from fastload._group.socket_limits import opening_connections
from fastload._group.store_failures import publish_failure, report_failure
from fastload._group.timeout import RendezvousTimeout
from fastload._group.turns import Turns
from fastload._group.wire import is_readable, send_message
from fastload.errors import GroupError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._group.coordinator import Ended
    from fastload._group.membership import Membership
    from fastload._group.rendezvous_store import Store

_MESH_S = 8.0
"""Once the roster is out, everybody is there."""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """This rank as a member of a group, before it has met the others."""

    rank: int
    size: int
    store: Store
    store_host: str | None
    turns: Turns = field(default_factory=Turns)
    """Other calls of this rank with the same group."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Two sockets to every peer, and on which machine each rank is."""

    rank: int
    nodes: tuple[int, ...]
    """Per rank, the number of its machine; equal numbers are one machine."""
    control: dict[int, socket.socket]
    data: dict[int, socket.socket]

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.nodes)

    def close(self) -> None:
        """Close all sockets."""
        for each in (*self.control.values(), *self.data.values()):
            each.close()


def connect_full_mesh(member: GroupMember, timeout: RendezvousTimeout, ended: Ended) -> Mesh:
    """Wait for the others and connect to all of them.

    ``ended``: see :func:`~fastload._group.coordinator.gather_members`.

    Raises:
        GroupError: somebody did not come in time, or failed, this rank included; or the store cannot be asked.
    """
    store = RendezvousStore(member.store, timeout)
    return _coordinate(member, store, timeout, ended) if member.rank == 0 else _join(member, store, timeout)


def _coordinate(member: GroupMember, store: RendezvousStore, timeout: RendezvousTimeout, ended: Ended) -> Mesh:
    try:
        listener, address = _listen(member)
    except UnsupportedError as error:
        failure = explain(member.rank, error)
        timeout.give_up(failure)
        publish_failure(store, failure, set(range(1, member.size)), timeout, partial(ended, error))
        raise
    with listener:
        return _connect(member, gather_members(address, member.size, listener, store, timeout, ended), listener)


def _join(member: GroupMember, store: RendezvousStore, timeout: RendezvousTimeout) -> Mesh:
    membership = None
    try:
        listener, address = _listen(member)
        with listener:
            membership = join(address, store, timeout)
            return _connect(member, membership, listener)
    except UnsupportedError as error:
        if membership is None:  # what the listener took is free now
            timeout.give_up(explain(member.rank, error))
            with suppress(GroupError):  # this one's own error is what its caller gets
                _say_why(member.rank, explain(member.rank, error), store, timeout)
        raise


def _say_why(rank: int, failure: GroupError, store: RendezvousStore, timeout: RendezvousTimeout) -> None:
    try:
        join(RankAddress(rank, "", 0, ""), store, timeout)
    except UnsupportedError:
        report_failure(store, failure, rank, timeout)


def _connect(member: GroupMember, membership: Membership, listener: socket.socket) -> Mesh:
    mesh = Mesh(member.rank, _number_nodes(membership), dict(membership.control), {})
    try:
        _connect_all(mesh, membership, listener)
    except BaseException as error:
        # Where another rank failed, we may have waited for it in vain.
        cause = wait_abort(mesh.control.values()) if isinstance(error, GroupError) else None
        failure = explain(member.rank, cause or error)
        send_abort(mesh.control.values(), failure)
        mesh.close()
        _abort_waiting(listener, failure)
        if cause is not None:
            raise cause from error
        raise
    return mesh


def _listen(member: GroupMember) -> tuple[socket.socket, RankAddress]:
    host = find_own_address(member.store_host)
    listener = listen(host)
    return listener, RankAddress(member.rank, host, listener.getsockname()[1], find_node())


def _number_nodes(membership: Membership) -> tuple[int, ...]:
    names = list(dict.fromkeys(address.node for address in membership.roster))
    return tuple(names.index(address.node) for address in membership.roster)


def _connect_all(mesh: Mesh, membership: Membership, listener: socket.socket) -> None:
    """Two sockets per pair: whoever is above connects, and the one to rank 0 is there already."""
    _connect_below(mesh, membership)
    above = range(mesh.rank + 1, mesh.size)

    def is_complete() -> bool:
        return all(rank in mesh.control and rank in mesh.data for rank in above)

    for come in accept(listener, membership.token, RendezvousTimeout(_MESH_S), is_complete):
        if come is not None:
            _add_peer(mesh, *come)
        elif (cause := find_abort(mesh.control.values())) is not None:
            raise cause
    if not is_complete():
        missing = [rank for rank in above if rank not in mesh.control or rank not in mesh.data]
        raise GroupError(f"{name_ranks(missing)} could not connect to rank {mesh.rank}", MEET_HINT)
    for each in (*mesh.control.values(), *mesh.data.values()):
        each.settimeout(None)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _add_peer(mesh: Mesh, connection: socket.socket, hello: Sequence[Any]) -> None:
    if len(hello) == 1:  # a rank that has come already, and connects once more: nobody needs that one
        connection.close()
        return
    rank, kind = hello
    sockets = mesh.control if kind == "control" else mesh.data
    sockets[rank] = connection


def _abort_waiting(listener: socket.socket, failure: GroupError) -> None:
    """Tell those that have come and were not let in, for want of descriptors for one."""
    with suppress(OSError):
        while is_readable(listener, 0):
            connection, _ = listener.accept()
            with connection:
                send_abort([connection], failure)


def _connect_below(mesh: Mesh, membership: Membership) -> None:
    for address in membership.roster[: mesh.rank]:
        for kind, sockets in (("control", mesh.control), ("data", mesh.data)):
            if address.rank not in sockets:
                sockets[address.rank] = _connect_to(address, [membership.token, mesh.rank, kind])


def _connect_to(address: RankAddress, hello: list[object]) -> socket.socket:
    try:
        with opening_connections():
            connection = socket.create_connection((address.host, address.port), CONNECT_S)
        send_message(connection, json.dumps(hello).encode())
    except OSError as exc:
        what = f"rank {address.rank} cannot be reached at {address.host}:{address.port} ({exc})"
        raise GroupError(what, "Ranks connect to each other by TCP on ports of the system's choice: let them") from exc
    return connection
