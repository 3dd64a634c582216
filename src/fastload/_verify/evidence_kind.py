"""By what the content of files is known: the words that reports use for it, and what they are worth."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class EvidenceKind(StrEnum):
    """The best first. What several files are known by is the worst of theirs: :func:`weakest`."""

    SIGNATURE = "signature"
    """Digests that somebody has signed whose key the user gave."""
    MANIFEST = "manifest"
    """Digests of blocks, taken of bytes while these were being held to something better."""
    RECORDED = "manifest (recorded)"
    """Digests of blocks, taken of what was there when somebody had it recorded, or as far as anybody knows."""
    SHA256 = "sha256"
    """The name of a blob in a hub's cache: the digest that the hub names a large file by."""
    GIT_SHA1 = "git-sha1"
    """The same of a small file, which hubs keep in git itself."""
    ETAG = "etag"
    """What ``hf download --local-dir`` noted of a file."""
    LISTING = "listing"
    """What the hub says of the files that it gives."""
    NONE = "none"
    """Nothing is known."""


_BEST_FIRST = tuple(EvidenceKind)


def weakest(kinds: Iterable[EvidenceKind]) -> EvidenceKind:
    """The least of ``kinds``, by which all is known that any of them speaks for; of no kinds: nothing is known."""
    return max(kinds, key=_BEST_FIRST.index, default=EvidenceKind.NONE)
