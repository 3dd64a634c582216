"""Letting in the ranks that come to a rendezvous, and nobody else."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from fastload._group.socket_limits import opening_connections
from fastload._group.wire import is_readable, receive_message
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._group.timeout import RendezvousTimeout

HELLO_S = 2.0
"""How long whoever has come may take to say who it is."""
_LOOK_S = 0.2


def listen(host: str) -> socket.socket:
    """A socket to which the others can come.

    Raises:
        GroupError: nobody could come to ``host``.
        UnsupportedError: the system grants no socket.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with opening_connections():
        listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((host, 0))
        listener.listen(4096)
    except OSError as exc:
        listener.close()
        raise GroupError(f"cannot listen on {host} ({exc})", "Check this machine's network") from exc
    return listener


def accept(
    listener: socket.socket, token: str, timeout: RendezvousTimeout, is_enough: Callable[[], bool]
) -> Iterator[tuple[socket.socket, list[Any]] | None]:
    """Connections whose first message begins with ``token``, and the rest of that message; None while nobody comes."""
    while not is_enough() and (left_s := timeout.left_s) > 0:
        if not is_readable(listener, min(_LOOK_S, left_s)):
            yield None
            continue
        with opening_connections():
            connection, _ = listener.accept()
        rest = _hear(connection, token)
        if rest is None:
            connection.close()
        yield None if rest is None else (connection, rest)


def _hear(connection: socket.socket, token: str) -> list[Any] | None:
    """The rest of the first message; None from a stranger."""
    try:
        said, *rest = json.loads(receive_message(connection, HELLO_S))
        connection.settimeout(HELLO_S)
    except (OSError, EOFError, ValueError, TypeError, RecursionError):
        return None
    return rest if said == token else None
