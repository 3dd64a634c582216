"""What is wrong with a file that has come, and what to say of it."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from fastload._read.file import with_blob
from fastload._verify.difference import Difference, find_difference
from fastload._verify.digest import BLOCK_BYTES
from fastload._verify.evidence_kind import EvidenceKind

if TYPE_CHECKING:
    from fastload._store.offer import Offer, OfferedFile
    from fastload._verify.manifest import ManifestFile
    from fastload.errors import IntegrityError

_SHOWN = 8


def find_wrong(expected: OfferedFile, found: ManifestFile) -> Difference | None:
    """What is wrong with a file, as precisely as its tier allows to say; None: nothing."""
    pairs = zip(expected.blocks or found.blocks, found.blocks, strict=True)
    bad = [number for number, (wanted, digest) in enumerate(pairs) if wanted != digest]
    if bad:
        numbers = ", ".join(map(str, bad[:_SHOWN])) + (", …" if len(bad) > _SHOWN else "")
        return Difference(f"other bytes in block {numbers}", "those of its manifest", bad[0] * BLOCK_BYTES)
    return find_difference(expected, found)


def refuse(offer: Offer, path: str, wrong: Difference) -> IntegrityError:
    """The error for the file ``path`` that is ``wrong``, as often as ``offer`` was asked for it."""
    cause = "damaged, or another one than was signed" if offer.evidence is EvidenceKind.SIGNATURE else "damaged"
    said = f"It came wrong from {offer.tier} twice: its copy there is {cause}"
    if offer.folder is None:
        return wrong.as_error(f"{offer.repo}/{path}", f"{said}. Fetch it from elsewhere")
    whole = os.path.join(offer.folder, path)
    mend = f"Mend it: fastload verify {shlex.quote(offer.folder)} --repair; or fetch it from elsewhere"
    return wrong.as_error(whole, with_blob(whole, f"{said}. {mend}"))
