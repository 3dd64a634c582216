"""Checking all that is stored of a model against the best evidence there is, and mending what can be mended."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.deadline import Deadline
from fastload._fetch.evidence.record import check_names, record_all
from fastload._fetch.evidence.recorded import accept_changes
from fastload._fetch.evidence.weigh import manifests_of, weigh_all
from fastload._fetch.mend.repair import Leaves, Repair
from fastload._fetch.mend.restore import Restoring
from fastload._fetch.pace import Pace
from fastload._fetch.verify.checking import FileCheck
from fastload._fetch.verify.choose_files import choose_files, find_stored, is_all_of_folder
from fastload._fetch.verify.loadable import add_refusals
from fastload._fetch.verify.mending import Mending, RepairOutcome
from fastload._fetch.verify.proven_by import find_kind
from fastload._fetch.verify.put_back import put_back, with_lost
from fastload._fetch.verify.telling import Telling, count_bytes
from fastload._fetch.verify.verification import Verification
from fastload._fetch.workers import Workers
from fastload._read.ledger import Ledger, Purpose
from fastload._read.tally import ProofTally
from fastload._store.keep.abandoned import sweep_abandoned
from fastload._store.ref import name_of
from fastload._store.stored import PlainFolder
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import check_name
from fastload.errors import IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.verify.checking import FileVerdict
    from fastload._fetch.verify.examination import Examination
    from fastload._store.stored import Stored
    from fastload.options import Settings

_THREADS = 8


def examine(wish: Examination, settings: Settings, ledger: Ledger | None = None) -> Verification:
    """What is found; the verdict is the caller's (:meth:`Verification.check`). Raises: else as :func:`verify`.

    ``ledger``: of the load that wants to know; its counts are in what is found, too.
    """
    deadline = Deadline(settings.deadline, f"verifying {name_of(wish.model)}")
    return deadline.within(lambda: _examine(wish, settings, ledger or Ledger(), deadline.check))


def _examine(wish: Examination, settings: Settings, ledger: Ledger, go_on: Callable[[], None]) -> Verification:
    stored = _find(wish, settings)
    tally, workers = ProofTally(ledger, stored.tier), Workers(_THREADS, go_on)
    leaves = Leaves.MENDED_ANYWHERE if wish.repairs else Leaves.MARKS
    with (
        closing(Repair(stored, settings, tally, leaves, go_on)) as mending,
        closing(_pace(wish, stored, settings)) as pace,
        ExitStack() as undo,
    ):
        evidence = weigh_all(stored, mending, settings)
        if wish.records and not wish.repairs:
            evidence = accept_changes(evidence, stored)
        files = choose_files(stored, evidence, wish)
        if wish.records:
            check_names(stored.folder, files)
        kind = find_kind(evidence, files)
        if kind is EvidenceKind.NONE:
            _refuse_unknown(wish, stored, evidence, settings)

        to_record = evidence.files.values() if _is_to_record(wish, evidence) else ()
        telling = undo.enter_context(closing(Telling(wish.progress, count_bytes(files, to_record))))
        take_turn = partial(_take_turn, pace, workers, tally, telling)

        restoring = Restoring(stored, mending, settings, go_on)
        restored = put_back(evidence, files, restoring) if wish.repairs else {}
        check = FileCheck(evidence, mending if wish.repairs else None, tally, take_turn)
        checked = workers.map_all(check.check_file, files)
        outcome = RepairOutcome(tuple(checked))
        if wish.repairs:
            outcome = Mending(stored, evidence, mending, tally, take_turn).mend(checked, workers)
        verdicts = tuple(with_lost(verdict, restored, restoring.relinked) for verdict in outcome.verdicts)
        found = replace(
            _describe(wish, stored, kind, verdicts, ledger),
            missing=_find_missing(wish, stored),
            failure=outcome.failure,
        )
        if not found.is_right or not _is_to_record(wish, evidence):
            return found
        known = weigh_all(stored, mending, settings) if wish.repairs else evidence  # a signature says of no size
        recorded = _record(found, stored, known, settings, take_turn)
        return replace(recorded, bytes_by_tier=ledger.by_tier())


def _describe(
    wish: Examination, stored: Stored, kind: EvidenceKind, verdicts: tuple[FileVerdict, ...], ledger: Ledger
) -> Verification:
    return Verification(
        path=stored.folder,
        tier=str(stored.tier),
        commit=stored.commit,
        evidence=kind.value,
        files=add_refusals(stored.folder, verdicts) if is_all_of_folder(wish, stored) else verdicts,
        recorded=False,
        blocks_reread=ledger.reread,
        blocks_repaired=ledger.repaired,
        bytes_by_tier=ledger.by_tier(),
    )


def _find(wish: Examination, settings: Settings) -> Stored:
    """What there is of it, and may be recorded."""
    stored = find_stored(wish.model, wish.revision, settings)
    if wish.records:
        check_name(stored.repo, stored.folder)  # before all of it is read in vain
    if isinstance(stored, PlainFolder) and (wish.records or wish.repairs):
        sweep_abandoned(stored.folder)
    return stored


def _find_missing(wish: Examination, stored: Stored) -> tuple[str, ...]:
    """Of a download that was not finished, which no repair finishes; where a manifest is, what is missing is damage."""
    return () if wish.include or isinstance(stored, PlainFolder) else stored.missing


def _take_turn(pace: Pace, workers: Workers, tally: ProofTally, telling: Telling, nbytes: int) -> None:
    pace.wait(nbytes, workers.go_on)
    tally.note(Purpose.PROOF, nbytes)
    telling.add(nbytes)


def _is_to_record(wish: Examination, evidence: Evidence) -> bool:
    return wish.records and (not evidence.has_blocks or bool(evidence.outdated))


def _record(
    found: Verification, stored: Stored, evidence: Evidence, settings: Settings, take_turn: Callable[[int], None]
) -> Verification:
    """``found``, of files that are right, with a manifest of them where there was none."""
    try:
        return replace(found, recorded=record_all(stored, evidence, manifests_of(settings), take_turn))
    except StoreError as exc:
        return replace(found, failure=exc)


def _refuse_unknown(wish: Examination, stored: Stored, evidence: Evidence, settings: Settings) -> None:
    if settings.verify == "require" and not wish.records:
        hint = "Record it where it is known to be right: fastload verify --record; or leave verify=require out"
        found = evidence.explain_unknown("weights that nothing proves")
        raise IntegrityError(stored.folder, 0, found, "evidence, since verify is require", hint)


def _pace(wish: Examination, stored: Stored, settings: Settings) -> Pace:
    is_held = wish.paces_local or stored.tier.is_lower
    return Pace(settings.max_rate if is_held else None)
