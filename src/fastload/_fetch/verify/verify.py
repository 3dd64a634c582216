"""Checking all that is stored of a model against the best evidence there is, and mending what can be mended."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastload._fetch.deadline import Deadline
from fastload._fetch.evidence.damage import MEND_HINT, size_of
from fastload._fetch.evidence.record import record_all
from fastload._fetch.evidence.recorded import accept_changes
from fastload._fetch.evidence.weigh import manifests_of, weigh_all
from fastload._fetch.find.at_path import follow, stored_at
from fastload._fetch.find.resolve import parse_model, tiers_of
from fastload._fetch.mend.repair import Repair
from fastload._fetch.mend.restore import Restoring, find_gap
from fastload._fetch.pace import Pace
from fastload._fetch.verify.checking import FileCheck, whole
from fastload._fetch.verify.loadable import add_refusals, require_weights
from fastload._fetch.verify.mending import Mended, Mending
from fastload._fetch.workers import Workers
from fastload._read.file import with_blob
from fastload._read.ledger import Ledger, Purpose
from fastload._read.tally import ProofTally
from fastload._store.listing import list_files
from fastload._store.ref import name_of
from fastload._store.stored import PlainFolder
from fastload._store.tiered import search
from fastload._store.wanted import is_weight, matches, parse_globs
from fastload._verify.digest import count_blocks
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import check_name
from fastload.errors import FastloadError, IntegrityError, ModelNotFoundError, StoreError, UsageError
from fastload.options import Options, decide_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.verify.checking import FileVerdict
    from fastload._finding import Finding
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored
    from fastload.options import Settings

_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found of a snapshot."""

    path: str
    tier: str
    commit: str | None
    evidence: str
    files: tuple[FileVerdict, ...]
    recorded: bool
    """True if a manifest was written."""
    blocks_reread: int = 0
    """Read a second time, past the page cache."""
    blocks_repaired: int = 0
    """Brought from another tier, which has them right."""
    bytes_by_tier: Mapping[str, int] = field(default_factory=dict)
    """What was read to check, to mend and to record: of this tier also what was read once more, and of stored files
    that were replaced."""
    failure: FastloadError | None = None
    """Why a manifest, or what a better source has right, could not be written."""

    @property
    def is_right(self) -> bool:
        """True if nothing was wrong, or all of it was mended."""
        return self.failure is None and all(finding.repaired for finding in self.findings)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all files."""
        return tuple(finding for file in self.files for finding in file.findings)

    def check(self) -> None:
        """Raise ``failure``, with the findings, or ``IntegrityError`` if something is wrong and was not mended."""
        if isinstance(self.failure, StoreError):
            self.failure.findings = self.findings
        if self.failure is not None:
            raise self.failure
        bad = [finding for finding in self.findings if not finding.repaired]
        if bad:
            raise _failure(self.path, bad)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types, with the number of their schema."""
        facts = asdict(replace(self, failure=None))
        del facts["failure"]  # an error of its own, which :meth:`check` raises
        return {"schema": 1, **facts}


def verify(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    repair: bool = False,
    record: bool = False,
    include: str | Sequence[str] = (),
    options: Options | None = None,
) -> Verification:
    """Check all that is stored of ``model``, where it is.

    Args:
        model: as for :func:`fastload.resolve`; what is incomplete can be checked too.
        revision: as for :func:`fastload.resolve`.
        repair: mend what is wrong, from other tiers: by block where blocks are known, else by file.
        record: write a manifest where there is none, so that loads prove blocks in parallel; of a recorded folder that
            was changed on purpose, a new one.
        include: globs of paths; only these are checked.
        options: settings.

    Raises:
        FormatError: a folder has no weights, or a name that no manifest can hold.
        IntegrityError: something is not what it should be and was not mended; ``.findings`` has all of it. Or the
            setting ``verify`` is ``require``, and nothing is known of what is there.
        ModelNotFoundError: no folder has anything of it.
        SignatureError: ``signature_key`` is set, and its holder has not signed what is there.
        StoreError: it cannot be read; or a manifest, or what was mended, cannot be written, with ``.findings`` too.
        UsageError: a glob matches nothing, or a part shall be recorded.
        DeadlineError: the setting ``deadline`` is over.
    """
    wish = Examination(
        model, revision, repairs=repair, records=record, include=parse_globs("include", include)
    )  # fmt: skip
    found = examine(wish, decide_settings(options, {}))
    found.check()
    return found


