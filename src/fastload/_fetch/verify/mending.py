"""Mending what a check of a stored snapshot has found, and telling what could not be written.

All has been read by then, and what was found is worth knowing also where the storage may not be written: so an error
of one file ends neither the mending of the others nor the telling.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.mend.mend_file import FileMender
from fastload.errors import FastloadError, FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.mend.repair import Repair
    from fastload._fetch.verify.checking import FileVerdict
    from fastload._fetch.workers import Workers
    from fastload._read.tally import ProofTally
    from fastload._store.stored import Stored


@dataclass(frozen=True, slots=True)
class RepairOutcome:
    """What was found, and what of it was mended."""

    verdicts: tuple[FileVerdict, ...]
    failure: FastloadError | None = None
    """Why something could not be written, though a better source has it right."""


@dataclass(frozen=True, slots=True)
class Mending:
    """Mends the files of one stored snapshot."""

    stored: Stored
    evidence: Evidence
    repair: Repair
    """Has the blocks that were brought while the files were checked."""
    tally: ProofTally
    take_turn: Callable[[int], None]
    """Returns when so many bytes of what is stored may be read."""

    def mend(self, checked: Sequence[FileVerdict], workers: Workers) -> RepairOutcome:
        """Whole files first, then blocks; of those that cannot be written nothing is called repaired."""
        mender = FileMender(self.stored, self.evidence, self.repair, self.tally, workers.go_on, self.take_turn)

        def mend_verdict(verdict: FileVerdict) -> RepairOutcome:
            try:
                return RepairOutcome((self._mend_whole(verdict, mender),))
            except (StoreError, FormatError) as exc:
                return RepairOutcome((verdict,), exc)

        tried = workers.map_all(mend_verdict, checked)
        failed = self.repair.mend_all()
        names = {os.path.relpath(path, self.stored.folder) for path in failed}
        verdicts = tuple(_as_it_stays(verdict, names) for each in tried for verdict in each.verdicts)
        failures = [each.failure for each in tried if each.failure is not None]
        return RepairOutcome(verdicts, next(iter((*failures, *failed.values())), None))

    def _mend_whole(self, verdict: FileVerdict, mender: FileMender) -> FileVerdict:
        """``verdict``, with what is wrong of the file as a whole mended, if any source has it right."""
        known = self.evidence.files.get(verdict.path)
        if known is None or not verdict.findings:
            return verdict
        is_whole = any(finding.block is None for finding in verdict.findings)
        if not is_whole and not self.repair.leads_elsewhere(known):
            return verdict
        is_relinked = mender.relink(known)
        if not is_relinked and not mender.mend(known):
            return verdict
        findings = tuple(replace(finding, repaired=True) for finding in verdict.findings)
        return replace(verdict, findings=findings, relinked=is_relinked)


def _as_it_stays(verdict: FileVerdict, failed: Container[str]) -> FileVerdict:
    if verdict.path not in failed:
        return verdict
    return replace(verdict, findings=tuple(replace(finding, repaired=False) for finding in verdict.findings))
