"""Who has come to a rendezvous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

WELCOME = "welcome"
ROSTER = "roster"
"""The first words of what rank 0 says."""
MEET_HINT = "Every rank of the group must load the same model at the same time: see what became of the others"


class RankAddress(NamedTuple):
    """What a rank says of itself when it comes."""

    rank: int
    host: str
    port: int
    node: str


@dataclass(frozen=True, slots=True)
class Membership:
    """All have come."""

    token: str
    roster: Sequence[RankAddress]
    control: Mapping[int, socket.socket]
    """The connections between rank 0 and the others, by who is at the other end."""


def name_ranks(ranks: Sequence[int]) -> str:
    """In words."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
