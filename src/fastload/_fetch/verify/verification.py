"""What was found of a snapshot, and whether that is an error."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastload._fetch.evidence.damage import MEND_HINT
from fastload._read.file import with_blob
from fastload.errors import FastloadError, IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._fetch.verify.checking import FileVerdict
    from fastload._finding import Finding


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
    missing: tuple[str, ...] = ()
    """What a download that was not finished lacks, in words: nothing is wrong by it, but no load takes it either."""
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


def _failure(folder: str, bad: Sequence[Finding]) -> IntegrityError:
    first = bad[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    path = os.path.join(folder, first.path)
    hint = with_blob(path, MEND_HINT)
    found = first.found + more
    return IntegrityError(path, first.offset, found, first.expected, hint, findings=tuple(bad), block=first.block)
