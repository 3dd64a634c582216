"""Finding the model on every machine of a group: what a moving name means is asked once, by rank 0.

A machine that does not have the model gets its headers from one that has, and its bytes as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.checkpoint.fetch import fetch
from fastload._fetch.checkpoint.fetched import Fetched
from fastload._fetch.checkpoint.home import AtRank
from fastload._fetch.find.resolve import parse_model
from fastload._group.membership import name_ranks
from fastload._read.tally import ProofTally
from fastload._tier import Tier, TierKind
from fastload.errors import ModelNotFoundError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.checkpoint import Checkpoint
    from fastload._group.communicator import Communicator
    from fastload._load.request.request import Request

    WhenWeighed = Callable[[Evidence], object]
    """Is told what proves the model, before the headers are read if it can be."""


@dataclass(frozen=True, slots=True)
class FoundTogether:
    """What this rank loads, and which machines can read it."""

    fetched: Fetched
    reads: dict[int, bool]
    """Per rank, whether its machine has the model."""


@dataclass(frozen=True, slots=True)
class _Headers:
    """What those who read nothing themselves need to know of a checkpoint."""

    checkpoint: Checkpoint
    folder: str
    root: str
    commit: str | None


_Miss = ModelNotFoundError | NetworkError


def fetch_together(communicator: Communicator, request: Request, when_weighed: WhenWeighed) -> FoundTogether:
    """The checkpoint, the same commit on all ranks.

    Raises:
        ModelNotFoundError, NetworkError: no machine has it.
        GroupError: somebody failed.
        FastloadError: as :func:`fastload._fetch.checkpoint.fetch.fetch`.
    """
    mine: Fetched | _Miss | None = None
    try:
        if communicator.rank == 0:
            mine = _try_fetch(request, None, when_weighed)
        commit = communicator.all_gather(mine.commit if isinstance(mine, Fetched) else None)[0]
        if mine is None:
            mine = _try_fetch(request, commit, when_weighed)
        return _complete(communicator, mine, request)
    except BaseException:
        if isinstance(mine, Fetched):
            mine.close()
        raise


def _complete(communicator: Communicator, mine: Fetched | _Miss, request: Request) -> FoundTogether:
    has = communicator.all_gather(isinstance(mine, Fetched))
    nodes = communicator.nodes
    reads = {rank: all(has[other] for other in has if nodes[other] == nodes[rank]) for rank in has}
    if not any(reads.values()):
        if not isinstance(mine, Fetched):
            raise _explained(mine, [rank for rank in has if has[rank]])
        communicator.all_gather(None)  # raises what one says that has not found it: each machine has one
    giver = min(rank for rank in reads if reads[rank])
    headers: _Headers | None = None
    if not all(has.values()):
        is_mine = isinstance(mine, Fetched) and communicator.rank == giver
        headers = communicator.all_gather(_headers_of(mine) if is_mine and isinstance(mine, Fetched) else None)[giver]
    if isinstance(mine, Fetched):
        return FoundTogether(mine, reads)
    if headers is None:
        raise mine
    return FoundTogether(_described(headers, request, Tier(TierKind.RANK, str(giver))), reads)


def _explained(miss: _Miss, finders: Sequence[int]) -> _Miss:
    if finders:
        miss.add_note(f"Of the group, {name_ranks(finders)} found it: give all ranks of a machine the same tiers")
    return miss


def _headers_of(fetched: Fetched) -> _Headers:
    return _Headers(fetched.checkpoint, fetched.folder, fetched.root, fetched.commit)


def _described(headers: _Headers, request: Request, giver: Tier) -> Fetched:
    return Fetched(
        checkpoint=headers.checkpoint,
        name=request.source.name,
        folder=headers.folder,
        root=headers.root,
        tier=giver,
        commit=headers.commit,
        commit_learnt=str(giver),
        tally=ProofTally(request.ledger, giver),
        home=AtRank(),
    )


def _try_fetch(request: Request, commit: str | None, when_weighed: WhenWeighed) -> Fetched | _Miss:
    """What this machine has of the model, at ``commit`` if that is known; or why it has nothing."""
    source = request.source
    is_pinned = commit is not None and not names_path(request)
    if is_pinned:
        source = replace(source, model=os.fspath(source.model).partition("@")[0], revision=commit)
    try:
        fetched = fetch(source, request.settings, request.deadline, when_weighed, ledger=request.ledger)
    except (ModelNotFoundError, NetworkError) as exc:
        return exc
    return replace(fetched, name=request.source.name, commit_learnt="rank 0") if is_pinned else fetched


def names_path(request: Request) -> bool:
    """True if the model is given by path."""
    return isinstance(parse_model(request.source.model, request.source.revision, request.settings), str)
