"""How the ranks of a group find each other: by a store that they share, and then by sockets of their own.

::

    rank 0                              any other rank
    leaves its address (board)          finds it there, and knocks (joining)
    lets it in (door), says welcome     says who it is
    waits until all are there (hosting) waits to be told who is there
                     everybody connects to the ranks below

A rank that has failed by then goes the same way, to say so; one that may open no socket, by the store alone (notes).
Nothing is counted in the store, so that a rank which missed an earlier meeting cannot be out of step. From the welcome
on both ends give signs of life, and whoever fails says so: the others end with the cause, those who come late too.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fastload._group.address import find_node, find_own_address
from fastload._group.board import Board
from fastload._group.door import accept, listen
from fastload._group.guests import MEET_HINT, Badge, name_ranks
from fastload._group.hosting import receive_guests
from fastload._group.joining import CONNECT_S, join
from fastload._group.last_words import find_last, say_last, wait_last
from fastload._group.life import explain
from fastload._group.notes import tell_first, tell_others
from fastload._group.patience import Patience
from fastload._group.refusal import opening_connections
from fastload._group.turns import Turns
from fastload._group.wire import is_readable, send_message
from fastload.errors import GroupError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._group.board import Store
    from fastload._group.guests import Met
    from fastload._group.hosting import Ended

_MESH_S = 8.0
"""Once the roster is out, everybody is there."""


@dataclass(frozen=True, slots=True)
class Seat:
    """This rank's place in a group, before it has met the others."""

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


def meet(seat: Seat, patience: Patience, ended: Ended) -> Mesh:
    """Wait for the others and connect to all of them; ``ended``: see :func:`~fastload._group.hosting.receive_guests`.

    Raises:
        GroupError: somebody did not come in time, or failed, this rank included; or the store cannot be asked.
    """
    board = Board(seat.store, patience)
    return _host(seat, board, patience, ended) if seat.rank == 0 else _go(seat, board, patience)


def _host(seat: Seat, board: Board, patience: Patience, ended: Ended) -> Mesh:
    try:
        listener, badge = _listen(seat)
    except UnsupportedError as error:
        failure = explain(seat.rank, error)
        patience.give_up(failure)
        tell_others(board, failure, set(range(1, seat.size)), patience, partial(ended, error))
        raise
    with listener:
        return _connect(seat, receive_guests(badge, seat.size, listener, board, patience, ended), listener)


def _go(seat: Seat, board: Board, patience: Patience) -> Mesh:
    met = None
    try:
        listener, badge = _listen(seat)
        with listener:
            met = join(badge, board, patience)
            return _connect(seat, met, listener)
    except UnsupportedError as error:
        if met is None:  # what the listener took is free now
            patience.give_up(explain(seat.rank, error))
            with suppress(GroupError):  # this one's own error is what its caller gets
                _say_why(seat.rank, explain(seat.rank, error), board, patience)
        raise


def _say_why(rank: int, failure: GroupError, board: Board, patience: Patience) -> None:
    try:
        join(Badge(rank, "", 0, ""), board, patience)
    except UnsupportedError:
        tell_first(board, failure, rank, patience)


def _connect(seat: Seat, met: Met, listener: socket.socket) -> Mesh:
    mesh = Mesh(seat.rank, _number_nodes(met), dict(met.control), {})
    try:
        _connect_all(mesh, met, listener)
    except BaseException as error:
        # Where another rank failed, we may have waited for it in vain.
        cause = wait_last(mesh.control.values()) if isinstance(error, GroupError) else None
        failure = explain(seat.rank, cause or error)
        say_last(mesh.control.values(), failure)
        mesh.close()
        _turn_away(listener, failure)
        if cause is not None:
            raise cause from error
        raise
    return mesh


def _listen(seat: Seat) -> tuple[socket.socket, Badge]:
    host = find_own_address(seat.store_host)
    listener = listen(host)
    return listener, Badge(seat.rank, host, listener.getsockname()[1], find_node())


def _number_nodes(met: Met) -> tuple[int, ...]:
    names = list(dict.fromkeys(badge.node for badge in met.roster))
    return tuple(names.index(badge.node) for badge in met.roster)


def _connect_all(mesh: Mesh, met: Met, listener: socket.socket) -> None:
    """Two sockets per pair: whoever is above connects, and the one to rank 0 is there already."""
    _connect_below(mesh, met)
    above = range(mesh.rank + 1, mesh.size)

    def is_complete() -> bool:
        return all(rank in mesh.control and rank in mesh.data for rank in above)

    for come in accept(listener, met.token, Patience(_MESH_S), is_complete):
        if come is not None:
            _seat_peer(mesh, *come)
        elif (cause := find_last(mesh.control.values())) is not None:
            raise cause
    if not is_complete():
        missing = [rank for rank in above if rank not in mesh.control or rank not in mesh.data]
        raise GroupError(f"{name_ranks(missing)} could not connect to rank {mesh.rank}", MEET_HINT)
    for each in (*mesh.control.values(), *mesh.data.values()):
        each.settimeout(None)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _seat_peer(mesh: Mesh, connection: socket.socket, hello: Sequence[Any]) -> None:
    if len(hello) == 1:  # a rank that has come already, and knocks once more: nobody needs that one
        connection.close()
        return
    rank, kind = hello
    sockets = mesh.control if kind == "control" else mesh.data
    sockets[rank] = connection


def _turn_away(listener: socket.socket, failure: GroupError) -> None:
    """Tell those that have come and were not let in, for want of descriptors for one."""
    with suppress(OSError):
        while is_readable(listener, 0):
            connection, _ = listener.accept()
            with connection:
                say_last([connection], failure)


def _connect_below(mesh: Mesh, met: Met) -> None:
    for badge in met.roster[: mesh.rank]:
        for kind, sockets in (("control", mesh.control), ("data", mesh.data)):
            if badge.rank not in sockets:
                sockets[badge.rank] = _connect_to(badge, [met.token, mesh.rank, kind])


def _connect_to(badge: Badge, hello: list[object]) -> socket.socket:
    try:
        with opening_connections():
            connection = socket.create_connection((badge.host, badge.port), CONNECT_S)
        send_message(connection, json.dumps(hello).encode())
    except OSError as exc:
        what = f"rank {badge.rank} cannot be reached at {badge.host}:{badge.port} ({exc})"
        raise GroupError(what, "Ranks connect to each other by TCP on ports of the system's choice: let them") from exc
    return connection
