"""Memory that ranks share: what each of them takes fits by itself, and may be too much where all take it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._budget import check_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastload._budget import Room

    Claims = Mapping[str, int]
    """How many bytes a rank takes, by what limits them (:attr:`fastload._budget.Headroom.pool`)."""


def claims_of(rooms: Iterable[Room]) -> Claims:
    """What this rank takes where others may take as well. It holds some already, which nobody else can have.

    A device whose memory is the host's is counted with the host in its own room; so the larger claim is all.
    """
    claims: dict[str, int] = {}
    for room in rooms:
        pool = room.headroom.pool
        if pool:
            claims[pool] = max(claims.get(pool, 0), room.needed_bytes - room.headroom.own_bytes)
    return claims


def check_rooms(rooms: Sequence[Room], claims: Sequence[Claims]) -> None:
    """Raise ``MemoryBudgetError`` where the ``claims`` of all ranks on this machine are more than there is.

    ``rooms`` are what this rank found before any of them took anything.
    """
    for room in rooms:
        taken = [each[room.headroom.pool] for each in claims if room.headroom.pool in each]
        if len(taken) > 1:
            limit = f"{room.headroom.limit}, which {len(taken)} ranks of the group share,"
            left_bytes = room.headroom.available_bytes - room.headroom.own_bytes
            check_budget(sum(taken), replace(room.headroom, limit=limit, available_bytes=left_bytes), room.hint)
