"""Which shards of a load are proven, and by what: decided before anything is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._load.prove.unread import prove_unread
from fastload._plan.ranges import clip, count
from fastload._read.proof import BlockProof, MappedBlockProof, ProofTell, explain_damage
from fastload._read.whole_proof import WholeDigest, WholeProof
from fastload._verify.digest import BLOCK_BYTES, count_blocks
from fastload._verify.evidence_kind import EvidenceKind, weakest
from fastload.errors import IntegrityError, escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.checkpoint import Checkpoint
    from fastload._format.header import Header
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan
    from fastload._read.choose import Choice
    from fastload._read.reader import File, OpenReader, Reader
    from fastload._store.offer import OfferedFile
    from fastload._verify.manifest import ManifestFile

OFF = "verify is off"
"""The reason for proving nothing, where the caller wanted nothing to be proven."""
_HINT = (
    "Make a manifest: fastload verify NAME --record (a signed model: with --manifests DIR --signature-key KEY); "
    "or ask for less proof"
)


@dataclass(frozen=True, slots=True)
class Proving:
    """How the bytes of a load are proven."""

    evidence: EvidenceKind
    """What proves all of them; nothing, where something is left unproven."""
    reason: str
    """Why that, where it is none."""
    is_serial: bool
    """True if a digest of a whole file is needed, which is there at the file's end."""
    proofs: Mapping[int, Callable[[OpenReader], OpenReader]]
    """Of each shard that is proven, what lets its readers prove what they read."""
    on_host: frozenset[int]
    """The shards whose bytes the CPU must see, for a digest of the whole."""
    proven: dict[str, ManifestFile]
    """The digests of files that were proven whole, by path; filled while they are read."""
    is_whole: bool
    """True if no tensor that the checkpoint names is left out, nor a part of one."""
    may_be_kept: bool = True
    """False where other ranks of a group read some of it unproven: a copy would pass for what it may not be."""

    def over(self, choices: Mapping[int, Choice]) -> dict[int, Choice]:
        """``choices``, by shard, whose readers prove what they can."""
        return {
            number: replace(choice, open=self.proofs[number](choice.open)) if number in self.proofs else choice
            for number, choice in choices.items()
        }


def prove(
    checkpoint: Checkpoint,
    plan: Plan,
    shards: Collection[int],
    evidence: Evidence,
    tell: ProofTell,
    *,
    here: Callable[[], Iterable[Extent]],
) -> Proving:
    """How what is read of ``shards`` is proven, as far as ``evidence`` goes.

    ``here``: the extents that are read here. It is asked when a file is opened: in a group, what another rank of it
    did not send is read here after all.
    """
    proven: dict[str, ManifestFile] = {}
    proofs: dict[int, Callable[[OpenReader], OpenReader]] = {}
    unproven = ""
    kinds: set[EvidenceKind] = set()
    on_host: set[int] = set()
    incomplete = _partial_shards(checkpoint, plan)
    for number in shards:
        shard = checkpoint.shards[number]
        known = evidence.find(shard.path)
        if known is None:
            unproven = unproven or evidence.explain_unknown("nothing is known of the bytes")
        elif known.blocks is not None:
            kinds.add(evidence.kind_of(known))
            proofs[number] = partial(_by_blocks, known, evidence, tell)
        elif number in incomplete:
            unproven = "no block digests, and only a part is read"
        else:
            kinds.add(evidence.kind_of(known))
            on_host.add(number)
            proof = WholeDigest(known.sha256, known.git_sha1, shard.header, known.signed)
            unplanned = partial(_unplanned_blocks, here, number, shard.identity.size)
            note = partial(_note, proven, known.path)
            proofs[number] = partial(_as_a_whole, proof, unplanned, tell, note)
    unread_kinds, unread_unproven = prove_unread(checkpoint, shards, evidence)
    unproven = unproven or unread_unproven
    kinds |= unread_kinds
    kind = EvidenceKind.NONE if unproven else weakest(kinds)
    return Proving(kind, unproven, bool(on_host), proofs, frozenset(on_host), proven, is_whole=not incomplete)