@dataclass(frozen=True, slots=True)
class Examination:
    """What to check, and what to do about it."""

    model: str | os.PathLike[str]
    revision: str | None
    repairs: bool
    records: bool
    include: tuple[str, ...]
    """Globs of paths; all of them where there is none."""
    paces_local: bool = True
    """False: ``max_rate`` holds back what is read from lower tiers only, as in a load that waits for it."""


def examine(wish: Examination, settings: Settings, ledger: Ledger | None = None) -> Verification:
    """What is found; the verdict is the caller's (:meth:`Verification.check`). Raises: else as :func:`verify`.

    ``ledger``: of the load that wants to know; its counts are in what is found, too.
    """
    deadline = Deadline(settings.deadline, f"verifying {name_of(wish.model)}")
    return deadline.within(lambda: _examine(wish, settings, ledger or Ledger(), deadline.check))


def _examine(wish: Examination, settings: Settings, ledger: Ledger, go_on: Callable[[], None]) -> Verification:
    stored = _find_stored(wish.model, wish.revision, settings)
    if wish.records:
        check_name(stored.repo, stored.folder)  # before all of it is read in vain
    tally, workers = ProofTally(ledger, stored.tier), Workers(_THREADS, go_on)
    with closing(Repair(stored, settings, tally)) as mending, closing(_pace(wish, stored, settings)) as pace:
        evidence = weigh_all(stored, mending, settings)
        if wish.records and not wish.repairs:
            evidence = accept_changes(evidence, stored)
        files = _choose_files(stored, evidence, wish)
        _check_known(wish, stored, evidence, settings)

        def take_turn(nbytes: int) -> None:
            pace.wait(nbytes, workers.go_on)
            tally.note(Purpose.PROOF, nbytes)

        restoring = Restoring(stored, mending, settings, go_on)
        restored = _restore(evidence, files, restoring, ledger) if wish.repairs else {}
        check = FileCheck(evidence, mending if wish.repairs else None, tally, take_turn)
        checked = workers.map_all(check.check_file, files)
        mended = Mended(tuple(checked))
        if wish.repairs:
            mended = Mending(stored, evidence, mending, tally, take_turn).mend(checked, workers)
        verdicts = tuple(_with_lost(verdict, restored, restoring.relinked) for verdict in mended.verdicts)
        found = Verification(
            path=stored.folder,
            tier=str(stored.tier),
            commit=stored.commit,
            evidence=evidence.kind.value,
            files=add_refusals(stored.folder, verdicts) if _is_all_of_folder(wish, stored) else verdicts,
            recorded=False,
            blocks_reread=ledger.reread,
            blocks_repaired=ledger.repaired,
            bytes_by_tier=ledger.by_tier(),
            failure=mended.failure,
        )
        if not wish.records or not found.is_right or (evidence.has_blocks and not evidence.outdated):
            return found
        known = weigh_all(stored, mending, settings) if wish.repairs else evidence  # a signature says of no size
        recorded = _record(found, stored, known, settings, take_turn)
        return replace(recorded, bytes_by_tier=ledger.by_tier())


def _record(
    found: Verification, stored: Stored, evidence: Evidence, settings: Settings, take_turn: Callable[[int], None]
) -> Verification:
    """``found``, of files that are right, with a manifest of them where there was none."""
    try:
        return replace(found, recorded=record_all(stored, evidence, manifests_of(settings), take_turn))
    except StoreError as exc:
        return replace(found, failure=exc)


