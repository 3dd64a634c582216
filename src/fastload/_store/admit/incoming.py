"""One file of an offer on its way in."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.filedigests import Hashing
    from fastload._store.offer import OfferedFile
    from fastload._verify.difference import Difference
    from fastload._verify.manifest import ManifestFile


class Incoming(Protocol):
    """A file on its way in: a :class:`~fastload._store.admit.staged.StagedFile`, or one that is there already."""

    @property
    def missing_bytes(self) -> int:
        """The room on the disk that it has not taken yet."""

    def reserve(self) -> None:
        """Take the room on the disk."""

    def has_arrived(self, index: int) -> bool:
        """True if block ``index`` was put, or recalled: nobody needs to see it again."""

    def recall(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> bool:
        """True if block ``index`` is there already; to see that, ``block`` is written to, with it or not."""

    @property
    def has_given(self) -> bool:
        """True if :meth:`give` has given anything."""

    @property
    def is_proven(self) -> bool:
        """True if all of it is there already, and had passed the proof of the whole: each block proves itself then."""

    def vouch(self, blocks: Sequence[str]) -> None:
        """A file of just these ``blocks`` has passed that proof."""

    def give(self, index: int, pieces: Sequence[memoryview]) -> bool:
        """True if ``pieces`` were filled with what is there of block ``index``; whoever wants it believed puts it."""

    def put(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> None:
        """Block ``index`` has arrived; ``hashing()`` is entered while digests are taken."""

    def finish(self, path: str) -> ManifestFile:
        """All blocks have arrived: bring them to the disk and tell the digests."""

    def find_unsigned(self) -> Difference | None:
        """How the whole differs from what was signed of it besides the digests that :meth:`finish` tells; None: not."""

    def publish(self, target: str) -> None:
        """Give the file its name."""

    def discard(self) -> None:
        """What was brought is not what it should be: forget it."""

    def close(self) -> None:
        """Let go; what was brought stays for the next run."""


@dataclass(slots=True)
class Task:
    """One file of the offer on its way in."""

    file: OfferedFile
    incoming: Incoming
    attempts: int = 1
    done: ManifestFile | None = None
