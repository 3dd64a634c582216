"""What is known of a model's content before it is loaded, and who knows better where it turns out wrong.

Best first: a manifest, which has every block; the name of a blob, which is the digest of the whole file; what
``hf download --local-dir`` noted; the hub's listing. See docs/verification.md.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastload._read.file import translate
from fastload._read.proof import Wanted, mend_block
from fastload._read.reader import PlainFile
from fastload._store.folder_offer import offer_stored, offered_file, read_manifest_file
from fastload._store.layout import RepoLayout, find_repo
from fastload._store.listing import DOWNLOADS
from fastload._store.root import Stored
from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_digest
from fastload._verify.path import OURS
from fastload.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._format.checkpoint import FileIdentity
    from fastload._read.proof import Repair
    from fastload._read.tally import ProofTally
    from fastload._store.offer import Offer, OfferedFile
    from fastload._verify.manifest import Manifest

_SNAPSHOT = re.compile(r"(?P<repo>.*/(?P<name>models--[^/]+))/snapshots/(?P<commit>[0-9a-f]{40})(?:/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the files of one snapshot."""

    kind: str
    """``manifest``, ``sha256``, ``etag``, ``listing`` or ``none``."""
    folder: str
    """The snapshot's; what is known is known of paths in it."""
    files: Mapping[str, OfferedFile] = field(default_factory=dict)
    repair: Repair = lambda _: None
    """Asks better sources for one block."""

    @property
    def has_blocks(self) -> bool:
        """True if a manifest lists every block."""
        return self.kind.startswith("manifest")

    def find(self, path: str) -> OfferedFile | None:
        """What is known of the file at ``path``, absolute or as the hub names it; None: nothing that proves it."""
        name = os.path.relpath(path, self.folder) if os.path.isabs(path) else path
        file = self.files.get(name)
        return file if file is not None and (file.blocks or file.sha256 or file.git_sha1) else None

    def prover(self, tally: ProofTally) -> Callable[[str, FileIdentity, int, memoryview], None]:
        """Proves the blocks of headers, where blocks are known; mends them in place."""

        def prove(path: str, identity: FileIdentity, index: int, block: memoryview) -> None:
            known = self.find(path)
            if known is None or known.blocks is None:
                return
            if known.size != identity.size:
                found = f"a file of {identity.size:,} bytes"
                raise IntegrityError(path, min(known.size, identity.size), found, f"{known.size:,}", "Fetch it again")
            found = block_digest(block)
            if found != known.blocks[index]:
                wanted = Wanted(PlainFile(path, identity), index, len(block), known.blocks[index])
                block[:] = mend_block(wanted, found, self.repair, tally)

        return prove

    def whole_prover(self, tally: ProofTally) -> Callable[[str, FileIdentity, memoryview], None]:
        """Proves an index, which is read whole, before it is believed: what it does not name would not be loaded."""
        prove_block = self.prover(tally)

        def prove(path: str, identity: FileIdentity, content: memoryview) -> None:
            known = self.find(path)
            if known is None:
                return
            if known.blocks is not None:
                for index, at in enumerate(range(0, len(content), BLOCK_BYTES)):
                    prove_block(path, identity, index, content[at : at + BLOCK_BYTES])
                return
            hashed = ContentHash(len(content))
            hashed.update(content)
            difference = _compare(known, hashed)
            if difference is not None:
                raise IntegrityError(path, 0, *difference, MEND_HINT)

        return prove


NOTHING = Evidence(kind="none", folder="/")
MEND_HINT = (
    "fastload verify NAME --repair mends blocks from another tier, fastload warm NAME brings missing and short files "
    "again; fastload rm NAME, then warm, brings all of it"
)
"""``warm`` alone looks at sizes, not at content: what is there, and recorded, it takes for right."""


def _no_better(_: Wanted) -> bytes | None:
    return None


def find_evidence(stored: Stored, repair: Repair = _no_better) -> Evidence:
    """What is known of ``stored``.

    Raises:
        FormatError: its manifest is malformed.
    """
    manifest = _find_recorded(stored.folder) if stored.layout is None else None
    if manifest is not None:
        kind = "manifest (recorded)" if manifest.source == "recorded" else "manifest"
        files = {file.path: offered_file(file) for file in manifest.files}
        return Evidence(kind=kind, folder=stored.folder, files=files, repair=repair)
    offer = offer_stored(stored)
    return Evidence(
        kind=_kind_of(stored, offer.files),
        folder=stored.folder,
        files={file.path: file for file in offer.files},
        repair=repair,
    )


