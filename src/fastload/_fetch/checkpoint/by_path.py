"""A checkpoint given by its path: path → is it a snapshot? → what proves it → headers.

What proves it may be kept apart, never beside it. What is wrong of it comes from other tiers, as of what has a name; on
the local tier the file is mended as well.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastload._fetch.checkpoint.fetched import Fetched, FetchRequest
from fastload._fetch.checkpoint.folder import read_folder
from fastload._fetch.checkpoint.home import AtPath, BarePath
from fastload._fetch.evidence.evidence import NOTHING
from fastload._fetch.evidence.weigh import weigh
from fastload._fetch.find.at_path import follow, of_tier, stored_at
from fastload._fetch.find.passing import find_want
from fastload._fetch.find.resolve import tiers_of
from fastload._fetch.mend.repair import Repair
from fastload._read.tally import ProofTally
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from fastload._fetch.checkpoint.home import Home
    from fastload._fetch.evidence.evidence import Evidence


def fetch_path(request: FetchRequest, path: str) -> Fetched:
    """The checkpoint where the user said."""
    path, settings = follow(path), request.settings
    stored, tally = stored_at(path), ProofTally(request.ledger)
    if stored is None:
        return _read(request, path, NOTHING, BarePath(), tally)
    with ExitStack() as undo:
        repair = Repair(of_tier(stored, tiers_of(settings)), settings, tally, request.leaves, request.check)
        undo.callback(repair.close)
        evidence = weigh(stored, repair, settings)
        request.when_weighed(evidence)
        try:
            fetched = _read(request, path, evidence, AtPath(stored, repair, evidence, request), tally)
        except FastloadError as exc:
            want = find_want(exc, stored, request.source)
            if want is not None:
                want.explain()
            raise
        undo.pop_all()
    return fetched


def _read(request: FetchRequest, path: str, evidence: Evidence, home: Home, tally: ProofTally) -> Fetched:
    checkpoint, folder = read_folder(request, path, evidence, tally)
    return Fetched(
        checkpoint=checkpoint,
        name=request.source.name,
        folder=folder,
        root=path,
        tier=tally.tier,
        evidence=evidence,
        tally=tally,
        home=home,
    )