def prove_beside(proving: Proving, evidence: Evidence, paths: Iterable[str]) -> Proving:
    """``proving``, as far as ``evidence`` goes of the files at ``paths`` too.

    These are the index, which says what is loaded, and the config, which says what may be cast. They were read whole,
    and held to what is known of them, if anything is.
    """
    if proving.evidence is EvidenceKind.NONE:
        return proving
    kinds: set[EvidenceKind] = {proving.evidence}
    for path in paths:
        known = evidence.find(path)
        if known is None:
            return replace(proving, evidence=EvidenceKind.NONE, reason=_explain_unknown(evidence, path))
        kind = evidence.kind_of(known)
        # Hubs keep small files in git itself, and name them so: nothing that a user must know.
        kinds.add(EvidenceKind.SHA256 if kind is EvidenceKind.GIT_SHA1 else kind)
    return replace(proving, evidence=weakest(kinds))


def _explain_unknown(evidence: Evidence, path: str) -> str:
    return evidence.explain_unknown(f"nothing is known of {escaped(os.path.basename(path))}")


def index_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The path of the index by which the shards were chosen; nothing where there was none."""
    return (checkpoint.index.path,) if checkpoint.index is not None and checkpoint.index.path else ()


def require(proving: Proving, checkpoint: Checkpoint, why: str) -> None:
    """Raise ``IntegrityError`` where a load that must be proven is not."""
    if proving.evidence is EvidenceKind.NONE:
        raise refuse_unproven(checkpoint, proving.reason or "no shard", why)


def refuse_unproven(checkpoint: Checkpoint, reason: str, why: str) -> IntegrityError:
    """The error for weights that must be proven and, by ``reason``, are not."""
    path = checkpoint.shards[0].path if checkpoint.shards else ""
    return IntegrityError(path, 0, reason, f"evidence, since {why}", _HINT)


def _by_blocks(known: OfferedFile, evidence: Evidence, tell: ProofTell, open_reader: OpenReader) -> OpenReader:
    digests = known.blocks or ()

    def open_proof(file: File) -> Reader:
        if file.identity.size != known.size:
            found = f"a file of {file.identity.size:,} bytes"
            raise IntegrityError(
                file.path, min(file.identity.size, known.size), found, f"{known.size:,}", explain_damage(file.path)
            )
        reader = open_reader(file)
        kind = MappedBlockProof if reader.name == "mmap" else BlockProof
        return kind(reader, file, digests, evidence.repair, tell)

    return open_proof


def _as_a_whole(
    digest: WholeDigest,
    unplanned: Callable[[], frozenset[int]],
    tell: ProofTell,
    note: Callable[[ManifestFile], None],
    open_reader: OpenReader,
) -> OpenReader:
    def open_proof(file: File) -> Reader:
        return WholeProof(open_reader(file), file, digest, unplanned(), tell, note)

    return open_proof


def _note(proven: dict[str, ManifestFile], path: str, found: ManifestFile) -> None:
    proven[path] = replace(found, path=path)


def _unplanned_blocks(here: Callable[[], Iterable[Extent]], shard: int, file_bytes: int) -> frozenset[int]:
    """The blocks of a file that only its proof needs."""
    planned: set[int] = set()
    for extent in here():
        if extent.shard == shard:
            planned.update(range(extent.offset // BLOCK_BYTES, count_blocks(extent.end)))
    return frozenset(range(count_blocks(file_bytes))) - planned


def _partial_shards(checkpoint: Checkpoint, plan: Plan) -> set[int]:
    """The shards of which a tensor, or a part of one, is left out that the checkpoint names."""
    shards = enumerate(checkpoint.shards)
    doubtful = {number for number, shard in shards if not _is_all_read(shard.header, plan, number)}
    return {
        number
        for number, info in checkpoint.tensors()
        if number in doubtful and count(clip(plan.spread[number], info.begin, info.end)) < info.nbytes
    }


def _is_all_read(header: Header, plan: Plan, number: int) -> bool:
    """True if there is no byte of any tensor that is left out; of a hundred thousand none need be looked at then."""
    data_bytes = header.file_bytes - header.data_start
    return count(clip(plan.spread[number], header.data_start, header.file_bytes)) == data_bytes