def may_be_known(stored: Stored) -> bool:
    """False for a plain folder in which nobody has left notes: it need not be listed, however much lies in it."""
    if stored.layout is not None:
        return True
    return any(os.path.isdir(os.path.join(stored.folder, notes)) for notes in (OURS, DOWNLOADS))


def _find_recorded(folder: str) -> Manifest | None:
    """The manifest in a plain folder, if nobody but us or root can have written it."""
    manifests = os.path.join(folder, OURS, "manifests")
    try:
        names = os.listdir(manifests)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise translate(manifests, exc) from exc
    paths = [os.path.join(manifests, name) for name in names if name.endswith(".json")]
    if len(paths) != 1 or not all(map(_is_ours_alone, (manifests, *paths))):
        return None
    return read_manifest_file(paths[0])


def _is_ours_alone(path: str) -> bool:
    status = os.stat(path)
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def evidence_of_hub(offer: Offer) -> Evidence:
    """What the hub's listing says of what it gives."""
    return Evidence(kind="listing", folder="", files={file.path: file for file in offer.files})


def _kind_of(stored: Stored, files: tuple[OfferedFile, ...]) -> str:
    weights = [file for file in files if file.path.endswith(".safetensors")]
    if weights and all(file.blocks is not None for file in weights):
        return "manifest"
    if not weights or not all(file.sha256 or file.git_sha1 for file in weights):
        return "none"
    return "sha256" if stored.layout is not None else "etag"


def stored_at(path: str) -> Stored | None:
    """The snapshot that a path which a user gave leads into: one of a hub's cache, or a folder of its own."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    match = _SNAPSHOT.fullmatch(folder)
    if match is not None:
        top = match["repo"] + "/snapshots/" + match["commit"]
        layout = RepoLayout(match["repo"])
        repo = find_repo(match["name"]) or match["name"]
        return _stored(repo, match["commit"], top, layout)
    return _stored(os.path.basename(folder), None, folder, None) if os.path.isdir(folder) else None


def _stored(repo: str, commit: str | None, folder: str, layout: RepoLayout | None) -> Stored:
    return Stored(
        tier="path", repo=repo, commit=commit, folder=folder, layout=layout, evidence="structure", missing=()
    )  # fmt: skip


def find_damage(evidence: Evidence, error: FormatError) -> IntegrityError | None:
    """The error to raise instead of a ``FormatError``, where a file of the checkpoint is not even what it should be.

    The file that it names first, then the others: an index does not fit a shard that is another one. That one of the
    others is not there means nothing: the evidence may name files that nobody wanted.
    """
    known = evidence.find(error.path)
    if known is not None and not os.path.isfile(error.path):
        return IntegrityError(error.path, 0, error.found, f"{known.size:,} bytes", "fastload warm NAME brings it again")
    others = (os.path.join(evidence.folder, name) for name in evidence.files)
    for path in dict.fromkeys((error.path, *others)):
        damage = _find_difference(evidence, path)
        if damage is not None:
            return IntegrityError(path, 0, f"{damage[0]} ({error.found})", damage[1], MEND_HINT)
    return None


def _find_difference(evidence: Evidence, path: str) -> tuple[str, str] | None:
    """Found and expected, where the file at ``path`` does not have the digest that is known of it."""
    known = evidence.find(path)
    if known is None or not os.path.isfile(path):
        return None
    content = ContentHash(os.path.getsize(path))
    with open(path, "rb") as file:
        while piece := file.read(BLOCK_BYTES):
            content.update(piece)
    return _compare(known, content)


def _compare(known: OfferedFile, content: ContentHash) -> tuple[str, str] | None:
    """Found and expected, where ``content`` does not have a digest that is known of it."""
    for name in ("sha256", "git_sha1"):
        expected, found = getattr(known, name), getattr(content, name)
        if expected is not None and found != expected:
            return f"{name} {found}", expected
    return None
