"""What is known of a model's content before it is loaded, and who knows better where it turns out wrong.

Best first: a manifest, which has every block; the name of a blob, which is the digest of the whole file; what
``hf download --local-dir`` noted; the hub's listing. See docs/verification.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.block_prover import BlockProver
from fastload._fetch.evidence.damage import MEND_HINT
from fastload._fetch.evidence.recorded import warn_of, warn_of_changes, warn_of_mixed, warn_of_rewritten
from fastload._read.file import with_blob
from fastload._store.folder_offer import list_named, offer_stored
from fastload._store.folder_record import find_kept, find_record
from fastload._store.held import offered_file
from fastload._store.linked import blob_behind
from fastload._store.listing import DOWNLOADS
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._store.wanted import deciding_of, weights_of
from fastload._verify.difference import Difference
from fastload._verify.digest import ContentHash, blocks_of
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.path import OURS, is_loaded
from fastload._verify.trust import Believed, PassedOver
from fastload.errors import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastload._format.checkpoint import FileIdentity
    from fastload._read.proof import Repair, WantedBlock
    from fastload._read.tally import ProofTally
    from fastload._store.folder_offer import FolderOffer
    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.stored import Stored

_PER_FILE = {EvidenceKind.MANIFEST, EvidenceKind.RECORDED, EvidenceKind.NONE}
"""Of which some files may be known by another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the files of one snapshot."""

    kind: EvidenceKind
    """Of the weights, and of the indexes that choose among them."""
    folder: str
    """The snapshot's; what is known is known of paths in it."""
    files: Mapping[str, OfferedFile] = field(default_factory=dict)
    is_closed: bool = False
    """True if these are all the files that there should be, as a manifest beside them says."""
    names_lost: bool = False
    """True for a manifest kept apart that knows every weight there: one that it names and that is gone is an error,
    and files that it does not name may be there."""
    otherwise: EvidenceKind = EvidenceKind.NONE
    """The kind of files without blocks, where ``kind`` is a manifest that does not name them, or not all are known."""
    passed_over: str = ""
    """A manifest that is there and not believed, and why."""
    repair: Repair = lambda _: None
    """Asks better sources for one block."""
    misnamed: Mapping[str, str] = field(default_factory=dict)
    """Files, and the digests by which their blobs are called, which are not those of the manifest."""
    outdated: Mapping[str, OfferedFile] = field(default_factory=dict)
    """What was recorded of files that were changed on purpose since: nothing is known of them, but what is malformed is
    told from it."""
    by_block: EvidenceKind = EvidenceKind.MANIFEST
    """The kind of files with blocks, where the others are known by less."""
    may_be_meant: bool = False
    """True where nobody but the owner of a folder has said what is in it, so that he may say something else."""
    as_found: frozenset[str] = frozenset()
    """Files in a hub's cache of which nobody knew anything when their blocks were recorded."""
    hints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Block digests, by path, that prove nothing: they may tell which blocks of a damaged file are still right."""

    @property
    def has_blocks(self) -> bool:
        """True if every block is known, of weights at least."""
        return bool(self.files) and all(file.blocks is not None for file in weights_of(self.files.values()))

    @property
    def has_some_blocks(self) -> bool:
        """True if the blocks of any file are known."""
        return any(file.blocks is not None for file in self.files.values())

    @property
    def may_have_blocks(self) -> bool:
        """False where no manifest could help: it has the sha256 of a file, and something else was signed."""
        return all(file.signed is None for file in self.files.values())

    def explain_unknown(self, what: str) -> str:
        """``what`` is missing, and why, where something is there that could be taken for it."""
        return f"{what} ({escaped(self.passed_over)})" if self.passed_over else what

    def kind_of(self, file: OfferedFile) -> EvidenceKind:
        """What proves one file."""
        if self.kind not in _PER_FILE:
            return self.kind
        if file.blocks is not None:
            return EvidenceKind.RECORDED if file.path in self.as_found else self.by_block
        return self.otherwise if self.otherwise is not EvidenceKind.SHA256 else _kind_of_blobs([file])

    def find(self, path: str) -> OfferedFile | None:
        """What is known of the file at ``path``, absolute or as the hub names it; None: nothing that proves it.

        Raises:
            IntegrityError: the manifest says one thing of it, the name of its blob another: neither is believed.
        """
        name = self.name_of(path)
        if self.is_misnamed(name):
            raise self.explain_misnamed(name).as_error(path, MEND_HINT)
        file = self.files.get(name)
        return file if file is not None and (file.blocks or file.sha256 or file.git_sha1 or file.signed) else None

    def name_of(self, path: str) -> str:
        """What the file at ``path``, absolute or as the hub names it, is called in the snapshot."""
        return os.path.relpath(path, self.folder) if os.path.isabs(path) else path

    def is_misnamed(self, name: str) -> bool:
        """True if its link leads to another blob than the manifest says, and was not mended since that was seen."""
        if name not in self.misnamed:
            return False
        return blob_behind(os.path.join(self.folder, name)) != self.files[name].blob_name

    def explain_misnamed(self, name: str) -> Difference:
        """Where its link leads, and where it should."""
        expected = f"one to {self.files[name].blob_name}, by its manifest"
        return Difference(f"a link to the blob {self.misnamed[name]}", expected)

    def prover(self, tally: ProofTally) -> BlockProver:
        """Proves the blocks of headers, where blocks are known; mends them in place."""
        return BlockProver(self.find, self.repair, tally)

    def whole_prover(self, tally: ProofTally) -> Callable[[str, FileIdentity, memoryview], bool]:
        """Proves an index, which is read whole, before it is believed: what it does not name would not be loaded."""
        prove_block = self.prover(tally)

        def prove(path: str, identity: FileIdentity, content: memoryview) -> bool:
            known = self.find(path)
            if known is None:
                return False
            if known.blocks is not None:
                prove_block.find_digests(path, identity)  # of an empty file there is no block that could be wrong
                for index, at, length in blocks_of(len(content)):
                    prove_block(path, identity, index, content[at : at + length])
                return True
            hashed = ContentHash(len(content), known)
            hashed.update(content)
            difference = hashed.find_difference(known)
            if difference is not None:
                raise difference.as_error(path, with_blob(path, MEND_HINT))
            return True

        return prove


NOTHING = Evidence(kind=EvidenceKind.NONE, folder="/")


def no_better(_: WantedBlock) -> bytes | None:
    """For what is mended from nowhere."""
    return None


def find_evidence(stored: Stored, repair: Repair = no_better, manifests: ManifestFolder | None = None) -> Evidence:
    """What is known of ``stored``; ``manifests`` is where a manifest of it may be kept apart.

    Raises:
        FormatError: its manifest is malformed.
    """
    word = find_record(stored.folder, lambda: list_named(stored)) if isinstance(stored, PlainFolder) else None
    warn_of(stored, word)
    found = _by_record(word, stored, repair) if isinstance(word, Believed) else _by_offer(stored, repair)
    if isinstance(word, PassedOver):
        found = replace(found, passed_over=str(word))
    found = _with_kept(found, stored, manifests)
    warn_of_changes(stored, tuple(found.outdated))
    return found


def _by_offer(stored: Stored, repair: Repair) -> Evidence:
    offer = offer_stored(stored)
    warn_of_rewritten(stored, offer.files)
    warn_of_mixed(stored, deciding_of(offer.files))
    found = Evidence(
        kind=_kind_of(stored, offer.files),
        folder=stored.folder,
        files={file.path: file for file in offer.files},
        otherwise=stored.named_by,
        repair=repair,
    )
    return _with_unlisted(found, offer) if offer.evidence is EvidenceKind.MANIFEST else found


def _with_unlisted(found: Evidence, offer: FolderOffer) -> Evidence:
    """``found`` by a manifest, with what another tool has added."""
    unlisted = {file.path: file for file in offer.unlisted}
    is_as_found = any(file.path in offer.as_found for file in deciding_of(offer.files))
    return replace(
        found,
        kind=EvidenceKind.RECORDED if is_as_found else found.kind,
        files={**unlisted, **found.files},
        is_closed=True,
        misnamed={file.path: file.blob_name for file in offer.misnamed},
        as_found=offer.as_found,
    )


def _by_record(word: Believed, stored: Stored, repair: Repair) -> Evidence:
    """By the manifest in a plain folder; what was written since is known by what a newer download says of it."""
    there = {file.path: file for file in list_named(stored)} if word.unknown else {}
    unknown = {path: there[path] for path in word.unknown if path in there}
    weights = tuple(file for file in unknown.values() if is_loaded(file.path))
    return Evidence(
        kind=_kind_of(stored, weights) if weights else word.kind,
        folder=stored.folder,
        files={**_list_proven(word, there), **unknown},
        is_closed=word.is_closed,
        by_block=word.kind,
        may_be_meant=word.may_be_meant,
        otherwise=stored.named_by,
        repair=repair,
        outdated=_list_outdated(word),
    )


def _with_kept(found: Evidence, stored: Stored, manifests: ManifestFolder | None) -> Evidence:
    """``found``, with the blocks of the manifest that is kept apart; of a closed one no more files than it names."""
    is_recorded = EvidenceKind.RECORDED in {found.kind, found.by_block}
    word = find_kept(stored, found.files.values(), manifests, is_recorded=is_recorded, is_closed=found.is_closed)
    warn_of(stored, word)
    if isinstance(word, PassedOver):
        return replace(found, passed_over=found.passed_over or str(word))
    if not isinstance(word, Believed):
        return found
    listed = _list_proven(word, found.files)
    if found.is_closed:
        listed = {path: file for path, file in listed.items() if path in found.files}
    outdated = {**found.outdated, **_list_outdated(word)}
    return replace(
        found,
        kind=found.kind if word.leaves_unknown else word.kind,
        names_lost=word.names_lost,
        by_block=word.kind,
        may_be_meant=found.may_be_meant or word.may_be_meant,
        files={**found.files, **listed},
        outdated={path: file for path, file in outdated.items() if path not in listed},
    )


def _list_proven(word: Believed, there: Mapping[str, OfferedFile]) -> dict[str, OfferedFile]:
    """What a manifest says of files, and what is seen of those that are ``there``."""
    seen = {path: file.mtime_ns for path, file in there.items()}
    return {path: replace(offered_file(file), mtime_ns=seen.get(path)) for path, file in word.proven.items()}


def _list_outdated(word: Believed) -> dict[str, OfferedFile]:
    named = ((path, word.manifest.find(path)) for path in word.outdated)
    return {path: offered_file(listed) for path, listed in named if listed is not None}


def may_be_known(stored: Stored) -> bool:
    """False for a plain folder in which nobody has left notes: it need not be listed, however much lies in it."""
    if isinstance(stored, CachedSnapshot):
        return True
    return any(os.path.isdir(os.path.join(stored.folder, notes)) for notes in (OURS, DOWNLOADS))


def evidence_of_hub(offer: Offer) -> Evidence:
    """What the hub's listing says of what it gives."""
    return Evidence(kind=EvidenceKind.LISTING, folder="", files={file.path: file for file in offer.files})


def _kind_of(stored: Stored, files: tuple[OfferedFile, ...]) -> EvidenceKind:
    weights, deciding = weights_of(files), deciding_of(files)
    if deciding and all(file.blocks is not None for file in deciding):
        return EvidenceKind.MANIFEST
    if not deciding or not all(file.has_digest for file in deciding):
        return EvidenceKind.NONE
    return _kind_of_blobs(weights) if isinstance(stored, CachedSnapshot) else stored.named_by


def _kind_of_blobs(files: Sequence[OfferedFile]) -> EvidenceKind:
    """By what their blobs are called: hubs keep small files in git itself."""
    return EvidenceKind.SHA256 if all(file.sha256 is not None for file in files) else EvidenceKind.GIT_SHA1
