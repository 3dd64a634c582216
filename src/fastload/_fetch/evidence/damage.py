"""Files that are not what they should be, told from files that are malformed or were never there."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._format.select import ByIndex
from fastload._read.file import regular_only, with_blob
from fastload._store.folder_record import RECORD_AGAIN, UNNAMED
from fastload._verify.digest import BLOCK_BYTES, ContentHash
from fastload._verify.evidence_kind import EvidenceKind
from fastload.errors import FormatError, IntegrityError, SignatureError, UsageError

if TYPE_CHECKING:
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.select import Select
    from fastload._store.directory import CheckpointFiles
    from fastload._store.offer import OfferedFile
    from fastload._verify.difference import Difference

MEND_HINT = (
    "fastload verify NAME --repair mends blocks from another tier, and brings missing and short files again, as does "
    "fastload warm NAME; fastload rm NAME, then warm, brings all of it"
)
"""``warm`` alone looks at sizes, not at content: what is there, and recorded, it takes for right."""


def find_damage(evidence: Evidence, error: FormatError) -> IntegrityError | None:
    """The error to raise instead of a ``FormatError``, where a file of the checkpoint is not even what it should be.

    The file that it names first, then the others: an index does not fit a shard that is another one. That one of the
    others is not there means nothing: the evidence may name files that nobody wanted.
    """
    known = evidence.find(error.path)
    if known is not None and not os.path.isfile(error.path):
        return IntegrityError(error.path, 0, error.found, size_of(known), "fastload warm NAME brings it again")
    others = (os.path.join(evidence.folder, name) for name in (*evidence.files, *evidence.outdated))
    for path in dict.fromkeys((error.path, *others)):
        damage = _find_difference(evidence, path)
        if damage is not None:
            explained = replace(damage, found=f"{damage.found} ({error.found})")
            return explained.as_error(path, with_blob(path, MEND_HINT))
    return None


def _find_difference(evidence: Evidence, path: str) -> Difference | None:
    """How the file at ``path`` differs from what is known of it, or was."""
    known = evidence.find(path) or evidence.outdated.get(os.path.relpath(path, evidence.folder))
    if known is None or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb", opener=regular_only) as file:
            content = ContentHash(os.fstat(file.fileno()).st_size, known)
            while piece := file.read(BLOCK_BYTES):
                content.update(piece)
    except (OSError, FormatError):  # what cannot be read explains nothing
        return None
    return content.find_difference(known)


def check_named(evidence: Evidence, files: CheckpointFiles, select: Select) -> None:
    """Check that ``files``, those that ``select`` has chosen, are those that the manifest beside them names.

    An index says which shards there are, and one that is lost may leave the choice to another one; without any, a shard
    that is lost or was added changes what is loaded.

    Raises:
        IntegrityError: one is missing, or one is not named.
        SignatureError: one is not signed; of hidden folders (``.git``, ``.cache``) that is not known before.
    """
    if files.is_chosen:
        return
    if evidence.is_closed:
        _check_none_added(evidence, files)
    if evidence.is_closed or evidence.names_lost:
        _check_none_lost(evidence, files, select)


def _check_none_added(evidence: Evidence, files: CheckpointFiles) -> None:
    for _, path in files.shards:
        if evidence.find(path) is None:
            if evidence.kind is EvidenceKind.SIGNATURE:
                expected, hint = "weights that the signature covers", "Leave them alone, or sign them too"
                raise SignatureError(path, "weights that the signature leaves out", expected, hint)
            cure = RECORD_AGAIN if evidence.may_be_meant else "or load it by its own path"
            raise UNNAMED.as_error(path, f"Remove it, if it does not belong there; {cure}")


def _check_none_lost(evidence: Evidence, files: CheckpointFiles, select: Select) -> None:
    lost = _find_lost(evidence, files, select)
    if lost is not None:
        path = os.path.join(evidence.folder, lost)
        size = size_of(evidence.files[lost])
        cure = "Bring it back; " + RECORD_AGAIN if evidence.may_be_meant else "fastload warm NAME brings it again"
        raise IntegrityError(path, 0, "no file", size, cure)


def size_of(known: OfferedFile) -> str:
    """What is known of its size, for messages."""
    return f"{known.size:,} bytes" if known.size else "a file"  # a signature says of no size


def _find_lost(evidence: Evidence, files: CheckpointFiles, select: Select) -> str | None:
    """What would be loaded too, were all files there that are named."""
    prefix = os.path.relpath(os.path.join(files.folder, "x"), evidence.folder)[:-1]
    named = {name.removeprefix(prefix): name for name in evidence.files if name.startswith(prefix)}
    beside = {name: full for name, full in named.items() if "/" not in name}
    there = {name for name, _ in files.shards}
    try:
        selection = select(there | beside.keys(), path=files.folder)
    except (FormatError, UsageError):  # what is there was unambiguous
        return None
    if isinstance(selection, ByIndex):
        names: tuple[str, ...] = (selection.name,)
    else:  # an index that is there and not named says for itself which shards there are
        names = selection.names if files.index is None else ()
    missing = (beside[name] for name in names if name in beside and name not in there)
    return next((name for name in missing if not os.path.lexists(os.path.join(evidence.folder, name))), None)
