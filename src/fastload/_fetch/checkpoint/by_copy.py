"""A checkpoint of which a tier that is a folder has a copy: what proves it → what it has lost → headers.

What the local tier has lost is brought back to it first. What another one has lost is not: none of that copy serves.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from fastload._fetch.checkpoint.fetched import Fetched, FetchRequest
from fastload._fetch.checkpoint.folder import read_folder
from fastload._fetch.checkpoint.home import OnLocal, OnMount
from fastload._fetch.evidence.weigh import weigh
from fastload._fetch.find.passing import LostError, passed_over_where_unusable
from fastload._fetch.mend.repair import Repair
from fastload._fetch.mend.restore import Restoring, explain_gap, fill_gaps
from fastload._read.tally import ProofTally
from fastload._tier import LOCAL
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from fastload._fetch.checkpoint.home import Home
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import OfferedFile
    from fastload._store.ref import Candidate, Name
    from fastload._store.stored import Stored


@dataclass(frozen=True, slots=True)
class Serving:
    """The copy that serves a name."""

    name: Name
    stored: Stored

    @property
    def candidate(self) -> Candidate:
        """What of the name it is a copy of."""
        candidates = self.name.candidates
        return next((candidate for candidate in candidates if candidate.repo == self.stored.repo), candidates[0])

    @property
    def learnt(self) -> str:
        """Where its commit was learnt."""
        return "name" if self.candidate.is_pinned else str(self.stored.tier)


def fetch_copy(request: FetchRequest, serving: Serving) -> Fetched:
    """The checkpoint that ``serving`` has.

    Raises:
        LostError: it has not all of it, or cannot be used: another tier may have it.
    """
    stored, source, settings = serving.stored, request.source, request.settings
    part = os.path.join(stored.folder, source.subfolder or "")
    tally = ProofTally(request.ledger, stored.tier)
    repair = Repair(stored, settings, tally, request.leaves, request.check)
    with ExitStack() as undo:
        undo.callback(repair.close)
        with passed_over_where_unusable(stored, source, FormatError, StoreError):
            evidence = weigh(stored, repair, settings)
        if stored.tier == LOCAL and request.restores:  # it alone may be written by a load
            request.when_weighed(evidence)
            restoring = Restoring(stored, repair, settings, request.check)
            fill_gaps(evidence, part, source.choose, lambda file: restoring.require(evidence, file))
        else:
            if stored.commit is not None:  # else nobody can say what would be the same
                fill_gaps(evidence, part, source.choose, lambda file: _refuse(evidence, file))
            request.when_weighed(evidence)
        with passed_over_where_unusable(stored, source, StoreError):
            checkpoint, folder = read_folder(request, stored.folder, evidence, tally)
        undo.pop_all()
    if stored.tier == LOCAL:
        home: Home = OnLocal(stored, repair, evidence, request)
    else:
        home = OnMount(serving, repair, evidence, request)
    return Fetched(
        checkpoint=checkpoint,
        name=source.name,
        folder=folder,
        root=stored.folder,
        tier=stored.tier,
        commit=stored.commit,
        commit_learnt=serving.learnt if stored.commit is not None else None,
        evidence=evidence,
        tally=tally,
        home=home,
    )


def _refuse(evidence: Evidence, file: OfferedFile) -> NoReturn:
    raise LostError(explain_gap(evidence, file))
