"""A load that one process carries out by itself: a company of one, so that nobody above asks who else is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fastload._fetch.checkpoint.fetch import fetch
from fastload._load.group.planning import plan_alone
from fastload._load.group.reader_proof import ProvenTogether

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._budget import Room
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.header import TensorInfo
    from fastload._load.found import Found
    from fastload._load.group.exchange import Exchange, Tee
    from fastload._load.group.fetching import WhenWeighed
    from fastload._load.group.planning import LoadPlan
    from fastload._load.proving import Proving
    from fastload._load.request import Request
    from fastload._load.staging import Staging
    from fastload._load.target import Target
    from fastload.report import GroupReport, RankReport


class Alone:
    """See :class:`~fastload._load.group.party.Party`, whose every question has a short answer here."""

    rank = 0
    node = 0
    is_first_on_node = True
    passes_on = False
    goes_on = False
    reads = True
    ranks_here = (0,)
    sources: frozenset[int] = frozenset()

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody needs to be told."""

    def fetch(self, verb: str, device: str, when_weighed: WhenWeighed) -> Fetched:
        """As :func:`~fastload._fetch.checkpoint.fetch.fetch`."""
        return fetch(self._request.source, self._request.settings, self._request.deadline, when_weighed)

    def check_content(self, fetched: Fetched, wanted: Sequence[TensorInfo]) -> None:
        """Nobody has found anything else."""

    def plan(self, found: Found, target: Target, staging: Staging, *, keeps_copy: bool) -> LoadPlan:
        """All of it."""
        return plan_alone(found, target, staging)

    def check_rooms(self, rooms: Sequence[Room]) -> None:
        """Nobody takes any besides."""

    def share_proof(self, proving: Proving, root: str) -> Proving:
        """``proving``: all is read here."""
        return proving

    def open_exchange(self, planned: LoadPlan, tee: Tee) -> Exchange | None:
        """None: there is nobody to exchange anything with."""
        return None

    def prove_together(self, proving: Proving, exchange: Exchange | None) -> ProvenTogether:
        """What was proven here."""
        return ProvenTogether(proving.proven, doubt="")

    def mend_in_turn(self, mend: Callable[[], None], *, is_needed: bool) -> None:
        """``mend``, if it is needed."""
        if is_needed:
            mend()

    def end_together(self, own: Callable[[], RankReport]) -> GroupReport | None:
        """None: there is no group."""
        return None

    def leave(self, own: Callable[[], RankReport]) -> None:
        """Nobody waits for anything."""

    def vouch(self, own: Callable[[], RankReport]) -> None:
        """Nobody asks."""

    def fail(self, error: BaseException) -> None:
        """Nobody needs to be told."""

    def close(self) -> None:
        """There is nothing to let go of."""
