"""How the ranks of a group find each other: by a store that they share, and then by sockets of their own.

Rank 0 writes its address into the store and waits for the others; a *token* beside it keeps strangers out, and tells
this meeting from an earlier one whose address is still there. Rank 0 answers with the roster, and everybody connects to
the ranks below. Nothing is counted in the store, so that a rank which missed an earlier meeting cannot be out of step.
"""

from __future__ import annotations

import json
import secrets
import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fastload._group.address import find_node, find_own_address
from fastload._group.wire import receive_message, send_message
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_KEY = "fastload/meeting"
_LOOK_S = 0.05
_CONNECT_S = 5.0
_HELLO_S = 2.0
_MESH_S = 8.0
"""Once the roster is out, everybody is there."""
_HINT = "Every rank of the group must load the same model at the same time: see what became of the others"


class Store(Protocol):
    """What is used of a ``torch.distributed.Store``."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def get(self, key: str) -> bytes:
        """Read what is there."""

    def check(self, keys: list[str]) -> bool:
        """True if all are there."""


@dataclass(frozen=True, slots=True)
class Seat:
    """This rank's place in a group, before it has met the others."""

    rank: int
    size: int
    store: Store
    store_host: str | None


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


@dataclass(frozen=True, slots=True)
class _Badge:
    """What a rank says of itself when it comes."""

    rank: int
    host: str
    port: int
    node: str


def meet(seat: Seat, *, patience_s: float) -> Mesh:
    """Wait for the others and connect to all of them.

    Raises:
        GroupError: somebody did not come within ``patience_s``.
    """
    until_s = time.monotonic() + patience_s
    host = find_own_address(seat.store_host)
    with _listen(host) as listener:
        badge = _Badge(seat.rank, host, listener.getsockname()[1], find_node())
        met = _receive_guests(seat, badge, listener, until_s) if seat.rank == 0 else _join(seat, badge, until_s)
        try:
            _connect_all(met, listener)
        except BaseException:
            met.mesh.close()
            raise
    return met.mesh


def _listen(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((host, 0))
        listener.listen(4096)
    except OSError as exc:
        listener.close()
        raise GroupError(f"cannot listen on {host} ({exc})", "Check this machine's network and its ulimit -n") from exc
    return listener


@dataclass(frozen=True, slots=True)
class _Met:
    token: str
    roster: Sequence[_Badge]
    mesh: Mesh


def _met(seat: Seat, token: str, roster: Sequence[_Badge], control: dict[int, socket.socket]) -> _Met:
    names = list(dict.fromkeys(badge.node for badge in roster))
    nodes = tuple(names.index(badge.node) for badge in roster)
    return _Met(token, roster, Mesh(seat.rank, nodes, control, {}))


def _receive_guests(seat: Seat, own: _Badge, listener: socket.socket, until_s: float) -> _Met:
    """Rank 0: wait until all have come, then tell them who is there."""
    token = secrets.token_hex(16)
    seat.store.set(_KEY, json.dumps([own.host, own.port, token]))
    guests: dict[int, tuple[_Badge, socket.socket]] = {}
    try:
        for connection, hello in _accept(listener, token, until_s, lambda: len(guests) == seat.size - 1):
            badge = _Badge(*hello)
            if badge.rank in guests:
                guests[badge.rank][1].close()
            guests[badge.rank] = badge, connection
        _check_complete([rank for rank in range(1, seat.size) if rank not in guests])
        roster = [own, *(guests[rank][0] for rank in sorted(guests))]
        for _, connection in guests.values():
            with suppress(OSError):  # one that is gone by now is missed where all connect to all
                send_message(connection, json.dumps([_fields(badge) for badge in roster]).encode())
    except BaseException:
        for _, connection in guests.values():
            connection.close()
        raise
    return _met(seat, token, roster, {rank: connection for rank, (_, connection) in guests.items()})


def _check_complete(missing: Sequence[int]) -> None:
    if missing:
        raise GroupError(f"{_name_ranks(missing)} did not come to load with the others", _HINT)


def _name_ranks(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def _fields(badge: _Badge) -> list[object]:
    return [badge.rank, badge.host, badge.port, badge.node]


def _join(seat: Seat, own: _Badge, until_s: float) -> _Met:
    """Any other rank: go to rank 0 until it answers; an address in the store may be that of an earlier meeting."""
    while time.monotonic() < until_s:
        if seat.store.check([_KEY]):
            host, port, token = json.loads(seat.store.get(_KEY))
            answer = _ask(host, port, token, own, until_s)
            if answer is not None:
                connection, roster = answer
                return _met(seat, token, [_Badge(*fields) for fields in json.loads(roster)], {0: connection})
        time.sleep(_LOOK_S)
    raise GroupError("rank 0 did not come to load with the others, or waits for another one in vain", _HINT)


def _ask(host: str, port: int, token: str, own: _Badge, until_s: float) -> tuple[socket.socket, bytes] | None:
    try:
        connection = socket.create_connection((host, port), _CONNECT_S)
    except OSError:
        return None
    try:
        send_message(connection, json.dumps([token, *_fields(own)]).encode())
        connection.settimeout(max(_HELLO_S, until_s - time.monotonic()))
        roster = receive_message(connection)
    except (OSError, EOFError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection, roster


def _accept(
    listener: socket.socket, token: str, until_s: float, is_enough: Callable[[], bool]
) -> Iterator[tuple[socket.socket, list[Any]]]:
    """Connections whose first message begins with ``token``, and the rest of that message."""
    while not is_enough() and time.monotonic() < until_s:
        if not select.select([listener], [], [], min(0.5, max(0.0, until_s - time.monotonic())))[0]:
            continue
        connection, _ = listener.accept()
        try:
            connection.settimeout(_HELLO_S)
            said, *rest = json.loads(receive_message(connection))
            is_ours = said == token
        except (OSError, EOFError, ValueError, TypeError):
            is_ours = False
        if is_ours:
            yield connection, rest
        else:
            connection.close()


def _connect_all(met: _Met, listener: socket.socket) -> None:
    """Two sockets per pair: whoever is above connects, and the one to rank 0 is there already."""
    mesh = met.mesh
    until_s = time.monotonic() + _MESH_S
    for badge in met.roster[: mesh.rank]:
        for kind, sockets in (("control", mesh.control), ("data", mesh.data)):
            if badge.rank not in sockets:
                sockets[badge.rank] = _connect(badge, [met.token, mesh.rank, kind])
    above = range(mesh.rank + 1, mesh.size)

    def is_complete() -> bool:
        return all(rank in mesh.control and rank in mesh.data for rank in above)

    for connection, (rank, kind) in _accept(listener, met.token, until_s, is_complete):
        sockets = mesh.control if kind == "control" else mesh.data
        sockets[rank] = connection
    if not is_complete():
        missing = [rank for rank in above if rank not in mesh.control or rank not in mesh.data]
        raise GroupError(f"{_name_ranks(missing)} could not connect to rank {mesh.rank}", _HINT)
    for each in (*mesh.control.values(), *mesh.data.values()):
        each.settimeout(None)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _connect(badge: _Badge, hello: list[object]) -> socket.socket:
    try:
        connection = socket.create_connection((badge.host, badge.port), _CONNECT_S)
        send_message(connection, json.dumps(hello).encode())
    except OSError as exc:
        what = f"rank {badge.rank} cannot be reached at {badge.host}:{badge.port} ({exc})"
        raise GroupError(what, "Ranks connect to each other by TCP on ports of the system's choice: let them") from exc
    return connection
