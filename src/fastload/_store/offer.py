"""What a tier can give: the files of one snapshot, what is known of their content, and a reader for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fastload._verify.difference import find_contradiction

if TYPE_CHECKING:
    from fastload._read.reader import Reader
    from fastload._store.wanted import Wish
    from fastload._tier import Tier
    from fastload._verify.evidence_kind import EvidenceKind
    from fastload._verify.manifest import ManifestFile
    from fastload._verify.statement import SignedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedFile:
    """One file of a snapshot; what the tier does not know is None."""

    path: str
    """Relative to the snapshot, with ``/``."""
    size: int
    sha256: str | None = None
    git_sha1: str | None = None
    """``sha1("blob <size>\\0" + content)``, as git names small files."""
    blocks: tuple[str, ...] | None = None
    """BLAKE3 of each block, from a manifest."""
    signed: SignedFile | None = None
    """What the holder of a key signed of it, where that is not the sha256 of the whole."""
    mtime_ns: int | None = None
    """Of a file that may change in place: with its size, what tells one state of it from another."""
    ctime_ns: int | None = None
    """Likewise, and set by nobody: it tells what was written under an old ``mtime_ns``."""

    @property
    def blob_name(self) -> str:
        """The digest by which the hub's client calls its blob; empty where none is known."""
        return self.git_sha1 or self.sha256 or ""

    @property
    def has_digest(self) -> bool:
        """True if a digest of all of it is known."""
        return bool(self.blob_name)

    def contradicts(self, other: OfferedFile | ManifestFile) -> bool:
        """True if the two are known to be of different content."""
        return find_contradiction(self, other) is not None


class Offer(Protocol):
    """One snapshot on one tier."""

    @property
    def tier(self) -> Tier:
        """Where it is."""

    @property
    def repo(self) -> str:
        """``org/name``, or the bare name of a folder."""

    @property
    def commit(self) -> str | None:
        """None for a plain folder: its commit follows from its content."""

    @property
    def evidence(self) -> EvidenceKind:
        """Where digests of its files are from."""

    @property
    def files(self) -> tuple[OfferedFile, ...]:
        """All files that are there, sorted by path."""

    @property
    def folder(self) -> str | None:
        """Where the files lie on this machine; None: nowhere."""

    @property
    def depth(self) -> int:
        """Reads in flight that suit it."""

    def lacks(self, wish: Wish) -> bool:
        """True if the commit may have more that ``wish`` wants than is offered here."""

    def open(self, file: OfferedFile) -> Reader:
        """A reader for ``file``; several threads may read from it at once.

        Raises:
            StoreError, FormatError: a file of a mount cannot be opened.
            HubError: the hub does not give it.
        """


class OfferAround:
    """What wrappers of offers have in common: they are as the offer that they wrap, but for what they set anew."""

    def __init__(self, offer: Offer) -> None:
        self.tier = offer.tier
        self.repo = offer.repo
        self.commit = offer.commit
        self.evidence = offer.evidence
        self.files = offer.files
        self.folder = offer.folder
        self.depth = offer.depth
        self._offer = offer

    def lacks(self, wish: Wish) -> bool:
        """See :class:`Offer`."""
        return self._offer.lacks(wish)

    def open(self, file: OfferedFile) -> Reader:
        """See :class:`Offer`."""
        return self._offer.open(file)