def _check_known(wish: Examination, stored: Stored, evidence: Evidence, settings: Settings) -> None:
    if settings.verify == "require" and evidence.kind is EvidenceKind.NONE and not wish.records:
        hint = "Record it where it is known to be right: fastload verify --record; or leave verify=require out"
        found = evidence.explain_unknown("weights that nothing proves")
        raise IntegrityError(stored.folder, 0, found, "evidence, since verify is require", hint)


def _pace(wish: Examination, stored: Stored, settings: Settings) -> Pace:
    is_held = wish.paces_local or stored.tier.is_lower
    return Pace(settings.max_rate if is_held else None)


def _choose_files(stored: Stored, evidence: Evidence, wish: Examination) -> list[OfferedFile]:
    """What shall be checked of what is known and of what is there, in the order of paths.

    Raises:
        FormatError: a plain folder has no weights.
        UsageError: a glob of ``wish`` matches nothing, or a part shall be recorded.
    """
    there = {file.path: file for file in list_files(stored.folder)} if isinstance(stored, PlainFolder) else {}
    files = {**there, **evidence.files}
    if _is_all_of_folder(wish, stored) and not any(map(is_weight, files)):
        require_weights(stored.folder)
    for glob in wish.include:
        if not any(matches(name, (glob,)) for name in files):
            raise UsageError(f"include={glob!r} matches none of {len(files)} files", "Leave it out to see their names")
    if wish.include and wish.records:
        raise UsageError("a manifest is of all files: record does not go with include", "Leave include out")
    return [file for name, file in sorted(files.items()) if not wish.include or matches(name, wish.include)]


def _is_all_of_folder(wish: Examination, stored: Stored) -> bool:
    """True where a load takes what it finds: in a hub's cache something else says which files there should be."""
    return isinstance(stored, PlainFolder) and not wish.include


def _restore(
    evidence: Evidence, files: Sequence[OfferedFile], restoring: Restoring, ledger: Ledger
) -> dict[str, Finding]:
    """Put back what is missing or has another length: what was found of each file that is in its place again."""
    gaps = {file.path: (file, gap) for file in files if (gap := find_gap(evidence, file)) is not None}
    filled = {path: (file, gap) for path, (file, gap) in gaps.items() if restoring.restore(evidence, file)}
    brought = (file for path, (file, _) in filled.items() if path not in restoring.relinked)
    ledger.count(repaired=sum(count_blocks(file.size) for file in brought))
    return {path: replace(whole(file, gap, size_of(file)), repaired=True) for path, (file, gap) in filled.items()}


def _with_lost(verdict: FileVerdict, restored: Mapping[str, Finding], relinked: Container[str]) -> FileVerdict:
    lost = restored.get(verdict.path)
    if lost is None:
        return verdict
    return replace(verdict, findings=(lost, *verdict.findings), relinked=verdict.path in relinked)


def _find_stored(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> Stored:
    """What there is of ``model``, complete or not.

    Raises:
        ModelNotFoundError: no folder has anything of it.
    """
    parsed = parse_model(model, revision, settings)
    if isinstance(parsed, str):
        stored = stored_at(follow(parsed)) if os.path.lexists(parsed) else None
        if stored is None:
            raise ModelNotFoundError(parsed, (parsed,), "Check the path, and that its volume is mounted")
        return stored
    found = search(parsed, tiers_of(settings))
    there = found.found or next(iter(found.incomplete), None)
    if there is None:
        raise found.miss()
    return there


def _failure(folder: str, bad: Sequence[Finding]) -> IntegrityError:
    first = bad[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    path = os.path.join(folder, first.path)
    hint = with_blob(path, MEND_HINT)
    found = first.found + more
    return IntegrityError(path, first.offset, found, first.expected, hint, findings=tuple(bad), block=first.block)
