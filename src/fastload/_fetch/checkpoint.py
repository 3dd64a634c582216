"""Resolve → headers: everything about a checkpoint that needs neither torch nor its weights."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from fastload._fetch.at_path import follow, of_tier, stored_at
from fastload._fetch.deadline import Deadline
from fastload._fetch.evidence import NOTHING, Evidence
from fastload._fetch.fetched import Fetched, Source
from fastload._fetch.folder import fetch_folder
from fastload._fetch.passing import LostError, Passing, find_want, passed_over_where_unusable
from fastload._fetch.record import Proof, record_proof
from fastload._fetch.remote import read_checkpoint
from fastload._fetch.repair import Repair
from fastload._fetch.resolve import parse_model, require, tiers_of
from fastload._fetch.restore import Part, Restoring, explain_gap, fill_gaps
from fastload._fetch.source import HubFound, find_offer, hub_of, patience_within
from fastload._fetch.through import begin_copy
from fastload._fetch.unnamed import warn_of_unnamed
from fastload._fetch.weigh import manifests_of, weigh, weigh_hub
from fastload._read.head import count_head_bytes
from fastload._read.tally import ProofTally
from fastload._store.folder_offer import offer_stored
from fastload._store.keep.reading import Reading
from fastload._store.keep.reports import keep_report
from fastload._store.ref import Candidate, Name
from fastload._store.tiered import Tiers, search
from fastload.errors import DeadlineError, FastloadError, FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._fetch.record import Left
    from fastload._fetch.through import Copy
    from fastload._store.hub.tier import HubTier
    from fastload._store.offer import OfferedFile
    from fastload._store.root import Stored
    from fastload._verify.manifest import ManifestFile
    from fastload.options import Settings

_log = logging.getLogger("fastload")

_BETTER_SOURCE_S = 10.0
"""A hub that cannot be reached within that is no better source than a mount."""


def fetch(
    source: Source,
    settings: Settings,
    deadline: Deadline | None = None,
    weighed: Callable[[Evidence], object] = lambda _: None,
    *,
    restores: bool = True,
) -> Fetched:
    """The checkpoint that ``source`` means; reads headers and the index only.

    Args:
        source: what is wanted.
        settings: all of them.
        deadline: when to give up; never, where there is none.
        weighed: is told what proves the model where that is known before the headers, which are read then.
        restores: what the local tier has lost is brought back to it; else it is looked for on the next tier, and
            nothing is written.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError, HubError: as :func:`fastload.load` says.
        DeadlineError: ``deadline`` is over.
    """
    deadline = deadline or Deadline(None, "")
    call = _Call(source, settings, deadline, weighed, restores)
    # A Ctrl-C must end it also where the mount hangs under an index or a header.
    fetched = deadline.apart(lambda: _fetch(call), lambda late: late.close())
    warn_of_unnamed(fetched.checkpoint, fetched.folder)
    return fetched


@dataclass(frozen=True, slots=True)
class _Call:
    """What :func:`fetch` was asked."""

    source: Source
    settings: Settings
    deadline: Deadline
    weighed: Callable[[Evidence], object]
    restores: bool

    def part(self, folder: str) -> Part:
        """What is read of a snapshot in ``folder``."""
        return Part(os.path.join(folder, self.source.subfolder or ""), self.source.choose)

    def recorder(self, stored: Stored, evidence: Evidence) -> Callable[[Mapping[str, ManifestFile]], Left]:
        """Keeps what a load proves of ``stored``."""
        manifests = manifests_of(self.settings)
        return lambda proven: record_proof(stored, evidence, Proof(proven, lambda _: self.deadline.check()), manifests)


def _fetch(call: _Call) -> Fetched:
    parsed = parse_model(call.source.model, call.source.revision, call.settings)
    if isinstance(parsed, str):
        return _fetch_path(call, parsed)
    tiers = tiers_of(call.settings)
    found = search(parsed, tiers)
    hub = hub_of(call.settings, patience_within(call.settings.deadline))
    if found.found is not None or hub is None:
        return _fetch_whole(call, _Serving(parsed, require(found)), tiers)
    return _fetch_from_hub(call, hub, lambda: find_offer(parsed, hub, found))


def _fetch_path(call: _Call, path: str) -> Fetched:
    """From where the user said; what proves it may be kept apart, never beside it.

    What is wrong of it comes from other tiers, as of what has a name; on the local tier the file is mended as well.
    """
    path = follow(path)
    stored = stored_at(path)
    if stored is None:
        return fetch_folder(call.source, path, "path", NOTHING, ProofTally(), call.deadline.check)
    with ExitStack() as undo:
        repair = Repair(of_tier(stored, tiers_of(call.settings)), call.settings, leaves_marks=call.restores)
        undo.callback(repair.close)
        evidence = weigh(stored, repair, call.settings)
        call.weighed(evidence)
        try:
            fetched = fetch_folder(call.source, path, "path", evidence, ProofTally(), call.deadline.check)
        except FastloadError as exc:
            want = find_want(exc, stored, call.source)
            if want is not None:
                want.explain()
            raise
        undo.pop_all()
    recorder = call.recorder(stored, evidence)
    return replace(
        fetched,
        record=recorder,
        mend_stored=repair.mend_stored,
        read_elsewhere=repair.read_by_tier,
        close=repair.close,
    )


@dataclass(frozen=True, slots=True)
class _Serving:
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
        return "name" if self.candidate.is_pinned else self.stored.tier


def _fetch_whole(call: _Call, serving: _Serving, tiers: Tiers) -> Fetched:
    """From the copy that serves; from the next tier, where that one cannot give it."""
    try:
        return _fetch_stored(call, serving)
    except LostError as exc:
        lost, want = exc.error, exc.want
    try:
        fetched = _fetch_elsewhere(call, serving, tiers)
    except DeadlineError:
        raise
    except FastloadError as exc:
        _log.info("no other tier has %s whole: %s", serving.stored.repo, exc)
        if want is not None and not want.is_denied_by(exc, serving.name.text):
            want.explain()
        raise lost from exc
    if want is not None:
        want.explain()
    passing = Passing()
    passing.over(serving.stored.tier, lost)
    passing.tell(fetched.tier)
    return replace(fetched, passed_over="; ".join(filter(None, (passing.reason, fetched.passed_over))))


def _fetch_elsewhere(call: _Call, serving: _Serving, tiers: Tiers) -> Fetched:
    """The same commit, from another tier.

    Raises:
        FastloadError: none has it, or only some of it too.
    """
    stored, settings = serving.stored, call.settings
    others = tiers.without(stored.tier)
    name = Name(serving.name.text, (Candidate(stored.repo, stored.commit),), is_alias=False)
    found = search(name, others)
    hub = hub_of(settings, patience_within(min(settings.deadline or _BETTER_SOURCE_S, _BETTER_SOURCE_S)))
    if found.found is not None or hub is None:
        fetched = _fetch_whole(call, _Serving(serving.name, require(found)), others)
    else:
        fetched = _fetch_from_hub(call, hub, lambda: replace(find_offer(name, hub, found), candidate=serving.candidate))
    return replace(fetched, commit_learnt=serving.learnt)


def _fetch_stored(call: _Call, serving: _Serving) -> Fetched:
    """From a folder of a tier; what comes from a shared one may be kept on the local one."""
    stored, settings, check = serving.stored, call.settings, call.deadline.check
    repair = Repair(stored, settings, leaves_marks=call.restores)
    with ExitStack() as undo:
        undo.callback(repair.close)
        with passed_over_where_unusable(stored, call.source, FormatError, StoreError):
            evidence, tally = weigh(stored, repair, settings), ProofTally()
        if stored.tier == "local" and call.restores:  # it alone may be written by a load
            call.weighed(evidence)
            restoring = Restoring(stored, repair, settings, check)
            fill_gaps(evidence, call.part(stored.folder), lambda file: restoring.require(evidence, file, tally))
        else:
            if stored.commit is not None:  # else nobody can say what would be the same
                fill_gaps(evidence, call.part(stored.folder), lambda file: _refuse(evidence, file))
            call.weighed(evidence)
        with passed_over_where_unusable(stored, call.source, StoreError):
            fetched = fetch_folder(call.source, stored.folder, stored.tier, evidence, tally, check)
        undo.pop_all()
    fetched = replace(
        fetched,
        commit=stored.commit,
        commit_learnt=serving.learnt if stored.commit is not None else None,
        begin_reading=lambda: Reading(stored),
        record=call.recorder(stored, evidence),
        mend_stored=repair.mend_stored,
        read_elsewhere=repair.read_by_tier,
        close=repair.close,
    )
    return _kept(fetched, stored) if stored.tier == "local" else _copied(fetched, serving, call)


def _refuse(evidence: Evidence, file: OfferedFile) -> NoReturn:
    raise LostError(explain_gap(evidence, file))


def _kept(fetched: Fetched, stored: Stored) -> Fetched:
    """What is loaded from the local tier is remembered there."""
    layout, commit = stored.layout, stored.commit
    if layout is None or commit is None:
        return fetched
    return replace(fetched, keep_report=lambda facts: keep_report(layout, commit, facts))


def _copied(fetched: Fetched, serving: _Serving, call: _Call) -> Fetched:
    """What is loaded from a mount is read at the rate that is allowed, and may be kept on the local tier."""
    revision = serving.candidate.moving_revision

    def begin() -> Copy | None:
        manifests = manifests_of(call.settings)
        return begin_copy(lambda: offer_stored(serving.stored, manifests), revision, call.settings, call.deadline.check)

    return replace(fetched, begin_copy=begin).held_to(call.settings.max_rate)


def _fetch_from_hub(call: _Call, hub: HubTier, find: Callable[[], HubFound]) -> Fetched:
    """What ``find`` finds on ``hub``, which is closed with it."""
    with ExitStack() as undo:
        undo.callback(hub.close)
        found = find()
        offer, revision, settings = found.offer, found.candidate.moving_revision, call.settings
        evidence, tally = weigh_hub(offer, settings), ProofTally()
        checkpoint = read_checkpoint(offer, call.source, evidence.whole_prover(tally))
        tally.count_ahead(sum(count_head_bytes(shard.header, is_proven=False) for shard in checkpoint.shards))
        undo.pop_all()
    fetched = Fetched(
        checkpoint=checkpoint,
        name=call.source.name,
        folder=f"{offer.repo}@{offer.commit}",
        root="",
        tier=offer.tier,
        commit=offer.commit,
        commit_learnt="name" if found.candidate.is_pinned else "hub",
        remote=offer,
        evidence=evidence,
        tally=tally,
        begin_copy=lambda: begin_copy(lambda: offer, revision, settings, call.deadline.check),
        close=hub.close,
    )
    return fetched.held_to(settings.max_rate)
