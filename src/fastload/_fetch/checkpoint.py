"""Resolve → headers: everything about a checkpoint that needs neither torch nor its weights."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastload._fetch.damage import check_named, find_damage
from fastload._fetch.deadline import NEVER, Deadline
from fastload._fetch.evidence import NOTHING, Evidence, no_better, stored_at
from fastload._fetch.record import Proof, record_proof
from fastload._fetch.remote import read_checkpoint
from fastload._fetch.repair import Repair
from fastload._fetch.resolve import parse_model, require, tiers_of
from fastload._fetch.restore import Part, Restoring, fill_gaps
from fastload._fetch.source import find_offer, hub_of, patience_within
from fastload._fetch.through import begin_copy
from fastload._fetch.weigh import manifests_of, weigh, weigh_hub
from fastload._format.checkpoint import Checkpoint, Shard, build_checkpoint
from fastload._read.choose import Choice, choose_reader
from fastload._read.file import read_ahead, read_header
from fastload._read.tally import ProofTally
from fastload._store.directory import find_files
from fastload._store.folder_offer import offer_stored
from fastload._store.keep.reading import Reading
from fastload._store.keep.reports import keep_report
from fastload._store.ref import name_of
from fastload._store.tiered import search
from fastload.errors import FormatError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastload._fetch.source import HubFound
    from fastload._fetch.through import Copy
    from fastload._read.file import ProveBlock
    from fastload._read.reader import File, Reader
    from fastload._store.offer import Offer
    from fastload._store.ref import Candidate, Name
    from fastload._store.root import Stored
    from fastload._verify.manifest import ManifestFile
    from fastload.options import Settings

_AHEAD = 16


@dataclass(frozen=True, slots=True)
class Source:
    """What to load, and which part of it."""

    model: str | os.PathLike[str]
    subfolder: str | None = None
    variant: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """As the caller called it."""
        text = name_of(self.model)
        return text if self.revision is None else f"{text}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A checkpoint whose headers were read and agreed, and where it came from."""

    checkpoint: Checkpoint
    name: str
    """As the caller called it: a path, or a name with its revision."""
    folder: str
    """Where it is; for what is on no mount, the name that the hub has for it."""
    root: str
    """The snapshot's folder, which a subfolder was taken of."""
    tier: str
    commit: str | None = None
    commit_learnt: str | None = None
    remote: Offer | None = None
    """What gives the bytes where no file system does."""
    evidence: Evidence = NOTHING
    tally: ProofTally = field(default_factory=ProofTally)
    """What proving the headers did; the load goes on counting."""
    begin_copy: Callable[[], Copy | None] = lambda: None
    """Begins the copy on the local tier, if there shall be one of what is loaded."""
    record: Callable[[Mapping[str, ManifestFile]], bool] = lambda _: False
    """Is told the digests of files that were proven whole, when all was; True if it left a manifest."""
    mend_stored: Callable[[], None] = lambda: None
    """Replaces, on the local tier, the files in which blocks were mended on the way."""
    begin_reading: Callable[[], Reading | None] = lambda: None
    """Shows others that it is being read."""
    keep_report: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Is told the facts of a load that was finished."""
    close: Callable[[], None] = lambda: None
    """Lets go of what was opened to find it."""

    def choose(self, shard: Shard, wanted: str) -> Choice:
        """The reader for one shard.

        Raises:
            UnsupportedError: one that was asked for by name, for bytes that no file system has.
        """
        if self.remote is None:
            return choose_reader(shard, wanted)
        if wanted == "auto":
            return Choice(partial(_open_offered, self.remote), "hub", "it is on no mount", self.remote.depth)
        hint = 'Use reader="auto", or bring the model up first: fastload warm'
        raise UnsupportedError(f'reader="{wanted}" cannot read from the hub', hint)


def _open_offered(offer: Offer, file: File) -> Reader:
    return offer.open(next(offered for offered in offer.files if offered.path == file.path))


def fetch(
    source: Source,
    settings: Settings,
    deadline: Deadline = NEVER,
    weighed: Callable[[Evidence], object] = lambda _: None,
) -> Fetched:
    """The checkpoint that ``source`` means; reads headers and the index only.

    Args:
        source: what is wanted.
        settings: all of them.
        deadline: when to give up.
        weighed: is told what proves the model where that is known before the headers, which are read then.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError, HubError: as :func:`fastload.load` says.
        DeadlineError: ``deadline`` is over.
    """
    return deadline.within(lambda: _fetch(source, settings, deadline, weighed), lambda fetched: fetched.close())


def _fetch(source: Source, settings: Settings, deadline: Deadline, weighed: Callable[[Evidence], object]) -> Fetched:
    parsed = parse_model(source.model, source.revision, settings)
    if isinstance(parsed, str):
        return _fetch_path(source, parsed, settings, deadline, weighed)
    found = search(parsed, tiers_of(settings))
    hub = hub_of(settings, patience_within(settings.deadline))
    if found.found is not None or hub is None:
        return _fetch_stored(source, _Serving(parsed, require(found)), settings, deadline, weighed)
    with ExitStack() as undo:
        undo.callback(hub.close)
        fetched = _fetch_from_hub(source, find_offer(parsed, hub, found), settings, deadline)
        undo.pop_all()
    return replace(fetched, close=hub.close)


def _fetch_folder(
    source: Source, path: str, tier: str, evidence: Evidence, tally: ProofTally, go_on: Callable[[], None]
) -> Fetched:
    prove = evidence.prover(tally) if evidence.has_some_blocks else None
    try:
        files = find_files(
            path, subfolder=source.subfolder, variant=source.variant, prove=evidence.whole_prover(tally)
        )  # fmt: skip
        shards = list(_read_shards(files.shards, prove, go_on))
        check_named(evidence, files, source.variant)
        checkpoint = build_checkpoint(shards, files.index)
    except FormatError as exc:
        damage = find_damage(evidence, exc)
        if damage is not None:
            raise damage from exc
        raise
    return Fetched(
        checkpoint=checkpoint,
        name=source.name,
        folder=files.folder,
        root=path,
        tier=tier,
        evidence=evidence,
        tally=tally,
    )


def _part(source: Source, folder: str) -> Part:
    return Part(os.path.join(folder, source.subfolder or ""), source.variant)


def _fetch_path(
    source: Source, path: str, settings: Settings, deadline: Deadline, weighed: Callable[[Evidence], object]
) -> Fetched:
    """From where the user said; what proves it may be kept apart, never beside it."""
    stored = stored_at(path)
    if stored is None:
        return _fetch_folder(source, path, "path", NOTHING, ProofTally(), deadline.check)
    evidence = weigh(stored, no_better, settings)
    weighed(evidence)
    fetched = _fetch_folder(source, path, "path", evidence, ProofTally(), deadline.check)
    return replace(fetched, record=_recorder(stored, evidence, settings, deadline))


def _recorder(
    stored: Stored, evidence: Evidence, settings: Settings, deadline: Deadline
) -> Callable[[Mapping[str, ManifestFile]], bool]:
    manifests = manifests_of(settings)
    return lambda proven: record_proof(stored, evidence, Proof(proven, deadline.check), manifests)


def _read_shards(
    shards: Sequence[tuple[str, str]], prove: ProveBlock | None, go_on: Callable[[], None]
) -> Iterator[Shard]:
    """By name and path. A header that is proven is read with the block around it, of several shards at once."""
    for number, (name, path) in enumerate(shards):
        go_on()
        if prove is not None and number % _AHEAD == 0:
            for _, ahead in shards[number : number + _AHEAD]:
                read_ahead(ahead)
        yield Shard(name, path, *read_header(path, prove))


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


def _fetch_stored(
    source: Source, serving: _Serving, settings: Settings, deadline: Deadline, weighed: Callable[[Evidence], object]
) -> Fetched:
    """From a folder of a tier; what comes from a shared one may be kept on the local one."""
    stored, candidate = serving.stored, serving.candidate
    repair = Repair(stored, settings)
    with ExitStack() as undo:
        undo.callback(repair.close)
        evidence, tally = weigh(stored, repair, settings), ProofTally()
        weighed(evidence)
        if stored.tier == "local":  # alone may be written by a load
            restoring = Restoring(stored, repair, settings, deadline.check)
            fill_gaps(evidence, _part(source, stored.folder), lambda file: restoring.require(evidence, file, tally))
        fetched = _fetch_folder(source, stored.folder, stored.tier, evidence, tally, deadline.check)
        undo.pop_all()
    if stored.commit is not None:
        learnt = "name" if candidate.is_pinned else stored.tier
        fetched = replace(fetched, commit=stored.commit, commit_learnt=learnt)
    fetched = replace(
        fetched,
        begin_reading=lambda: Reading(stored),
        record=_recorder(stored, evidence, settings, deadline),
        mend_stored=repair.mend_stored,
        close=repair.close,
    )
    layout, commit = stored.layout, stored.commit
    if stored.tier == "local":
        if layout is None or commit is None:
            return fetched
        return replace(fetched, keep_report=lambda facts: keep_report(layout, commit, facts))

    def begin() -> Copy | None:
        return begin_copy(lambda: offer_stored(stored), candidate.moving_revision, settings, deadline.check)

    return replace(fetched, begin_copy=begin)


def _fetch_from_hub(source: Source, found: HubFound, settings: Settings, deadline: Deadline) -> Fetched:
    offer = found.offer
    evidence, tally = weigh_hub(offer, settings), ProofTally()
    prove = evidence.whole_prover(tally)
    return Fetched(
        checkpoint=read_checkpoint(offer, subfolder=source.subfolder, variant=source.variant, prove=prove),
        name=source.name,
        folder=f"{offer.repo}@{offer.commit}",
        root="",
        tier=offer.tier,
        commit=offer.commit,
        commit_learnt="name" if found.candidate.is_pinned else "hub",
        remote=offer,
        evidence=evidence,
        tally=tally,
        begin_copy=lambda: begin_copy(lambda: offer, found.candidate.moving_revision, settings, deadline.check),
    )
